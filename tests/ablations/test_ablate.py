"""`tiekd ablate`: a study with a failing cell on a local Ray, then launched again, grown, and with other maps."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from support.maps import cut_map, unsampled, write_perfect_maps

from ablations import run_study
from tiekd.config import build
from tiekd.data import open_frames
from tiekd.store.run_store import RunStore

SOURCES = {
    "truth": {"loss.target": "ground_truth"},
    "teacher": {},
    "broken": {"teacher.name": "broken", "teacher.maps": "broken"},
}
AGAIN = """
import sys
from tiekd.__main__ import main
try:
    main()
finally:
    print("ray" in sys.modules)
"""


@dataclass(frozen=True)
class Launched:
    """A working folder with a study, its store and damaged teacher maps, and the outcome of the first launch."""

    folder: Path
    code: int
    out: str

    @property
    def store(self) -> RunStore:
        return RunStore(self.folder / "store")

    def states(self) -> dict[str, str]:
        """Return the state of each cell by its source, from the study's record."""
        return {c["factors"]["source"]: c["state"] for c in self.store.read_study("demo")["cells"]}

    def run_of(self, source: str) -> str:
        return next(c["run_id"] for c in self.store.read_study("demo")["cells"] if c["factors"]["source"] == source)


@pytest.fixture(scope="module")
def tiny(tiny, tmp_path_factory) -> dict[str, Any]:
    """The smallest run with more training frames than are read before a run."""
    data, folder = tiny["data"] | {"train_frames": 10}, tmp_path_factory.mktemp("teacher") / "maps"
    write_perfect_maps(folder, data)
    return tiny | {"data": data, "teacher": {"name": "perfect", "maps": str(folder)}}


@pytest.fixture(scope="module")
def launched(tmp_path_factory, tiny, tiekd, as_yaml, ray_folder) -> Launched:
    folder = tmp_path_factory.mktemp("ablate")
    shutil.copytree(tiny["teacher"]["maps"], folder / "broken")
    keys = open_frames(build(tiny).data, "train").keys
    cut_map(folder / "broken", keys[unsampled(len(keys))[-1]])
    as_yaml(folder / "study.yaml", {"name": "demo", "base": tiny, "factors": {"source": SOURCES}})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        outcome = tiekd("ablate", "study.yaml")
    return Launched(folder, outcome.code, outcome.out)


