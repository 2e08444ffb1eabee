"""Any RGB-D folder: patterns, pairs, splits, groups and sizes; and the layouts that are recognized."""

from time import sleep

import numpy as np
import pytest
import yaml
from PIL import Image
from support.paths import SHARED
from support.runs import compute

from tiekd.config import DataConfig, build
from tiekd.config.specs.folders import FOLDER_LAYOUTS
from tiekd.data import open_frames
from tiekd.data.doctor import check_folder, recognize_folder
from tiekd.data.layouts import folder as folder_module
from tiekd.errors import UserError
from tiekd.store.run_store import RunStore

SIZE = (64, 96)


def image_of(number: int, size=SIZE) -> np.ndarray:
    rng = np.random.default_rng(number)
    return rng.integers(0, 255, (*size, 3), dtype=np.uint8)


def meters_of(number: int, size=SIZE) -> np.ndarray:
    """A slope from 1 to 4 m, and a hole."""
    depth = np.linspace(1, 4, size[1], dtype=np.float32) + np.zeros((size[0], 1), np.float32) + number / 100
    depth[:8, :8] = 0
    return depth


def save(path, values) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)


def save_frame(root, image: str, depth: str | None, number: int, scale: float = 1000.0, size=SIZE) -> None:
    save(root / image, image_of(number))
    if depth:
        meters = meters_of(number, size)
        save(root / depth, meters if depth.endswith(".npy") else np.rint(meters * scale).astype(np.uint16))


def data(root, **folder) -> DataConfig:
    settings = {name: folder.pop(name) for name in ("train_frames", "frame_size") if name in folder}
    return DataConfig.model_validate(
        {"dataset": "folder", "root": str(root), "folder": folder, "frame_size": SIZE, "train_crop": (32, 64)} | settings
    )


def keys_of(config: DataConfig, split: str = "train") -> list[str]:
    return list(open_frames(config, split).keys)


# -- the layouts that are recognized -----------------------------------------------------------------------------------------


def ultralytics(root):
    for split in ("train", "val"):
        for i in range(4):
            save_frame(root, f"images/{split}/{i}.{'jpg' if i % 2 else 'png'}", f"depth/{split}/{i}.png", i)


def tum(root):
    for scene in ("desk", "floor", "room"):
        for i in range(4):
            time = 1305031102 + i / 30
            save_frame(root, f"{scene}/rgb/{time:.6f}.png", f"{scene}/depth/{time + 0.011:.6f}.png", i, 5000.0)


def seven_scenes(root):
    for sequence in ("seq-01", "seq-02", "seq-03"):
        for i in range(4):
            save_frame(root, f"{sequence}/frame-{i:06d}.color.png", f"{sequence}/frame-{i:06d}.depth.png", i)
            (root / f"{sequence}/frame-{i:06d}.pose.txt").write_text("1 0 0 0")


def diode(root):
    for split in ("train", "val"):
        for i in range(4):
            stem = f"{split}/indoors/scene_0000{i // 2}/scan_00000/0000{i}_indoors_000_000"
            save_frame(root, f"{stem}.png", f"{stem}_depth.npy", i)
            save(root / f"{stem}_depth_mask.npy", (meters_of(i) > 1.5).astype(np.float32))


def scannet(root):
    for scene in ("scene0000_00", "scene0001_00", "scene0002_00"):
        for i in (0, 9, 10, 11):
            save(root / f"{scene}/color/{i}.jpg", image_of(i, (128, 192)))
            save(root / f"{scene}/depth/{i}.png", np.rint(meters_of(i) * 1000).astype(np.uint16))


def sun_rgbd(root):
    for sensor in ("kv1/NYUdata", "kv2/kinect2data", "xtion/sun3ddata"):
        for i in range(4):
            folder = f"{sensor}/NYU000{i}"
            rotated = np.rint(meters_of(i) * 1000).astype(np.uint16)
            save(root / f"{folder}/image/NYU000{i}.jpg", image_of(i))
            save(root / f"{folder}/depth_bfx/other{i}.png", (rotated << 3) | (rotated >> 13))


