"""The commands on depth maps: made elsewhere and scored, exported in both layouts, taken over as a teacher."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tiekd.config import build, config_of_frames
from tiekd.data import open_frames
from tiekd.data.image_io import read_uint16
from tiekd.data.synthetic import synthesize
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.metrics import AGREEMENT_METRICS, METRICS
from tiekd.models.checkpoint import pack_network
from tiekd.store.run_store import RunStore

TRAIN = [f"2000_01_01/2000_01_01_drive_0000_sync/image_02/data/{index:010d}" for index in range(1)]
TEST = [f"2000_01_02/2000_01_02_drive_0000_sync/image_02/data/{index:010d}" for index in range(3)]
LABELLED = TEST[:2]
SCALE = ("--depth-scale", 65535 / 80)  # of the released layout on KITTI
ONCE = ("--set", "evaluation.flip_tta=false")
ON_KITTI = (
    "--set",
    "data.frame_size=null",
    "--set",
    "data.dataset=kitti",
    "--set",
    "data.test_split=kitti_eigen_test.txt",
    *ONCE,
)


@pytest.fixture(scope="module")
def kitti(tmp_path_factory) -> Path:
    """One training and three test frames as a KITTI folder, the last without ground truth; not to be written to."""
    root = tmp_path_factory.mktemp("data") / "kitti"
    synthesize(root, "kitti", train_frames=1, test_frames=3)
    return root


@pytest.fixture(scope="module")
def ran(tmp_path_factory, tiekd, tiny, as_yaml) -> SimpleNamespace:
    """A run of a tiny network on the embedded data: its store and its id."""
    folder = tmp_path_factory.mktemp("ran")
    outcome = tiekd("run", as_yaml(folder / "run.yaml", tiny), "--store", folder / "store", "--json")
    assert outcome.code == 0, outcome.err
    run_id = json.loads(outcome.out)["run_id"]
    return SimpleNamespace(store=folder / "store", run_id=run_id, folder=folder / "store/runs" / run_id)


@pytest.fixture(scope="module")
def frames(tmp_path_factory, as_yaml, kitti) -> Path:
    """A config that names data and nothing else."""
    return as_yaml(tmp_path_factory.mktemp("config") / "data.yaml", {"data": {"dataset": "kitti", "root": str(kitti)}})


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiekd, ran, frames) -> SimpleNamespace:
    """The network's maps of the KITTI folder, in both layouts."""
    folder = tmp_path_factory.mktemp("exported")
    words = ("teacher", "export", frames, "--weights", ran.folder / "student.safetensors", "--name", "tiny", "--json", *ONCE)
    ours = tiekd(*words, "--out", folder / "maps")
    released = tiekd(*words, "--layout", "released", "--out", folder / "released")
    assert (ours.code, released.code) == (0, 0), ours.err + released.err
    return SimpleNamespace(
        maps=folder / "maps",
        train=folder / "released/gt_kd_tiny",
        val=folder / "released/gt_kd_tiny_val",
        told=(json.loads(ours.out), json.loads(released.out)),
    )


# -- maps made elsewhere are scored -----------------------------------------------------------------------------------------


