"""The data sets. To add one that split lists describe: a module of tiekd/data with its Layout, and an entry here."""

from tiekd.config.specs.kinds import DatasetSpec, License, ReleasedMapNames

_RENDERED = License("apache-2.0", "Apache-2.0, as the code that rendered what it was trained on")

DATASETS: dict[str, DatasetSpec] = {
    "kitti": DatasetSpec(
        label="KITTI",
        layout="tiekd.data.layouts.kitti:KITTI",
        evaluation_size=(352, 1216),  # the kb-crop
        image_counts={652: "Eigen split, improved ground truth", 697: "Eigen split, raw LiDAR"},
        license=License("cc-by-nc-sa-3.0", "CC BY-NC-SA 3.0, the license of the KITTI images that it was trained on"),
        agreement_first_row=110,
        released_map_names=ReleasedMapNames("", ("date", "drive", "camera", "data", "frame")),
        defaults={
            "data": {
                "train_split": "kitti_eigen_train.txt",
                "test_split": "kitti_eigen_test.txt",
                "min_depth": 1e-3,
                "max_depth": 80.0,
                "train_crop": [352, 704],
            },
            "bins": {"n_bins": 257},
            "evaluation": {"protocol": "adabins-kb-garg"},
        },
    ),
    "nyu": DatasetSpec(
        label="NYU Depth v2",
        layout="tiekd.data.layouts.nyu:NYU",
        evaluation_size=(480, 640),
        image_counts={654: "official test split"},
        license=License("other", "not stated: NYU Depth v2, on which it was trained, names no license for models"),
        # The released configs reach NYU's images through the relative root data/nyu, which becomes part of the name.
        released_map_names=ReleasedMapNames("data_nyu_", ("scene", "frame")),
        defaults={
            "data": {
                "train_split": "nyu_train.txt",
                "test_split": "nyu_test.txt",
                "min_depth": 1e-3,
                "max_depth": 10.0,
                "train_crop": [416, 544],
            },
            "bins": {"n_bins": 49},
            "loss": {"sigma": 0.15},  # as in the released configs; 0.5 m would move the target far from the teacher's depth
            "augment": {"brightness": [0.75, 1.25]},
            "evaluation": {"protocol": "nyu-eigen"},
        },
    ),
    "folder": DatasetSpec(
        label="folder",
        layout=None,
        frames="tiekd.data.layouts.folder:folder_frames",
        evaluation_size=None,
        license=License("other", "not stated: those of the images that it was trained on apply"),
        defaults={
            "data": {"min_depth": 1e-3, "max_depth": 10.0, "train_crop": [416, 544]},
            "bins": {"n_bins": 64},
            "loss": {"sigma": 0.15},
            "evaluation": {"protocol": "none"},
        },
    ),
    "synthetic-outdoor": DatasetSpec(
        label="rendered streets",
        layout="tiekd.data.layouts.kitti:KITTI",
        frames="tiekd.data.synthetic:synthetic_frames",
        rendered=True,
        evaluation_size=None,
        license=_RENDERED,
        defaults={
            "data": {
                "train_frames": 96,
                "test_frames": 24,
                "frame_size": [64, 208],
                "min_depth": 1e-3,
                "max_depth": 80.0,
                "train_crop": [64, 96],
            },
            "bins": {"n_bins": 64},
            "evaluation": {"protocol": "none"},
        },
    ),
    "synthetic-indoor": DatasetSpec(
        label="rendered rooms",
        layout="tiekd.data.layouts.nyu:NYU",
        frames="tiekd.data.synthetic:synthetic_frames",
        rendered=True,
        evaluation_size=None,
        license=_RENDERED,
        defaults={
            "data": {
                "train_frames": 96,
                "test_frames": 24,
                "frame_size": [96, 128],
                "min_depth": 1e-3,
                "max_depth": 10.0,
                "train_crop": [64, 96],
            },
            "bins": {"n_bins": 32},
            "loss": {"sigma": 0.15},
            "augment": {"brightness": [0.75, 1.25]},
            "evaluation": {"protocol": "none"},
        },
    ),
}