def virtual_kitti(root):
    for scene in ("Scene01", "Scene02", "Scene06"):
        for i in range(4):
            frames, number = f"{scene}/clone/frames", f"{i:05d}"
            save_frame(root, f"{frames}/rgb/Camera_0/rgb_{number}.jpg", f"{frames}/depth/Camera_0/depth_{number}.png", i, 100.0)


def bts_nyu(root):
    for folder in ("sync", "official_splits/test"):
        for scene in ("kitchen_0001", "office_0001"):
            for i in range(2):
                stem = f"{folder}/{scene}"
                save_frame(root, f"{stem}/rgb_{i:05d}.jpg", f"{stem}/sync_depth_{i:05d}.png", i)


LAYOUTS = {
    "Ultralytics": ultralytics,
    "TUM RGB-D": tum,
    "7-Scenes": seven_scenes,
    "DIODE": diode,
    "ScanNet": scannet,
    "SUN RGB-D": sun_rgbd,
    "Virtual KITTI 2": virtual_kitti,
    "BTS' NYU Depth v2": bts_nyu,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_usual_layout_is_recognized_and_trained_with_the_config_that_is_printed(name, tmp_path):
    LAYOUTS[name](tmp_path / "root")
    report = check_folder(tmp_path / "root", {"train_crop": [32, 64]})
    text = report.to_text()
    assert report.ok, text
    assert text.startswith(f"layout of {name}; in a config:\n\ndata:\n  dataset: folder\n")
    section = text.partition("\n\n")[2].partition("\n\n")[0]
    assert len(section.splitlines()) <= 1 + 7  # data, dataset, root, folder, frame_size, train_crop, max_depth
    document = yaml.safe_load(section) | {
        "student": {"name": "tiny"},
        "loss": {"name": "si", "target": "ground_truth"},
        "optim": {"epochs": 1, "batch_size": 2},
    }
    config = build(document)
    for split in ("train", "test"):
        source = open_frames(config.data, split)
        assert source.n_without_ground_truth == 0
        frame = source.load(0)
        assert frame.size == SIZE
        valid = frame.depth_gt > 0
        assert 0.3 < valid.mean() < 1
        assert 1 <= frame.depth_gt[valid].min() <= frame.depth_gt.max() <= 4.2
    record = compute(config, RunStore(tmp_path / "store"))
    assert record.status().state == "done", record.status().cause
    assert record.document()["data"]["folder"]["name"] == FOLDER_LAYOUTS[name].settings.get("name", "folder")


def test_every_layout_has_at_most_six_settings():
    assert all(len(layout.settings) <= 6 for layout in FOLDER_LAYOUTS.values())


def test_a_folder_of_no_known_layout_is_not_guessed(tmp_path):
    save_frame(tmp_path, "a/1.png", None, 1)
    assert recognize_folder(tmp_path) is None
    with pytest.raises(UserError, match=r"describe any RGB-D folder by data\.folder, for .* no usual layout \(.*Ultralytics"):
        check_folder(tmp_path, {})


@pytest.mark.skipif(not (SHARED / "data/seven").is_dir(), reason="needs ../shared/data/seven")
def test_real_frames_of_7_scenes_are_recognized():
    report = check_folder(SHARED / "data/seven", {})
    assert (report.layout, report.ok) == ("7-Scenes", True)
    train, test = report.splits
    assert (train.rows, train.groups, test.rows, test.groups) == (175, 9, 50, 3)
    assert not report.remarks


# -- patterns and pairs ------------------------------------------------------------------------------------------------------


def test_wildcards_pair_images_with_their_depth_maps(tmp_path):
    for scene in ("a", "b/c"):
        save_frame(tmp_path, f"rgb/{scene}/1.jpg", f"depth/{scene}/1.png", 1)
    save_frame(tmp_path, "rgb/a/2.jpg", None, 2)
    config = data(tmp_path, images="rgb/**/*.jpg", depths="depth/**/*.png", test_share=0)
    source = open_frames(config, "train")
    assert list(source.keys) == ["rgb/a/1", "rgb/a/2", "rgb/b/c/1"]
    assert [source.has_ground_truth(i) for i in range(3)] == [True, False, True]
    assert [source.group(i) for i in range(3)] == ["rgb/a", "rgb/a", "rgb/b/c"]
    assert source.n_without_ground_truth == 1
    assert not source.load(1).depth_gt.any()


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    for i in (10, 9, 100, 1):
        save_frame(tmp_path, f"{i}.jpg", None, i)
    assert keys_of(data(tmp_path, images="*.jpg", test_share=0)) == ["1", "9", "10", "100"]
    assert keys_of(data(tmp_path, images="*.jpg", test_share=0, train_frames=2)) == ["1", "9"]


def test_a_link_to_a_folder_above_does_not_lead_round(tmp_path):
    save_frame(tmp_path, "rgb/1.jpg", None, 1)
    (tmp_path / "rgb/again").symlink_to(tmp_path)
    assert keys_of(data(tmp_path, images="**/*.jpg", test_share=0)) == ["rgb/1"]


def test_images_that_differ_only_in_their_suffix_are_refused(tmp_path):
    save_frame(tmp_path, "rgb/1.jpg", None, 1)
    save_frame(tmp_path, "rgb/1.png", None, 1)
    with pytest.raises(UserError, match=r"1 images differ from another one only in their suffix, first rgb/1; narrow"):
        open_frames(data(tmp_path, images="rgb/*.*", test_share=0), "train")


def test_every_header_is_checked(tmp_path):
    seven_scenes(tmp_path)
    bad = tmp_path / "seq-02/frame-000001.color.png"
    bad.write_bytes(b"")
    report = check_folder(tmp_path, {"train_crop": [32, 64]})
    assert not report.ok
    assert str(bad) in report.to_text()


def test_a_time_pairs_with_the_nearest_within_the_tolerance(tmp_path):
    for time in ("1.00", "1.10", "1.20"):
        save_frame(tmp_path, f"rgb/{time}.png", None, 1)
    for time, number in {"1.015": 1, "1.085": 2, "1.3": 3}.items():
        save(tmp_path / f"depth/{time}.png", np.full(SIZE, number * 1000, np.uint16))
    config = data(tmp_path, images="rgb/*.png", depths="depth/*.png", pair_by="time", test_share=0)
    source = open_frames(config, "train")
    assert [source.has_ground_truth(i) for i in range(3)] == [True, True, False]
    assert [source.load(i).depth_gt.max() for i in range(2)] == [1.0, 2.0]
    with pytest.raises(UserError, match=r"pair_by time: the last wildcard must be a time in s, got 'depth'"):
        open_frames(data(tmp_path, images="*/1.00.png", depths="*/1.015.png", pair_by="time"), "train")


def test_values_without_depth_and_masked_ones_are_0(tmp_path):
    values = np.full(SIZE, 2.0, np.float32)
    values[0, :5] = [np.nan, np.inf, -1, 99, 0]
    save(tmp_path / "1.jpg", image_of(1))
    save(tmp_path / "1.npy", values)
    mask = np.ones(SIZE, np.uint8)
    mask[1, 0] = 0
    save(tmp_path / "m1.npy", mask)
    config = data(tmp_path, images="*.jpg", depths="*.npy", masks="m*.npy", depth_scale=1, invalid=[99], test_share=0)
    depth = open_frames(config, "train").load(0).depth_gt
    assert (depth[0, :5] == 0).all()
    assert depth[1, 0] == 0
    assert depth[1, 1] == 2
    assert np.isfinite(depth).all()


# -- size --------------------------------------------------------------------------------------------------------------------


def test_image_and_depth_are_brought_to_one_size_without_mixing_depths(tmp_path):
    save(tmp_path / "1.jpg", image_of(1, (128, 192)))
    depth = np.where(np.arange(48 * 32).reshape(32, 48) % 2, 3000, 0).astype(np.uint16)
    save(tmp_path / "1.png", depth)
    config = data(tmp_path, images="*.jpg", depths="*.png", test_share=0)
    frame = open_frames(config, "train").load(0)
    assert frame.image.shape == (*SIZE, 3)
    assert set(np.unique(frame.depth_gt)) == {0.0, 3.0}
    assert frame.size == frame.frame_size == SIZE


def test_a_frame_of_another_shape_is_refused(tmp_path):
    save(tmp_path / "1.jpg", image_of(1, (96, 96)))
    source = open_frames(data(tmp_path, images="*.jpg", test_share=0), "train")
    for use in (source.load, source.size):
        with pytest.raises(UserError, match=r"1\.jpg: 96x96 px cannot be brought to data\.frame_size 64x96 without distortion"):
            use(0)


# -- splits ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scenes(tmp_path):
    """Five scenes of four frames."""
    for scene in range(5):
        for i in range(4):
            save_frame(tmp_path, f"scene{scene}/{i}.jpg", None, i)
    return tmp_path


def split_of(config: DataConfig) -> tuple[list[str], list[str]]:
    return keys_of(config), keys_of(config, "test")


def test_groups_are_never_divided_and_the_seed_chooses_them(scenes):
    train, test = split_of(data(scenes, images="**/*.jpg", test_share=0.4))
    assert (len(train), len(test)) == (12, 8)
    assert not {key[:6] for key in train} & {key[:6] for key in test}
    assert split_of(data(scenes, images="**/*.jpg", test_share=0.4)) == (train, test)
    others = [split_of(data(scenes, images="**/*.jpg", test_share=0.4, split_seed=seed))[1] for seed in range(1, 6)]
    assert any(other != test for other in others)


def test_groups_are_named_to_be_tested_on(scenes):
    train, test = split_of(data(scenes, images="**/*.jpg", test_groups=["scene[34]"]))
    assert {key[:6] for key in test} == {"scene3", "scene4"}
    assert len(train) == 12


def test_the_last_frames_of_each_folder_are_tested_on_after_a_gap(scenes):
    train, test = split_of(data(scenes, images="**/*.jpg", split_by="time", test_share=0.25, split_gap=0.25))
    assert {key[-1] for key in train} == {"0", "1"}
    assert {key[-1] for key in test} == {"3"}


def test_groups_come_from_a_pattern_and_are_divided_into_blocks(scenes):
    config = data(scenes, images="**/*.jpg", group=r"scene(\d)", group_frames=3, test_share=0)
    source = open_frames(config, "train")
    assert [source.group(i) for i in range(5)] == ["0/00000", "0/00000", "0/00000", "0/00001", "1/00000"]
    with pytest.raises(UserError, match=r"data\.folder\.group 'room': does not match the image scene0/0\.jpg"):
        open_frames(data(scenes, images="**/*.jpg", group="room"), "train")


def test_a_split_without_frames_says_what_was_looked_for(scenes):
    with pytest.raises(
        UserError, match=r"no image matches for train \(\*\*/\*\.png\); `tiekd data check .*` tells what is there"
    ):
        open_frames(data(scenes, images="**/*.png"), "train")
    with pytest.raises(UserError, match=r"20 images match, and the split leaves none for test"):
        open_frames(data(scenes, images="**/*.jpg", test_groups=["none"]), "test")


# -- identity and settings ---------------------------------------------------------------------------------------------------


def test_what_the_values_mean_identifies_a_run_and_how_they_are_found_does_not(tmp_path):
    def config(**folder):
        base = {"images": "rgb/*.png", "depths": "depth/*.png"}
        section = {"dataset": "folder", "root": str(tmp_path), "folder": base | folder, "frame_size": SIZE, "train_crop": SIZE}
        return build({"data": section, "loss": {"name": "si", "target": "ground_truth"}})

    for change in ({"depth_scale": 5000.0}, {"invalid": [65535]}, {"rotate_bits": 3}, {"array": "z"}, {"name": "mine"}):
        assert config(**change).fingerprint() != config().fingerprint(), change
    for change in ({"images": "**/*.png"}, {"test_share": 0.5}, {"group_frames": 2}, {"split_seed": 1}):
        assert config(**change).fingerprint() == config().fingerprint(), change


def test_changed_files_change_the_digest(tmp_path):
    save_frame(tmp_path, "1.jpg", "1.png", 1)
    config = data(tmp_path, images="*.jpg", depths="*.png", test_share=0)
    before = open_frames(config, "train").digest()
    assert open_frames(config, "train") is open_frames(config, "train")
    save(tmp_path / "1.png", np.full(SIZE, 1234, np.uint16))
    assert open_frames(config, "train").digest() != before
    save_frame(tmp_path, "2.jpg", "2.png", 2)
    assert len(open_frames(config, "train")) == 2


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ({"images": "{split}/*.jpg", "depths": "*.png"}, "either all patterns contain {split} or none"),
        ({"images": "*.jpg", "masks": "*.png"}, "masks: needs data.folder.depths"),
        ({"images": "*.jpg", "test_share": 0.7, "split_gap": 0.3}, "leave nothing to train on"),
        ({"images": "*.jpg", "group": "("}, "not a regular expression"),
        ({"depths": "*.jpg"}, "data.folder.images is needed"),
    ],
)
def test_contradicting_settings_are_refused(folder, message):
    section = {"dataset": "folder", "root": ".", "folder": folder, "frame_size": SIZE, "train_crop": SIZE}
    with pytest.raises(UserError) as caught:
        build({"data": section, "loss": {"name": "si", "target": "ground_truth"}})
    assert message in str(caught.value)


