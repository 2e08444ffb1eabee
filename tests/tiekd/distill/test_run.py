import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tiekd.config import RunConfig
from tiekd.data.inputs import run_id_of
from tiekd.distill.preflight import ready_record
from tiekd.distill.run import compute_run, execute
from tiekd.distill.runtime import CHECKPOINT, LocalRuntime
from tiekd.errors import UserError, error_line
from tiekd.metrics import METRICS, mean_metrics
from tiekd.models.checkpoint import load_network
from tiekd.store.run_store import RunStore


def files(folder: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def never(record):
    pytest.fail("the run was computed")


class Breaks(LocalRuntime):
    """A runtime whose machine fails once the first epoch is kept."""

    def report(self, epochs, state):
        super().report(epochs, state)
        raise RuntimeError("the disk\nis on fire")


# -- what a run leaves ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(teacher):
    """The teacher's own run: its record and its config."""
    return teacher.record, teacher.config


def test_a_finished_run_has_all_its_files(done):
    record, config = done
    assert files(config.execution.store) == [
        f"{record.folder}/{name}"
        for name in (
            "attempt.json",
            "config.yaml",
            "epochs.parquet",
            "images.parquet",
            "predictions.jpg",
            "provenance.json",
            "status.json",
            "student.safetensors",
            "summary.json",
        )
    ]


def test_the_status_tells_how_it_went(done):
    record, config = done
    status = record.status()
    assert (status.state, status.cause) == ("done", "")
    assert status.epoch == status.epochs == config.optim.epochs
    assert 0 < status.started < status.updated
    assert status.device_seconds == pytest.approx(record.read_table("epochs.parquet")["seconds"].sum())


def test_the_config_is_kept_as_the_same_run(done):
    record, config = done
    assert record.config().document() == config.document()
    assert run_id_of(record.config()) == record.run_id


def test_epochs_have_loss_parts_and_metrics(done):
    record, config = done
    table = record.read_table("epochs.parquet")
    assert set(table.columns) == {"epoch", "step", "lr", "loss", "part_si", "seconds", *METRICS}
    assert len(table) == config.optim.epochs
    assert (table["seconds"] > 0).all()


def test_images_have_a_row_per_test_frame_with_every_metric(done):
    table = done[0].read_table("images.parquet")
    assert set(table.columns) == {"image", "group", "n_valid", "median_ratio", "depth_min", "depth_max", *METRICS}
    assert table["image"].tolist() == [f"test/scene_000/{index:04d}" for index in range(4)]
    assert table["group"].unique().tolist() == ["test/scene_000"]
    assert table["n_valid"].between(1, 64 * 96).all()
    assert (table["depth_min"] < table["depth_max"]).all()


def test_the_summary_is_the_mean_over_images_by_a_named_protocol(done):
    record, config = done
    summary = record.read_json("summary.json")
    images = record.read_table("images.parquet").to_dict("records")
    assert summary["metrics"] == pytest.approx(mean_metrics(images))
    assert (summary["run_id"], summary["protocol"]) == (record.run_id, "none")
    assert (summary["n_images"], summary["n_images_without_ground_truth"]) == (4, 0)
    assert summary["epochs"] == config.optim.epochs


def test_the_weights_are_those_that_were_measured(done):
    record, config = done
    student, kept = load_network(f"{config.execution.store}/{record.folder}/student.safetensors")
    assert kept.document() == config.document()
    assert sum(p.numel() for p in student.parameters()) == record.read_json("summary.json")["parameters"]


def test_provenance_names_code_versions_hardware_inputs_and_time(done):
    record, _ = done
    origin = record.read_json("provenance.json")
    assert origin.keys() >= {"git_commit", "dirty", "versions", "lock", "hardware", "host", "device_seconds", "wall_seconds"}
    assert all(origin["versions"][name] for name in ("python", "torch", "timm", "numpy"))
    assert origin["hardware"]["cpus"] >= 1
    assert origin["inputs"].keys() == {"train", "test"}
    assert origin["wall_seconds"] == origin["device_seconds"] == record.status().device_seconds


def test_a_distilled_runs_provenance_names_its_teachers_maps(tiny, teacher, execute_run):
    record, _ = execute_run(tiny({"optim.epochs": 1}))
    assert record.read_json("provenance.json")["inputs"]["teacher_maps"] == teacher.exported["digest"]


# -- identity -------------------------------------------------------------------------------------------------------------


def test_a_run_is_known_by_its_teachers_maps_and_not_by_their_place(tiny, teacher, tmp_path):
    shutil.copytree(teacher.maps, tmp_path / "copy")
    shutil.copytree(teacher.maps, tmp_path / "other")
    manifest = tmp_path / "other" / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"depth_per_unit": content["depth_per_unit"] / 2}))
    here = run_id_of(tiny())
    assert run_id_of(tiny({"teacher.maps": str(tmp_path / "copy")})) == here
    assert run_id_of(tiny({"teacher.maps": str(tmp_path / "other")})) != here


def test_a_run_deletes_what_a_killed_process_left(tiny, execute_run):
    config = tiny()
    record = ready_record(config, RunStore(config.execution.store))
    left = Path(config.execution.store, record.folder, "checkpoint", f".state.pt.{'0' * 32}")
    left.parent.mkdir(parents=True)
    left.touch()
    execute_run(config)
    assert not left.exists()