def test_the_ground_truth_itself_scores_perfectly(tiekd, kitti, tmp_path):
    for path in (kitti / "gt_depth").rglob("2000_01_02_*/**/*.png"):
        drive, frame = path.relative_to(kitti / "gt_depth").parts[0], path.name
        (tmp_path / "pred").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "pred" / f"{drive[:10]}_{drive}_image_02_data_{frame}")
    outcome = tiekd("evaluate", "--predictions", tmp_path / "pred", "--data", kitti, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert (found["protocol"], found["n_images"], found["n_images_without_ground_truth"]) == ("adabins-kb-garg", 2, 1)
    assert found["metrics"] == dict.fromkeys(METRICS, 0.0) | {"delta1": 1.0, "delta2": 1.0, "delta3": 1.0}


def test_a_networks_maps_score_as_the_network(tiekd, kitti, ran, exported):
    of_network = json.loads(tiekd("evaluate", ran.folder, "--data", kitti, *ON_KITTI, "--protocol", "bts-garg", "--json").out)
    for words in ([exported.maps], [exported.val, *SCALE]):
        outcome = tiekd("evaluate", "--predictions", *words, "--data", kitti, "--protocol", "bts-garg", "--json")
        assert outcome.code == 0, outcome.err
        found = json.loads(outcome.out)
        assert found["metrics"] == pytest.approx(of_network["metrics"], rel=1e-3)  # maps are in steps of 1.2 mm
        assert found["metrics"] != of_network["metrics"]
        assert (found["protocol"], found["n_images"]) == ("bts-garg", 2)


def test_a_prediction_is_clamped_to_the_range_of_the_data(tiekd, kitti, tmp_path):
    metrics = {}
    for depth in (80.0, 5000.0):
        folder = tmp_path / str(depth)
        for key in LABELLED:
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{key}.npy", np.repeat([40.0, depth], 608) * np.ones((352, 1)))
        metrics[depth] = json.loads(tiekd("evaluate", "--predictions", folder, "--data", kitti, "--json").out)["metrics"]
    assert metrics[80.0] == metrics[5000.0]


def test_relative_maps_are_scored_when_they_are_aligned(tiekd, kitti, tmp_path):
    source = open_frames(config_of_frames({"data": {"dataset": "kitti", "root": str(kitti)}}, "test").data, "test")
    for index in range(2):
        path = tmp_path / f"{source.keys[index]}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, source.load(index).depth_gt / 1e5 + 0.01)
    words = ("evaluate", "--predictions", tmp_path, "--data", kitti)
    assert "maps lie far below the cap" in tiekd(*words).err
    outcome = tiekd(*words, "--protocol", "none+affine_depth", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["metrics"]["abs_rel"] < 1e-4


def test_agreement_with_a_teacher_has_its_own_table(tiekd, kitti, ran, exported, tmp_path):
    words = ("evaluate", ran.folder, "--data", kitti, *ON_KITTI, "--teacher", exported.maps)
    outcome = tiekd(*words, "--images", tmp_path / "rows" / "images.parquet")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert [line.rstrip() for line in (lines[0], lines[4])] == [
        "protocol none, 2 images",
        "agreement with the teacher, 2 images",
    ]
    assert lines[5].split() == list(AGREEMENT_METRICS)
    assert lines[-2] == "1 of 3 images have no valid ground truth and are left out of the averages"
    found = json.loads(tiekd(*words, "--json").out)
    assert found["agreement"]["abs_rel_teacher"] < 1e-3 < found["metrics"]["abs_rel"]  # it agrees with its own maps
    rows = pd.read_parquet(tmp_path / "rows" / "images.parquet")
    stored = RunStore(ran.store).run(ran.run_id).read_table("images.parquet")
    assert list(rows.columns) == ["protocol", *stored.columns, *AGREEMENT_METRICS]
    assert list(rows["image"]) == LABELLED
    assert found["metrics"]["abs_rel"] == pytest.approx(rows["abs_rel"].mean())


def test_a_run_is_named_by_the_beginning_of_its_id(tiekd, ran):
    outcome = tiekd("evaluate", ran.run_id[:6], "--store", ran.store, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.out == tiekd("evaluate", ran.folder, "--json").out


# -- maps become a teacher --------------------------------------------------------------------------------------------------


def test_the_two_layouts_hold_the_same_maps(kitti, exported):
    ours, released = exported.told
    assert (ours["maps"], released["maps"]) == (4, 4)
    assert released["folders"] == [str(exported.train), str(exported.val)]
    maps = TeacherMaps(exported.maps)
    for folder, keys in ((exported.train, TRAIN), (exported.val, TEST)):
        assert len(list(folder.iterdir())) == len(keys)
        for key in keys:
            value = read_uint16(folder / f"{key.replace('/', '_')}.png", "map")
            assert np.array_equal((value * (80 / 65535)).astype(np.float32), maps.load(key, (352, 1216)))


def test_released_maps_come_back_as_a_teacher(tiekd, kitti, exported, frames, tmp_path):
    out = tmp_path / "maps"
    outcome = tiekd("teacher", "import", frames, exported.train, exported.val, *SCALE, "--out", out, "--name", "bts")
    assert outcome.code == 0, outcome.err
    maps, original = TeacherMaps(out), TeacherMaps(exported.maps)
    assert outcome.out == f"3 maps of teacher bts in {out}, digest {maps.digest()[:16]}\n"
    assert maps.keys == [*TRAIN, *LABELLED]  # the third has no ground truth
    assert maps.manifest.frames == {key: original.manifest.frames[key] for key in maps.keys}
    assert maps.manifest.made_by["teacher"] == "bts"


def test_a_converted_network_needs_no_run(tiekd, kitti, frames, tmp_path):
    """A file of weights whose config names a data set but no place, as a converted checkpoint's does."""
    from tiekd.models.registry import build_network

    ground_truth = {"name": "si", "target": "ground_truth"}
    config = build({"data": {"dataset": "kitti"}, "student": {"name": "tiny"}, "loss": ground_truth})
    (tmp_path / "converted.safetensors").write_bytes(pack_network(build_network(config), config))
    one = ("--set", "data.test_frames=1", *ONCE)
    scored = tiekd("evaluate", tmp_path / "converted.safetensors", "--data", kitti, "--json", *one)
    assert scored.code == 0, scored.err
    assert json.loads(scored.out)["protocol"] == "adabins-kb-garg"
    words = ("--weights", tmp_path / "converted.safetensors", "--out", tmp_path / "maps")
    assert tiekd("teacher", "export", frames, *words, *one).code == 0
    of_maps = tiekd("evaluate", "--predictions", tmp_path / "maps", "--data", kitti, "--json", *one[:2])
    assert json.loads(of_maps.out)["metrics"] == pytest.approx(json.loads(scored.out)["metrics"], rel=1e-3)


def test_a_hugging_face_model_is_a_teacher(tiekd, frames, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the hf extra is not installed")
    config = transformers.GLPNConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[8, 4],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
        max_depth=80,
    )
    transformers.GLPNForDepthEstimation(config).save_pretrained(tmp_path / "model")
    transformers.GLPNImageProcessor().save_pretrained(tmp_path / "model")
    words = ("--hf", tmp_path / "model", "--out", tmp_path / "maps", "--name", "glpn")
    outcome = tiekd("teacher", "export", frames, *words, "--set", "data.test_frames=1")
    assert outcome.code == 0, outcome.err
    manifest = TeacherMaps(tmp_path / "maps").manifest
    assert (manifest.sizes, manifest.made_by["teacher"]) == ({"352x1216": 2}, "glpn")
    assert manifest.made_by["architecture"] == "GLPNForDepthEstimation"


# -- mistakes ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scored(in_folder, kitti) -> Path:
    """A folder of one depth for each test frame with ground truth, under the working folder."""
    for key in LABELLED:
        path = in_folder / "pred" / f"{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((352, 1216), 256 * 9, np.uint16)).save(path)
    return in_folder / "pred"


def test_folders_that_are_good_are_no_mistake(tiekd, kitti, scored):
    outcome = tiekd("evaluate", "--predictions", "pred", "--data", kitti)
    assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "evaluate: expected either WEIGHTS or --predictions DIR, got neither"),
        ("w --predictions pred", "evaluate: expected either WEIGHTS or --predictions DIR, got both"),
        ("--predictions pred", "--predictions: needs --data ROOT, the folder of the data set"),
        ("--predictions pred --data nowhere", "nowhere: no such folder"),
        ("--predictions pred --data pred", "pred: found the split lists of no data set"),
        ("--predictions pred --data DATA --dataset kiti", "data.dataset: unknown 'kiti'; did you mean kitti"),
        ("--predictions nowhere --data DATA", "depth maps nowhere: no such folder"),
        ("--predictions . --data DATA", "depth maps .: 2 of 2 frames have no map, first 2000_01_02/2000_01_02_drive_0000_sync"),
        ("--predictions pred --data DATA --depth-scale 0", "--depth-scale: the integer at 1 m must be above 0, got 0.0"),
        ("--predictions pred --data DATA --store s", "--store s: is only used with WEIGHTS, not with --predictions"),
        ("--predictions pred --data DATA --protocol grag", "evaluation.protocol: unknown 'grag'"),
        ("--predictions pred --data DATA --protocol nyu-eigen", "protocol nyu-eigen is defined on 480 x 640 frames"),
        ("--predictions pred --data DATA --teacher pred", "teacher maps pred: no manifest.json"),
        ("--predictions pred --data DATA --images rows.csv", "--images rows.csv: expected the name of a .parquet file"),
        ("--predictions pred --data DATA --images file/rows.parquet", "file is a file; needed a folder"),
        ("--predictions pred --data DATA --set data.max_depth=0.002", "ground truth: 2 of 2 maps lie almost everywhere at the"),
        ("--predictions pred --data DATA --set loss.sigma=1", "loss.sigma: evaluate --predictions only reads data.dataset, "),
        (
            "--predictions arrays --data DATA --depth-scale 256",
            "--depth-scale 256: is only used for integers, and all maps hold floats, in m",
        ),
        (
            "--predictions mm --data DATA",
            "maps lie almost everywhere at the cap or beyond (median 9000 m, ",
        ),
        ("--predictions pred --data DATA --set data.maximum=3", "data.maximum: no such setting"),
        ("STORE/student.safetensors --dataset kitti", "--dataset kitti: is only used with --predictions"),
        ("STORE/student.safetensors --depth-scale 256", "--depth-scale 256.0: is only used with --predictions"),
        ("0123 --store empty", "store empty: has no run '0123'; needed a run id or a unique prefix of one"),
    ],
)
def test_what_evaluate_refuses(mistake, kitti, scored, in_folder, words, message):
    (in_folder / "file").touch()
    (in_folder / "empty").mkdir()
    for name, depth in (("arrays", 9.0), ("mm", 9000.0)):
        (in_folder / name).mkdir()
        for key in LABELLED:
            np.save(in_folder / name / f"{key.replace('/', '_')}.npy", np.full((352, 1216), depth))
    if "max_depth" in words:
        words += " --protocol none"
    assert message in mistake("evaluate", *(kitti if word == "DATA" else word for word in words.split()))


