"""Maps that a launch makes in the run store: their identity is known before they exist."""

import json
from pathlib import Path

import numpy as np
import pytest

from tiekd.config import build
from tiekd.data import check_inputs, input_digests, open_frames
from tiekd.data.frame_source import SPLITS
from tiekd.data.inputs import made_maps_id, maps_folder, maps_to_make, open_teacher, run_id_of
from tiekd.data.teacher_maps import TeacherMaps, encode_map
from tiekd.data.teacher_maps.blocks import MapBlocks
from tiekd.distill.preflight import check_ready, ready_record
from tiekd.errors import UserError
from tiekd.store.run_store import RunStore

RUN = {"student.name": "small"}
BASE = {
    "data": {
        "dataset": "synthetic-outdoor",
        "train_frames": 8,
        "test_frames": 4,
        "frame_size": [64, 96],
        "train_crop": [48, 64],
    },
    "student": {"name": "tiny"},
    "loss": {"name": "si"},
}


@pytest.fixture
def student(tmp_path):
    """The config of a student, by its teacher's settings and changes of others."""

    def make(teacher=None, **changes):
        base = BASE | {"execution": {"store": str(tmp_path / "store")}} | changes
        return build(base | {"teacher": {"name": "t", **(teacher or {"run": RUN})}})

    return make


def make_maps_of(config) -> str:
    """Write maps without a network. Returns their id."""
    maps_id = made_maps_id(config)
    keys = [key for split in SPLITS for key in open_frames(config.data, split).keys]
    blocks = MapBlocks(RunStore(config.execution.store), maps_folder(maps_id), keys, config.data.max_depth, maps_id)
    for key in keys:
        blocks.write(key, np.full((64, 96), 8.0, np.float32) + np.linspace(0, 30, 96, dtype=np.float32))
    assert blocks.close({"teacher": "t"})
    return maps_id


def test_the_run_id_is_the_same_before_and_after_the_maps_are_made(student):
    config = student()
    before = run_id_of(config)
    assert maps_to_make(config) == made_maps_id(config)
    maps_id = make_maps_of(config)
    assert maps_to_make(config) is None
    assert run_id_of(config) == before
    assert open_teacher(config).folder.name == maps_id


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": {"run": RUN | {"optim.epochs": 9}}},
        {"teacher": {"run": RUN, "flip_tta": False}},
        {"teacher": {"hf": "org/model@main"}},
        {"teacher": {"hf": "org/model@main", "metric": True}},
        {"data": {"max_depth": 40.0}},
        {"data": {"train_frames": 7}},
    ],
    ids=str,
)
def test_what_changes_the_maps_changes_their_id_and_the_run(student, change):
    settings = {key: BASE[key] | value for key, value in change.items() if key != "teacher"}
    config = student(change.get("teacher"), **settings)
    assert made_maps_id(config) != made_maps_id(student())
    assert run_id_of(config) != run_id_of(student())


@pytest.mark.parametrize(
    "change", [{"optim": {"epochs": 9}}, {"seed": 3}, {"bins": {"n_bins": 8}}, {"loss": {"name": "mse"}}], ids=str
)
def test_students_share_the_maps_of_a_teacher_that_states_its_settings(student, change):
    complete = {"run": student().teacher.run}
    assert made_maps_id(student(complete, **change)) == made_maps_id(student())


def test_hub_models_differ_by_revision(student):
    assert made_maps_id(student({"hf": "a/b@c"})) != made_maps_id(student({"hf": "a/b@d"}))


def test_weights_are_known_by_their_content(student, tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"one")
    (tmp_path / "c").write_bytes(b"two")
    ids = [made_maps_id(student({"weights": str(tmp_path / name)})) for name in "abc"]
    assert ids[0] == ids[1] != ids[2]


def test_inputs_are_complete_if_the_maps_can_be_made_but_a_run_needs_them(student):
    config = student()
    check_inputs(config)
    check_ready(config)
    with pytest.raises(UserError, match=r"the maps \w{16} of teacher t have not been made yet; `tiekd ablate`"):
        ready_record(config, RunStore(config.execution.store))
    make_maps_of(config)
    ready_record(config, RunStore(config.execution.store))


def test_a_made_map_that_was_changed_is_refused_before_training(student):
    config = student()
    maps_id = make_maps_of(config)
    key = open_frames(config.data, "train").keys[0]
    other = encode_map(key, np.linspace(9, 40, 64 * 96).reshape(64, 96), 80.0)
    Path(config.execution.store, maps_folder(maps_id), f"{key}.png").write_bytes(other)
    with pytest.raises(UserError, match=r"1 of 8 maps do not match manifest\.json"):
        ready_record(config, RunStore(config.execution.store))


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", None], ids=str)
def test_maps_with_a_damaged_or_missing_manifest_are_made_again(student, content):
    config = student()
    manifest = Path(config.execution.store, maps_folder(make_maps_of(config)), "manifest.json")
    manifest.unlink() if content is None else manifest.write_bytes(content)
    assert maps_to_make(config)
    make_maps_of(config)
    assert maps_to_make(config) is None


@pytest.mark.parametrize("key", ["../outside", "/etc/outside", "a/../../outside"])
def test_a_manifest_cannot_name_files_outside_its_folder(student, key):
    config = student()
    manifest = Path(config.execution.store, maps_folder(make_maps_of(config)), "manifest.json")
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(document | {"frames": {key: "0" * 64}}))
    assert maps_to_make(config)  # it counts as damaged
    with pytest.raises(UserError, match=r"not a manifest of format 1: frames: .*leaves the folder"):
        TeacherMaps(manifest.parent)


def test_weights_that_do_not_exist_are_a_missing_input(student, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.safetensors: no such file"):
        check_inputs(student({"weights": str(tmp_path / "nowhere.safetensors")}))


def test_a_teacher_of_a_smaller_range_is_refused_before_it_is_trained(student):
    with pytest.raises(UserError, match=r"teacher t: its depth ends at 40 m, data.max_depth is 80 m"):
        check_inputs(student({"run": RUN | {"data.max_depth": 40.0}}))


def test_digests_of_made_maps_and_of_a_folder_never_coincide(student, maps):
    made, folder = input_digests(student()), input_digests(student({"maps": str(maps)}))
    assert set(made) == {"train", "test", "made_maps"}
    assert set(folder) == {"train", "test", "teacher_maps"}


def test_maps_in_a_bucket_are_copied_once(student, bucket):
    config = student(execution={"store": f"s3://{bucket}/made"})
    make_maps_of(config)
    maps = open_teacher(config)
    key = maps.keys[0]
    assert maps.load(key, (64, 96)).max() == pytest.approx(38.0, abs=0.01)
    first = maps.path(key).stat().st_mtime_ns
    assert open_teacher(config).path(key).stat().st_mtime_ns == first


def test_a_damaged_map_in_a_bucket_is_refused(student, bucket):
    config = student(execution={"store": f"s3://{bucket}/damaged"})
    maps_id = make_maps_of(config)
    store = RunStore(config.execution.store)
    key = open_frames(config.data, "train").keys[0]
    store.write_bytes(f"{maps_folder(maps_id)}/{key}.png", b"other")
    with pytest.raises(UserError, match=rf"map {key} of maps/{maps_id} is missing or damaged; delete the folder"):
        open_teacher(config)