# -- once is enough -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overrides", "state"), [({}, "done"), ({"optim.lr": 1e9}, "diverged")], ids=["done", "diverged"])
def test_a_run_that_ended_is_not_computed_again(tiny, execute_run, overrides, state):
    config = tiny(overrides)
    _, status = execute_run(config)
    assert status.state == state
    times = {path: path.stat().st_mtime_ns for path in Path(config.execution.store).rglob("*")}
    assert execute(config, ready_record(config, RunStore(config.execution.store)), never) == status
    assert {path: path.stat().st_mtime_ns for path in Path(config.execution.store).rglob("*")} == times


def test_a_failure_is_recorded_with_its_cause_and_told(tiny, execute_run):
    record, status = execute_run(tiny(), Breaks)
    assert record.status() == status
    assert (status.state, status.cause) == ("failed", "RuntimeError: the disk is on fire")
    assert (status.epoch, status.epochs) == (1, 2)
    assert status.device_seconds > 0
    assert b"Traceback" in record.read_file("error.txt")
    assert record.read_file("student.safetensors") is None


def test_a_failed_run_goes_on_when_carried_out_again(tiny, execute_run, tmp_path):
    config = tiny()
    record, failed = execute_run(config, Breaks)
    first = record.read_table("epochs.parquet")
    _, status = execute_run(config)
    assert (status.state, status.cause, status.epoch) == ("done", "", 2)
    assert status.device_seconds > failed.device_seconds
    pd.testing.assert_frame_equal(record.read_table("epochs.parquet")[:1], first)  # seconds too: it was not computed again
    assert record.read_file("error.txt") is None


def test_a_failed_run_that_is_carried_out_again_still_tells_how_far_it_came(tiny, execute_run):
    class Looks(LocalRuntime):
        def report_step(self, step, steps):
            seen.append(self._record.status())

    seen = []
    config = tiny()
    _, failed = execute_run(config, Breaks)
    execute_run(config, Looks)
    assert (seen[0].state, seen[0].cause, seen[0].epoch) == ("running", "", 1)
    assert seen[0].device_seconds == failed.device_seconds


# -- one of several processes --------------------------------------------------------------------------------------------


class Second(LocalRuntime):
    """The second of two ranks; it sums and gathers nothing but its own."""

    rank, world_size = 1, 2


def test_a_rank_beyond_the_first_leaves_the_outcome_to_the_first(tiny):
    config = tiny()
    record = RunStore(config.execution.store).run(run_id_of(config))
    record.start(config)
    before = files(config.execution.store)
    assert compute_run(config, record, Second(config.execution, record)).state == "done"
    assert record.status().state == "running"
    assert set(files(config.execution.store)) - set(before) == {f"{record.folder}/{n}" for n in ("epochs.parquet", CHECKPOINT)}


def test_the_first_failure_of_several_is_the_cause(tiny):
    class BreaksAsSecond(Breaks):
        rank, world_size = 1, 2

    config = tiny()
    record = RunStore(config.execution.store).run(run_id_of(config))
    record.start(config)
    assert compute_run(config, record, BreaksAsSecond(config.execution, record)).state == "failed"
    first = record.status()
    assert first.cause == "RuntimeError: the disk is on fire"
    error = record.read_file("error.txt")

    class Follows(LocalRuntime):
        def wrap(self, student):
            raise OSError("connection closed")

    assert compute_run(config, record, Follows(config.execution, record)) == first
    assert (record.status(), record.read_file("error.txt")) == (first, error)


def test_a_run_that_lost_a_process_is_still_running(tiny, execute_run):
    class Lonely(Breaks):
        def is_worker_loss(self, error):
            return str(error).startswith("the disk")

    config = tiny()
    with pytest.raises(RuntimeError, match="on fire"):
        execute_run(config, Lonely)
    record = RunStore(config.execution.store).run(run_id_of(config))
    assert (record.status().state, record.status().epoch) == ("running", 1)
    assert record.read_file("error.txt") is None


# -- the user's mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"teacher.maps": "nowhere"}, r"teacher maps nowhere: no such folder"),
        ({"data.train_frames": 64}, r"teacher maps .*: 56 of 64 frames have no map"),
        ({"data.frame_size": [64, 128]}, r"teacher map of the wrong size: .* is 64x96, expected the frame's 64x128"),
        ({"student.encoder": "resnet19"}, r"student.encoder: unknown 'resnet19'; did you mean"),
        ({"evaluation.protocol": "nyu-eigen"}, r"protocol nyu-eigen is defined on 480 x 640 frames"),
        ({"data.dataset": "kitti", "data.frame_size": None, "data.root": "nowhere"}, r"nowhere"),
    ],
)
def test_a_mistake_is_told_before_the_work_and_nothing_is_written(tiny, overrides, reason):
    config: RunConfig = tiny(overrides)
    with pytest.raises(UserError, match=reason) as caught:
        ready_record(config, RunStore(config.execution.store))
    assert "\n" not in str(caught.value)
    assert not Path(config.execution.store).exists()


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("a\n  b"), "ValueError: a b"), (KeyError("x"), "KeyError: 'x'"), (RuntimeError(), "RuntimeError")],
)
def test_an_error_is_one_line(error, line):
    assert error_line(error) == line
