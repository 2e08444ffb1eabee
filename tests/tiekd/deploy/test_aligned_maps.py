"""The maps of a relative teacher, fitted to the ground truth of the training frames."""

import itertools
import logging

import numpy as np
import pytest

from tiekd.config import build
from tiekd.data import check_inputs, open_frames
from tiekd.data.inputs import made_maps_id, maps_to_make, open_teacher, run_id_of
from tiekd.data.synthetic import synthesize
from tiekd.data.teacher_maps import MapWriter, TeacherMaps
from tiekd.deploy.export_maps import import_maps, make_maps
from tiekd.distill.target_floor import teacher_histogram
from tiekd.errors import UserError

DATA = {"dataset": "synthetic-indoor", "train_frames": 8, "test_frames": 4, "frame_size": [64, 96], "train_crop": [48, 64]}
MOST = 10.0  # m
RELATIVE = {  # what a teacher of each kind predicts of a depth
    "median": lambda depth: 0.37 * depth,
    "affine_depth": lambda depth: 0.05 * depth + 0.2,
    "affine_disparity": lambda depth: 7 / depth - 0.3,  # below 0 where it is far
}


@pytest.fixture
def student(tmp_path):
    """The config of a student, by the settings of its teacher and changes of others."""

    def make(teacher, **changes):
        base = {
            "data": DATA,
            "student": {"name": "tiny"},
            "bins": {"n_bins": 16},
            "optim": {"epochs": 2, "batch_size": 4},
            "execution": {"store": str(tmp_path / "store")},
        }
        return build(base | changes | {"teacher": {"name": "t", **teacher}})

    return make


def train_depths():
    source = open_frames(build({"data": DATA, "loss": {"name": "si", "target": "ground_truth"}}).data, "train")
    for index, key in enumerate(source.keys):
        yield key, source.load(index).depth_gt


def write_arrays(folder, of_depth):
    """Write the maps of another program."""
    for key, depth in train_depths():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{key}.npy", of_depth(np.where(depth > 0, depth, MOST)).astype(np.float32))
    return folder


def write_metric(folder):
    """A perfect teacher, in meters."""
    with MapWriter(folder, MOST, {"teacher": "perfect"}) as writer:
        for key, depth in train_depths():
            writer.write(key, np.where(depth > 0, depth, MOST))
    return folder


@pytest.fixture
def imported(student, tmp_path):
    """Import maps of a function of the depth as relative ones. Returns their folder."""

    def make(of_depth):
        config = student({"maps": "unused"})
        import_maps(config, [write_arrays(tmp_path / "raw", of_depth)], tmp_path / "relative", "t", relative=True)
        return str(tmp_path / "relative")

    return make


@pytest.mark.parametrize("alignment", RELATIVE)
def test_a_run_on_aligned_maps_is_that_on_maps_in_meters(student, imported, execute_run, tmp_path, alignment):
    aligned = student({"maps": imported(RELATIVE[alignment]), "align": alignment})
    metric = student({"maps": str(write_metric(tmp_path / "metric"))})
    assert make_maps(aligned)
    for key, depth in train_depths():
        fitted, known = (open_teacher(config).load(key, depth.shape) for config in (aligned, metric))
        np.testing.assert_allclose(fitted, known, rtol=2e-3)  # both are rounded to 16 bits
    tables = [execute_run(config)[0].read_table("epochs.parquet") for config in (aligned, metric)]
    for column in ("loss", "abs_rel"):
        np.testing.assert_allclose(tables[0][column], tables[1][column], rtol=0.01)
    assert run_id_of(aligned) != run_id_of(metric)
    floors = [teacher_histogram(config) for config in (aligned, metric)]
    means = [np.average(depth, weights=count) for depth, count in floors]
    assert means[0] == pytest.approx(means[1], rel=1e-3)


def test_the_id_is_known_before_the_maps_are_made_and_contains_the_alignment(student, imported):
    folder = imported(RELATIVE["affine_depth"])
    config, other = (student({"maps": folder, "align": alignment}) for alignment in ("affine_depth", "median"))
    check_inputs(config)
    before = run_id_of(config)
    assert maps_to_make(config) == made_maps_id(config) != made_maps_id(other)
    assert run_id_of(other) != before
    make_maps(config)
    assert maps_to_make(config) is None
    assert run_id_of(config) == before
    assert open_teacher(config).keys == [key for key, _ in train_depths()]
    assert open_teacher(config).manifest.made_by["align"] == "affine_depth"


def test_other_relative_maps_are_another_teacher(student, imported, tmp_path):
    config = student({"maps": imported(RELATIVE["median"]), "align": "median"})
    before = made_maps_id(config)
    import_maps(config, [write_arrays(tmp_path / "raw", np.sqrt)], tmp_path / "relative", "t", relative=True)
    assert made_maps_id(config) != before