def test_runs_that_begin_alike_are_told(mistake, in_folder):
    for run_id in ("ab01", "ab02"):
        (in_folder / "store/runs" / run_id).mkdir(parents=True)
    assert "store store: 2 runs begin with 'ab', first ab01, ab02; needed" in mistake("evaluate", "ab", "--store", "store")
    assert "runs/ab01/student.safetensors: no such file" in mistake("evaluate", "ab01", "--store", "store")


def test_frames_without_ground_truth_are_refused_when_there_are_no_others(mistake, kitti, scored, in_folder):
    last = (kitti / "kitti_eigen_test.txt").read_text().splitlines()[-1]
    (in_folder / "last.txt").write_text(last + "\n")
    words = ("--predictions", "pred", "--data", kitti, "--set", f"data.test_split={in_folder / 'last.txt'}")
    assert "none of its 1 frames has ground truth to evaluate on" in mistake("evaluate", *words)


def test_a_map_of_another_size_is_refused_before_anything_is_scored(mistake, kitti, scored):
    path = sorted(scored.rglob("*.png"))[1]
    Image.fromarray(np.ones((176, 608), np.uint16)).save(path)
    line = mistake("evaluate", "--predictions", "pred", "--data", kitti, "--images", "rows.parquet")
    assert f"{path.name} is 176x608, expected 352x1216 (the view) or 375x1242 (the whole frame)" in line