@pytest.fixture
def copy(launched, tmp_path, monkeypatch) -> Launched:
    """A copy of the folder after the first launch."""
    shutil.copytree(launched.folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Launched(tmp_path / "copy", launched.code, launched.out)


def test_failed_cell_does_not_stop_the_others_and_exits_with_code_1(launched):
    assert launched.code == 1
    assert launched.states() == {"truth": "done", "teacher": "done", "broken": "failed"}
    assert launched.store.read_study("demo")["commands"] == [["tiekd", "ablate", "study.yaml"]]
    for source in ("truth", "teacher"):
        metrics = launched.store.run(launched.run_of(source)).read_json("summary.json")["metrics"]
        assert metrics["abs_rel"] > 0


def test_failure_is_recorded_with_its_cause_and_traceback(launched):
    record = launched.store.run(launched.run_of("broken"))
    status = record.status()
    assert status.cause.startswith("UserError: teacher map ")
    assert "cannot be read" in status.cause
    assert "Traceback (most recent call last)" in record.read_file("error.txt").decode()
    assert record.read_json("summary.json") is None


def test_output_lists_every_cell_and_the_failure(launched):
    lines = launched.out.splitlines()
    for source in SOURCES:
        assert sum(f"source={source}, seed=0" in line for line in lines) == 2  # once when it ends, and once in the table
    log = f"store/runs/{launched.run_of('broken')}/error.txt"
    assert any(line.startswith("failed ") and "teacher map" in line and line.endswith(log) for line in lines)
    (grouped,) = [i for i, line in enumerate(lines) if line.startswith("1 failed: UserError: teacher map ")]
    assert lines[grouped + 1].startswith(f"  for example {launched.run_of('broken')}, log ")
    assert lines[grouped + 1].endswith(log)
    assert lines[grouped + 2] == "use --retry-failed to compute failed cells again"
    assert lines[-1].startswith("3 cells: 2 done, 1 failed; computed 3, ")


def test_status_groups_the_failure(launched, tiekd):
    found = json.loads(tiekd("status", launched.folder / "store", "--json").out)
    assert found["states"] == {"done": 2, "failed": 1}
    (failure,) = found["failures"]
    assert failure["cause"].startswith("UserError: teacher map ")
    assert (failure["state"], failure["count"], failure["runs"]) == ("failed", 1, [launched.run_of("broken")])
    assert "Traceback" in Path(failure["log"]).read_text()


def test_same_command_computes_nothing_and_starts_no_ray(copy, files, ray_folder):
    runs, sessions = files(copy.folder / "store" / "runs"), sorted((ray_folder / "ray").iterdir())
    command = [sys.executable, "-c", AGAIN, "ablate", "study.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    *_, summary, ray_was_imported = done.stdout.splitlines()
    assert summary == "3 cells: 2 done, 1 failed; nothing to compute"
    assert ray_was_imported == "False"
    assert files(copy.folder / "store" / "runs") == runs
    assert sorted((ray_folder / "ray").iterdir()) == sessions


def test_tensorboard_has_the_epochs_of_every_cell_by_name(launched):
    folders = sorted((launched.folder / "store/studies/demo/tensorboard").iterdir())
    runs = {source: launched.run_of(source)[:8] for source in SOURCES}
    assert [f.name for f in folders] == sorted(f"source={source}, seed=0 {run}" for source, run in runs.items())
    # The broken cell has a folder without epochs; the others have two epochs each, and equal sizes.
    sizes = {f.name.split(",")[0]: sum(e.stat().st_size for e in f.iterdir()) for f in folders}
    assert sizes["source=broken"] < sizes["source=truth"] / 10


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")  # raised inside MLflow
def test_grown_study_computes_only_its_new_cell_that_can_run(copy, tiekd, tiny, as_yaml, files, monkeypatch, shared_cluster):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy.folder}/mlflow.db")
    runs = files(copy.folder / "store" / "runs")
    grown = SOURCES | {"mse": {"loss.name": "mse"}, "waits": {"teacher.maps": "nowhere"}}
    as_yaml(copy.folder / "study.yaml", {"name": "demo", "base": tiny, "factors": {"source": grown}})
    outcome = tiekd("ablate", "study.yaml", "--json", "--address", shared_cluster)
    assert outcome.code == 1  # the broken cell is still failed and was not retried
    started, epoch, finished, found = map(json.loads, outcome.out.splitlines())
    assert [e["event"] for e in (started, epoch, finished, found)] == ["started", "epoch", "finished", "summary"]
    assert {e["run_id"] for e in (started, epoch, finished)} == {copy.run_of("mse")}
    assert (epoch["epoch"], epoch["epochs"], finished["state"]) == (1, 2, "done")
    assert {"loss", "lr", "seconds", "abs_rel"} <= set(epoch["metrics"])
    assert (started["done"], finished["done"], finished["total"], finished["eta_seconds"]) == (2, 3, 5, 0.0)
    summary = copy.store.run(copy.run_of("mse")).read_json("summary.json")
    assert finished["metrics"] == summary["metrics"]
    assert finished["device_hours"] > epoch["device_hours"] > started["device_hours"] > 0
    assert [f["runs"] for f in found["failures"]] == [[copy.run_of("broken")]]
    (logged,) = MlflowClient().search_runs([MlflowClient().get_experiment_by_name("demo").experiment_id])
    assert (logged.info.run_name, logged.data.metrics["abs_rel"]) == ("source=mse, seed=0", summary["metrics"]["abs_rel"])
    assert found["computed"] == 1
    assert copy.states() == {"truth": "done", "teacher": "done", "broken": "failed", "mse": "done", "waits": "missing"}
    assert [c["missing"] for c in found["cells"] if c["run_id"] is None] == found["missing_inputs"]
    assert [c["run_id"] for c in found["cells"]] == [copy.run_of(source) for source in grown]
    assert {name: content for name, content in files(copy.folder / "store" / "runs").items() if name in runs} == runs


def test_run_study_computes_a_new_cell_and_returns_the_failed_one(copy, study, tiny, capfd, shared_cluster):
    factors = {"source": SOURCES | {"ssim": {"loss.name": "ssim"}}}
    result = run_study(study(base=tiny, factors=factors), copy.folder / "store", address=shared_cluster, verbose=False)
    assert capfd.readouterr() == ("", "")
    cells = {cell.factors["source"]: cell for cell in result.cells}
    assert {source: cell.state for source, cell in cells.items()} == copy.states() | {"ssim": "done"}
    assert (result.n_computed, result.complete) == (1, False)
    assert cells["ssim"].metrics == copy.store.run(copy.run_of("ssim")).read_json("summary.json")["metrics"]
    assert (cells["broken"].metrics, cells["broken"].run_id) == ({}, copy.run_of("broken"))
    assert cells["broken"].cause.startswith("UserError: teacher map ")


def test_study_with_a_missing_input_is_not_complete(copy, tiekd, tiny, as_yaml, files):
    some = {"truth": SOURCES["truth"], "waits": {"teacher.maps": "nowhere"}}
    as_yaml(copy.folder / "study.yaml", {"name": "demo", "base": tiny, "factors": {"source": some}})
    outcome = tiekd("ablate", "study.yaml")
    assert outcome.code == 1
    assert f"missing teacher maps {copy.folder}/nowhere: no such folder" in " ".join(outcome.out.split())
    assert outcome.out.splitlines()[-1] == "2 cells: 1 done, 1 missing; nothing to compute"


def test_cell_that_cannot_begin_is_missing_and_the_others_are_computed(copy, tiekd, tiny, as_yaml, shared_cluster):
    network = {
        "name": "timm",
        "encoder": "test_efficientnet",
        "levels": [1, 2],
        "decoder_channels": [8, 8],
    }  # not a preset, so it is built before the launch
    base = tiny | {"student": network, "optim": {"epochs": 1, "batch_size": 4}}
    levels = {"fits": {}, "size": {"evaluation.protocol": "nyu-eigen"}, "name": {"student.encoder": "no_such"}}
    as_yaml(copy.folder / "mistaken.yaml", {"name": "mistaken", "base": base, "factors": {"cell": levels}})
    for computed in ("computed 1, ", "nothing to compute"):
        outcome = tiekd("ablate", "mistaken.yaml", "--store", "store", "--address", shared_cluster)
        assert outcome.code == 1, outcome.err
        assert "missing protocol nyu-eigen is defined on 480 x 640 frames, got 64 x 96 (1 of 3 cells)" in outcome.out
        assert "missing student.encoder: unknown 'no_such'; " in outcome.out
        assert f"3 cells: 1 done, 2 missing; {computed}" in outcome.out.splitlines()[-1]


def test_nothing_is_written_if_no_cell_can_run(copy, tiekd, files):
    before = files(copy.folder / "store")
    shutil.rmtree(copy.folder / "broken")
    outcome = tiekd("ablate", "study.yaml", "--only", "source=broken")
    assert outcome.code == 2
    assert outcome.err.startswith("tiekd: study demo: none of 1 cells can run: teacher maps ")
    assert outcome.err.count("\n") == 1
    assert files(copy.folder / "store") == before


def test_failed_cell_is_computed_again_with_retry_failed(copy, tiekd, files, shared_cluster):
    runs, record = files(copy.folder / "store" / "runs"), copy.store.run(copy.run_of("broken"))
    earlier = record.last_attempt()
    outcome = tiekd("ablate", "study.yaml", "--retry-failed", "--address", shared_cluster)
    assert outcome.code == 1
    assert outcome.out.splitlines()[-1].startswith("3 cells: 2 done, 1 failed; computed 1, ")
    assert record.status().state == "failed"
    assert record.last_attempt() != earlier
    after = files(copy.folder / "store" / "runs")
    assert {name.split("/")[0] for name in runs if runs[name] != after.get(name)} == {record.run_id}


def test_cell_with_repaired_maps_is_another_run(copy, tiekd, tiny):
    broken = copy.run_of("broken")
    shutil.rmtree(copy.folder / "broken")
    shutil.copytree(tiny["teacher"]["maps"], copy.folder / "broken")
    plan = json.loads(tiekd("ablate", "study.yaml", "--dry-run", "--json").out)
    assert [cell["state"] for cell in plan["cells"]] == ["done", "done", "missing"]
    assert plan["to_compute"] == [plan["cells"][2]["run_id"]] != [broken]


def test_error_found_on_the_cluster_does_not_reset_failures(copy, tiekd, files, shared_cluster):
    before = files(copy.folder / "store")
    too_many = "--set", "execution.cpus_per_worker=4096"
    outcome = tiekd("ablate", "study.yaml", "--retry-failed", *too_many, "--address", shared_cluster)
    assert outcome.code == 2
    assert outcome.err.startswith("tiekd: execution.cpus_per_worker: a trial needs 4096 CPUs, the largest node of ")
    assert outcome.err.count("\n") == 1
    assert files(copy.folder / "store") == before


def test_launch_stops_after_max_failures_with_the_same_cause(copy, tiekd, tiny, as_yaml, shared_cluster):
    base = tiny | {"teacher": {"name": "broken", "maps": "broken"}}
    losses = ["mse", "ssim", "ssim_si", "ssim_mse"]
    as_yaml(copy.folder / "study.yaml", {"name": "many", "base": base, "factors": {"loss.name": losses}})
    outcome = tiekd("ablate", "study.yaml", "--max-failures", 2, "--json", "--address", shared_cluster)
    assert outcome.code == 1
    *events, summary = map(json.loads, outcome.out.splitlines())
    failed = [e["cell"] for e in events if e["event"] == "failed"]
    for cell in failed:
        assert [e["event"] for e in events if e["cell"] == cell] == ["started", "failed"]  # it was not retried
    assert (len(failed), summary["event"], summary["computed"]) == (2, "summary", 4)
    states = {c["factors"]["loss.name"]: c["state"] for c in copy.store.read_study("many")["cells"]}
    assert states == {"mse": "failed", "ssim": "failed", "ssim_si": "missing", "ssim_mse": "missing"}
    (stopped,) = [line for line in outcome.err.splitlines() if line.startswith("stopped after ")]
    first = copy.store.read_study("many")["cells"][0]["run_id"]
    assert stopped.startswith("stopped after 2 failures with the same cause: UserError: teacher map ")
    assert f"; log {copy.store.uri}/runs/{first}/error.txt (" in stopped


def test_seeds_are_added_until_rows_are_decided(tiekd, study_file, tiny, tmp_path, shared_cluster):
    variants = {"baseline": {"loss.name": "si", "loss.target": "ground_truth"}, "same": {"loss.name": "si", "optim.lr": 1e-30}}
    base = tiny | {"optim": {"epochs": 1, "batch_size": 8}}
    path = study_file(base=base, factors={"variant": variants}, seeds={"until": "decided", "max": 4, "alpha": 1e-9})
    words = "ablate", path, "--store", tmp_path / "store", "--address", shared_cluster
    outcome = tiekd(*words)
    assert outcome.code == 0, outcome.out + outcome.err
    record = RunStore(tmp_path / "store").read_study("demo")
    (row,) = record["sequential"]["rows"]
    assert row["factors"] == {"variant": "same"}
    n_seeds = row["n_seeds"]
    assert (n_seeds, row["state"]) in [(4, "hopeless"), (4, "undecided")]
    assert f"8 cells: 8 done; computed {2 * n_seeds}, " in outcome.out
    assert len(record["cells"]) == 2 * n_seeds
    again = tiekd(*words)
    assert again.out.splitlines()[-1] == "8 cells: 8 done; nothing to compute"