def test_the_section_belongs_to_this_data_set_and_needs_a_size():
    loss = {"loss": {"name": "si", "target": "ground_truth"}}
    with pytest.raises(
        UserError, match=r"data\.folder: data set 'folder' needs this section; `tiekd data check ROOT` prints one"
    ):
        build({"data": {"dataset": "folder", "root": "."}, **loss})
    with pytest.raises(UserError, match=r"data\.folder: kitti does not read it"):
        build({"data": {"dataset": "kitti", "root": ".", "folder": {"images": "*"}}, **loss})
    with pytest.raises(UserError, match=r"data\.frame_size: needed for data set 'folder'"):
        build({"data": {"dataset": "folder", "root": ".", "folder": {"images": "*"}}, **loss})


def test_a_folder_is_listed_once_and_again_when_one_below_it_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "SETTLING_TIME", 0)  # otherwise new folders are listed again for two seconds
    walk, walked = folder_module._walk, []
    monkeypatch.setattr(folder_module, "_walk", lambda root: walked.append(root) or walk(root))
    ultralytics(tmp_path)
    config = data(tmp_path, images="images/{split}/*", depths="depth/{split}/*", splits=("train", "val"))
    sleep(0.02)  # more than the resolution of a folder's times
    before = open_frames(config, "train")
    assert open_frames(config, "train") is before
    assert len(walked) == 1
    save_frame(tmp_path, "images/train/9.png", "depth/train/9.png", 9)
    assert keys_of(config) == [*before.keys, "images/train/9"]
    assert len(walked) == 2
    digest = open_frames(config, "train").digest()
    save(tmp_path / "images/train/9.png", image_of(8))  # in place, which changes no folder
    assert open_frames(config, "train").digest() != digest
