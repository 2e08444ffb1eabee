import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from tiekd.config import build, override
from tiekd.data import open_frames
from tiekd.data.inputs import open_teacher
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.data.teacher_maps.blocks import BLOCK_FRAMES
from tiekd.data.transforms import normalize_image
from tiekd.deploy.export_maps import BF16_BOUND, MapOptions, NetworkTeacher, export_maps, make_maps, trained_weights
from tiekd.errors import DivergedError, UserError
from tiekd.inference.predict import predict
from tiekd.models.checkpoint import load_network

pytestmark = pytest.mark.slow

CPU = "cpu"


def frames(config):
    """Every frame of both splits, by key."""
    for split in ("train", "test"):
        source = open_frames(config.data, split)
        for index, key in enumerate(source.keys):
            yield key, source.load(index)


@pytest.mark.parametrize("flip_tta", [True, False])
def test_the_map_of_a_frame_is_the_teachers_depth_of_its_view(teacher, tmp_path, flip_tta):
    config = override(teacher.config, {"evaluation.flip_tta": flip_tta})
    weights = trained_weights(teacher.config)
    export_maps(config, NetworkTeacher(weights, flip_tta, CPU), tmp_path / "maps", "embedded")
    network, _ = load_network(weights)
    maps, half_a_unit = TeacherMaps(tmp_path / "maps"), 10.0 / 65535 / 2
    for key, frame in frames(config):
        depth = predict(network.eval(), normalize_image(frame.image)[None], config).depth[0, 0]
        stored = maps.load(key, frame.size)
        assert np.abs(stored - depth.numpy()).max() <= half_a_unit + 1e-6  # and float32's own rounding


def test_every_frame_of_both_splits_has_a_map(teacher):
    keys = [key for key, _ in frames(teacher.config)]
    assert TeacherMaps(teacher.maps).keys == keys
    assert teacher.exported["maps"] == len(keys) == 12


def test_the_manifest_names_what_made_the_maps(teacher):
    manifest = json.loads((teacher.maps / "manifest.json").read_text())
    assert manifest["made_by"]["teacher"] == "embedded"
    assert manifest["made_by"]["config"] == teacher.config.document()
    assert manifest["made_by"]["flip_tta"] is True
    assert manifest["made_by"]["weights"] == hashlib.sha256(trained_weights(teacher.config).read_bytes()).hexdigest()
    assert manifest["max_depth"] == 10.0
    assert manifest["sizes"] == {"64x96": 12}


def test_exporting_again_gives_the_same_teacher_whatever_it_is_called(teacher, tmp_path):
    maker = NetworkTeacher(trained_weights(teacher.config), True, CPU)
    again = export_maps(teacher.config, maker, tmp_path / "again", "another name")
    assert again["digest"] == teacher.exported["digest"] == TeacherMaps(teacher.maps).digest()


def test_other_weights_give_another_teacher(teacher, tiny, execute_run, tmp_path):
    config = tiny({"optim.epochs": 1})
    execute_run(config)
    other = export_maps(config, NetworkTeacher(trained_weights(config), True, CPU), tmp_path / "other", "embedded")
    assert other["digest"] != teacher.exported["digest"]


def test_a_teacher_that_was_not_trained_is_refused(teacher):
    with pytest.raises(UserError, match=r"has no finished run \w{16} of this config: train it with `tiekd run`"):
        trained_weights(override(teacher.config, {"seed": 9}))


def test_a_teacher_whose_run_did_not_finish_is_refused(teacher, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(teacher.config.execution.store, store)
    config = override(teacher.config, {"execution.store": str(store)})
    assert trained_weights(config).is_file()
    path = store / "runs" / teacher.record.run_id / "status.json"
    path.write_text(path.read_text().replace('"done"', '"failed"'))
    with pytest.raises(UserError, match="no finished run"):
        trained_weights(config)


def test_a_broken_off_export_is_no_teacher(teacher, tmp_path, monkeypatch):
    maker, made = NetworkTeacher(trained_weights(teacher.config), True, CPU), []

    def break_at_the_second(images, precision):
        made.append(images)
        return np.full(images.shape[:3], 3.0 if len(made) == 1 else np.nan, np.float32)

    monkeypatch.setattr(maker, "depth", break_at_the_second)
    with pytest.raises(DivergedError, match=r"the prediction for train/scene_000/0001 is not finite"):
        export_maps(teacher.config, maker, tmp_path / "maps", "embedded")
    with pytest.raises(UserError, match=r"maps: no such folder"):  # of which no block was finished
        TeacherMaps(tmp_path / "maps")


def test_a_teacher_that_ends_before_the_data_is_refused(teacher, tmp_path):
    maker = NetworkTeacher(trained_weights(teacher.config), True, CPU)
    with pytest.raises(
        UserError, match=r"teacher t: its depth ends at 10 m, data.max_depth is 80 m; use a model of the data's"
    ):
        export_maps(override(teacher.config, {"data.max_depth": 80}), maker, tmp_path / "maps", "t")
    assert not (tmp_path / "maps").exists()


def test_an_export_that_is_killed_ends_like_one_that_was_not(teacher, tiekd, in_folder, tmp_path):
    """A real process with SIGKILL, after one block of maps has been finished. tests/ablations/pool does so on a cluster."""
    many = {"data.train_frames": 2 * BLOCK_FRAMES, "execution.store": teacher.config.execution.store}
    config = override(teacher.config, many)
    weights = trained_weights(teacher.config)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": config.document()["data"]}))
    words = ["teacher", "export", "config.yaml", "--weights", str(weights), "--out", "maps", "--name", "embedded"]
    command = [sys.executable, "-m", "tiekd", *words]
    with subprocess.Popen(command, cwd=tmp_path) as process:
        while not (finished := sorted(tmp_path.glob("maps/parts/*.json"))):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "maps/manifest.json").exists()
    made = {path: path.stat().st_mtime_ns for path in maps_of(tmp_path / "maps", finished[0])}
    assert tiekd(*words).code == 0
    assert made == {path: path.stat().st_mtime_ns for path in made}  # finished blocks are not made again
    whole = export_maps(config, NetworkTeacher(weights, True, CPU), tmp_path / "whole", "embedded")
    assert TeacherMaps(tmp_path / "maps").digest() == whole["digest"]