def test_no_alignment_leaves_ids_as_they_were(student, tmp_path):
    folder = str(write_metric(tmp_path / "metric"))
    assert run_id_of(student({"maps": folder, "align": "none"})) == run_id_of(student({"maps": folder}))
    assert made_maps_id(student({"hf": "org/model@main"})) == "9e53bc2a24adf5db"


def test_relative_maps_need_an_alignment(student, imported):
    with pytest.raises(UserError, match=r"its maps are relative; set teacher\.align, such as affine_disparity$"):
        check_inputs(student({"maps": imported(RELATIVE["median"])}))


def test_imported_numbers_are_kept_up_to_what_a_fit_undoes(imported):
    maps = TeacherMaps(imported(lambda depth: 100 - 30 * depth))
    assert maps.manifest.relative
    for key, depth in train_depths():
        raw = 100 - 30 * np.where(depth > 0, depth, MOST)
        wanted = (raw - min(raw.min(), 0)) / np.ptp([*raw.flat, 0])
        np.testing.assert_allclose(maps.load(key, depth.shape), wanted, atol=1e-5)


def test_depth_taken_for_disparity_is_refused_and_nothing_is_left(student, imported, tmp_path):
    config = student({"maps": imported(RELATIVE["affine_depth"]), "align": "affine_disparity"})
    with pytest.raises(
        UserError, match=r"fails for more than a quarter of 8 frames, first \S+: the fitted scale is -.*affine_depth"
    ):
        make_maps(config)
    assert not list((tmp_path / "store").rglob("*.png"))


def test_a_map_that_cannot_be_aligned_has_no_depth_and_is_told(student, imported, caplog):
    place = itertools.count()
    folder = imported(lambda depth: 0.1 * depth if next(place) else np.ones_like(depth))
    config = student({"maps": folder, "align": "affine_depth"})
    with caplog.at_level(logging.WARNING):
        make_maps(config)
    assert "teacher.align affine_depth: 1 of 8 maps are left without depth, first " in caplog.text
    empty = [not open_teacher(config).load(key, depth.shape).any() for key, depth in train_depths()]
    assert empty == [True] + 7 * [False]
    check_inputs(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {**DATA, "labelled": 4}}, "data.labelled: teacher.align uses the ground truth of every training frame"),
        ({"fidelity": "released"}, "fidelity: the released code has no teacher.align; expected 'corrected'"),
        ({"fidelity": ["kl_epsilon"]}, "fidelity: the released code has no teacher.align; expected 'corrected'"),
    ],
    ids=str,
)
def test_what_does_not_go_with_an_alignment_is_refused(student, change, message):
    with pytest.raises(UserError, match=message):
        student({"maps": "maps", "align": "median"}, **change)
    student({"maps": "maps"}, **change)


def test_frames_without_ground_truth_cannot_be_aligned(tmp_path):
    synthesize(tmp_path / "kitti", "kitti", train_frames=3, test_frames=1)
    listed = tmp_path / "kitti" / "kitti_eigen_train.txt"
    first, *others = listed.read_text().splitlines()
    image, _, focal_length = first.split()
    listed.write_text("\n".join([f"{image} None {focal_length}", *others]) + "\n")
    data = {"dataset": "kitti", "root": str(tmp_path / "kitti"), "train_crop": [64, 96]}
    teacher = {"name": "t", "hf": "org/model@main"}
    check_inputs(build({"data": data, "teacher": teacher}))
    with pytest.raises(UserError, match=r"affine_disparity: 1 of 3 training frames have no ground truth to fit their maps to"):
        check_inputs(build({"data": data, "teacher": teacher | {"align": "affine_disparity"}}))


def test_maps_of_some_frames_only_are_refused(student, imported, tmp_path):
    folder = imported(RELATIVE["median"])
    key = next(train_depths())[0]
    (tmp_path / "relative" / f"{key}.png").unlink()
    with pytest.raises(UserError, match=r"relative/\S+\.png: no such file"):
        check_inputs(student({"maps": folder, "align": "median"}))


def test_the_command_imports_and_a_run_aligns(tiekd, as_yaml, student, tmp_path):
    raw = write_arrays(tmp_path / "raw", RELATIVE["affine_disparity"])
    document = student({"maps": str(tmp_path / "out"), "align": "affine_disparity"}).document()
    config = as_yaml(tmp_path / "run.yaml", document)
    imported = ("teacher", "import", config, raw, "--out", tmp_path / "out")
    refused = tiekd(*imported, "--relative", "--depth-scale", 256)
    assert (refused.code, (tmp_path / "out").exists()) == (2, False)
    assert "--depth-scale 256: relative maps have no unit" in refused.err
    assert tiekd(*imported, "--relative").code == 0
    assert tiekd("run", config, "--json").code == 0
    assert "its maps are relative; set teacher.align" in tiekd("run", config, "--set", "teacher.align=none").err
    explained = tiekd("dpm", config, "--out", tmp_path / "dpm.png")
    assert explained.code == 0, explained.err