EXPORT = "export DATA.yaml --out maps"
IMPORT = "import DATA.yaml pred --out maps"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"{EXPORT} --weights absent.safetensors", "weights absent.safetensors: no such file"),
        (f"{EXPORT} --weights w --hf m", "--weights and --hf: expected one teacher, got w and m"),
        (f"{EXPORT} --weights w --metric", "--metric: describes the model of --hf, which is missing"),
        (f"{EXPORT} --weights w --store s", "--store s: holds the run of CONFIG, and is not used with --weights or --hf"),
        (f"{EXPORT} --weights w --set loss.sigma=1", "loss.sigma: teacher export with --weights or --hf only reads data.*, "),
        (f"{IMPORT} --set loss.sigma=1", "loss.sigma: teacher import only reads data.*"),
        (f"{EXPORT} --weights w --layout relaesed", "--layout: unknown 'relaesed'; did you mean released?"),
        (f"{EXPORT} --weights w --layout released --name a/b", "--name: becomes part of a folder's name"),
        # Frames are looked for before a model is loaded.
        (f"{EXPORT} --weights absent.safetensors --set data.dataset=nyu", "nyu_train.txt: no such file"),
        (EXPORT, "data.yaml: teacher: loss.target 'teacher' needs a section"),
        ("export made.yaml --out maps --weights w --layout released", "supports kitti and nyu, got synthetic-indoor"),
        ("export DATA.yaml --out file --weights w", "--out file: "),
        ("import DATA.yaml nowhere --out maps", "depth maps nowhere: no such folder"),
        (IMPORT, "depth maps pred: 1 of 3 frames have no map, first 2000_01_01/"),
        ("import DATA.yaml pred --out pred", "--out pred: is one of the input folders; choose another one"),
        ("import DATA.yaml pred --out file/maps", "file is a file; needed a folder"),
        (f"{IMPORT} --depth-scale -1", "--depth-scale: the integer at 1 m must be above 0, got -1.0"),
        ("import absent.yaml pred --out maps", "config absent.yaml: no such file"),
        (f"{IMPORT} --set dta.root=x", "dta: no such setting"),
    ],
)
def test_what_teacher_commands_refuse(mistake, frames, as_yaml, scored, in_folder, words, message):
    as_yaml(in_folder / "made.yaml", {"data": {"dataset": "synthetic-indoor"}})
    (in_folder / "file").touch()
    assert message in mistake("teacher", *(frames if word == "DATA.yaml" else word for word in words.split()))


def test_a_broken_map_leaves_no_teacher(tiekd, kitti, frames, exported, tmp_path):
    """Found only when it is read: what was written before it is no teacher, since the manifest comes last."""
    folder = tmp_path / "arrays"
    folder.mkdir()
    for key in [*TRAIN, *LABELLED]:
        depth = TeacherMaps(exported.maps).load(key, (352, 1216))
        depth[0, 0] = np.nan if key.endswith("1") else 1
        np.save(folder / f"{key.replace('/', '_')}.npy", depth)
    outcome = tiekd("teacher", "import", frames, folder, "--out", tmp_path / "maps")
    assert (outcome.code, outcome.err.count("tiekd: ")) == (2, 1)
    assert "0000000001.npy: 1 of 428032 depths are not finite" in outcome.err
    assert not (tmp_path / "maps/manifest.json").exists()


def test_weights_that_are_no_network_are_refused(mistake, frames, in_folder):
    (in_folder / "w.safetensors").write_bytes(b"not one")
    line = mistake("teacher", "export", frames, "--weights", "w.safetensors", "--out", "maps")
    assert line.startswith("tiekd: weights w.safetensors: not a safetensors file")