def maps_of(folder: Path, part: Path) -> list[Path]:
    """The files of a finished block."""
    return [folder / f"{key}.png" for key in json.loads(part.read_text())["frames"]]


def test_of_two_processes_that_make_the_same_maps_none_makes_a_block_that_is_finished(teacher, tmp_path, monkeypatch):
    """While the one makes its first block, the other one makes everything, with another rounding."""
    source = {"name": "embedded", "weights": str(trained_weights(teacher.config))}
    data = teacher.config.document()["data"] | {"train_frames": 2 * BLOCK_FRAMES}
    config = build({"data": data, "teacher": source, "execution": {"store": str(tmp_path / "store")}, "loss": {"name": "mse"}})
    depth_of, made = NetworkTeacher.depth, []

    def depth(self, images, precision):
        made.append(images)
        if len(made) == 1:
            with monkeypatch.context() as other:
                other.setattr(NetworkTeacher, "depth", depth_of)
                assert make_maps(config)
        return depth_of(self, images, precision) * np.float32(1.001)

    monkeypatch.setattr(NetworkTeacher, "depth", depth)
    assert make_maps(config)
    assert len(made) <= BLOCK_FRAMES
    maps = open_teacher(config)
    maps.check_content(maps.keys)
    assert not list(maps.folder.glob("parts/*"))


@pytest.mark.parametrize("options", [MapOptions(batch_size=5), MapOptions(precision="bf16")], ids=str)
def test_options_that_change_numbers_are_in_the_manifest(teacher, tmp_path, options):
    maker = NetworkTeacher(trained_weights(teacher.config), True, CPU)
    made = export_maps(teacher.config, maker, tmp_path / "maps", "embedded", options=options)
    ours, default = TeacherMaps(tmp_path / "maps"), TeacherMaps(teacher.maps)
    assert ours.manifest.made_by == default.manifest.made_by | options.made_by
    assert len(options.made_by) == 1
    allowed = BF16_BOUND if options.precision == "bf16" else 1e-6
    for key, frame in frames(teacher.config):
        a, b = ours.load(key, frame.size), default.load(key, frame.size)
        assert np.abs(a / b - 1).mean() <= allowed + 10 / 65535 / b.min()  # and the step of a map
    if options.precision == "bf16":
        assert 0 < made["bf16"]["largest_difference"] <= BF16_BOUND
        assert made["digest"] != teacher.exported["digest"]


def test_bf16_is_refused_where_it_is_too_far_from_fp32(teacher, tmp_path, monkeypatch):
    maker = NetworkTeacher(trained_weights(teacher.config), True, CPU)
    monkeypatch.setattr("tiekd.deploy.export_maps.BF16_BOUND", 1e-6)
    with pytest.raises(UserError, match=r"bf16: the depth of train/scene_000/0000 differs .* on average, .*; valid: fp32"):
        export_maps(teacher.config, maker, tmp_path / "maps", "embedded", options=MapOptions(precision="bf16"))
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("n_shares", [2])
def test_maps_made_in_shares_are_the_same(teacher, tmp_path, n_shares):
    source = {"name": "embedded", "weights": str(trained_weights(teacher.config))}
    data = teacher.config.document()["data"] | {"train_frames": 2 * BLOCK_FRAMES}
    config = build({"data": data, "teacher": source, "execution": {"store": str(tmp_path / "store")}, "loss": {"name": "mse"}})
    complete = [make_maps(config, share, n_shares) for share in range(n_shares)]
    assert complete == [False] * (n_shares - 1) + [True]
    whole = export_maps(config, NetworkTeacher(Path(source["weights"]), True, CPU), tmp_path / "whole", "embedded")
    assert open_teacher(config).digest() == whole["digest"]
