"""`tiekd ablate` on a real, local Ray: a study with a cell that fails, launched again, grown and mended."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tiekd.store import RunStore

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
    """A working folder with a study, its store and the maps of a broken teacher, and how the first launch ended."""

    folder: Path
    code: int
    out: str

    @property
    def store(self) -> RunStore:
        return RunStore(self.folder / "store")

    def states(self) -> dict[str, str]:
        """State by the cell's source, as the study's record tells it."""
        return {c["factors"]["source"]: c["state"] for c in self.store.read_study("demo")["cells"]}

    def run_of(self, source: str) -> str:
        return next(c["run_id"] for c in self.store.read_study("demo")["cells"] if c["factors"]["source"] == source)


@pytest.fixture(scope="module")
def launched(tmp_path_factory, tiny, maps, tiekd, as_yaml, ray_folder) -> Launched:
    folder = tmp_path_factory.mktemp("ablate")
    shutil.copytree(maps, folder / "broken")
    late = sorted((folder / "broken").rglob("*.png"))[-1]  # of the training frames
    late.write_bytes(late.read_bytes()[:-100])  # its header, all that a plan looks at, is whole
    as_yaml(folder / "study.yaml", {"name": "demo", "base": tiny, "factors": {"source": SOURCES}})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        outcome = tiekd("ablate", "study.yaml")
    return Launched(folder, outcome.code, outcome.out)


@pytest.fixture
def copy(launched, tmp_path, monkeypatch) -> Launched:
    """The same after the first launch, for another."""
    shutil.copytree(launched.folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Launched(tmp_path / "copy", launched.code, launched.out)


def test_a_failed_cell_spares_the_others_and_ends_in_code_1(launched):
    assert launched.code == 1
    assert launched.states() == {"truth": "done", "teacher": "done", "broken": "failed"}
    for source in ("truth", "teacher"):
        metrics = launched.store.run(launched.run_of(source)).read_json("summary.json")["metrics"]
        assert metrics["abs_rel"] > 0


def test_a_failure_is_recorded_with_its_cause_and_traceback(launched):
    record = launched.store.run(launched.run_of("broken"))
    status = record.status()
    assert status.cause.startswith("UserError: teacher map ")
    assert "cannot be read" in status.cause
    assert "Traceback (most recent call last)" in record.read_file("error.txt").decode()
    assert record.read_json("summary.json") is None


def test_the_screen_tells_every_cell_and_the_failure(launched):
    lines = launched.out.splitlines()
    for source in SOURCES:
        assert sum(f"source={source}, seed=0" in line for line in lines) == 2  # when it ends, and in the table
    assert any(line.startswith("failed ") and "teacher map" in line for line in lines)
    assert any(line.startswith("1 failed; their tracebacks: ") and "--retry-failed" in line for line in lines)
    assert lines[-1].startswith("3 cells: 2 done, 1 failed; computed 3, ")


def test_the_status_groups_the_failure(launched, tiekd):
    found = json.loads(tiekd("status", launched.folder / "store", "--json").out)
    assert found["states"] == {"done": 2, "failed": 1}
    ((cause, runs),) = found["causes"].items()
    assert cause.startswith("failed: UserError: teacher map ")
    assert runs == [launched.run_of("broken")]


def test_the_same_command_computes_nothing_and_starts_no_ray(copy, files, ray_folder):
    runs, sessions = files(copy.folder / "store" / "runs"), sorted((ray_folder / "ray").iterdir())
    command = [sys.executable, "-c", AGAIN, "ablate", "study.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    *_, summary, ray_was_imported = done.stdout.splitlines()
    assert summary == "3 cells: 2 done, 1 failed; nothing to compute"
    assert ray_was_imported == "False"
    assert files(copy.folder / "store" / "runs") == runs
    assert sorted((ray_folder / "ray").iterdir()) == sessions


def test_a_grown_study_computes_its_new_cell_that_can_run_alone(copy, tiekd, tiny, as_yaml, files):
    runs = files(copy.folder / "store" / "runs")
    grown = SOURCES | {"mse": {"loss.name": "mse"}, "waits": {"teacher.maps": "nowhere"}}
    as_yaml(copy.folder / "study.yaml", {"name": "demo", "base": tiny, "factors": {"source": grown}})
    outcome = tiekd("ablate", "study.yaml", "--json")
    assert outcome.code == 1  # the broken one is still there, and was not asked for again
    found = json.loads(outcome.out)
    assert found["computed"] == 1
    assert copy.states() == {"truth": "done", "teacher": "done", "broken": "failed", "mse": "done", "waits": "missing"}
    assert [c["missing"] for c in found["cells"] if c["run_id"] is None] == found["missing_inputs"]
    assert [c["run_id"] for c in found["cells"]] == [copy.run_of(source) for source in grown]
    assert {name: content for name, content in files(copy.folder / "store" / "runs").items() if name in runs} == runs


def test_while_a_cell_waits_the_study_is_not_done(copy, tiekd, tiny, as_yaml, files):
    some = {"truth": SOURCES["truth"], "waits": {"teacher.maps": "nowhere"}}
    as_yaml(copy.folder / "study.yaml", {"name": "demo", "base": tiny, "factors": {"source": some}})
    outcome = tiekd("ablate", "study.yaml")
    assert outcome.code == 1
    assert f"missing teacher maps {copy.folder}/nowhere: no such folder" in " ".join(outcome.out.split())
    assert outcome.out.splitlines()[-1] == "2 cells: 1 done, 1 missing; nothing to compute"


def test_where_no_cell_can_run_nothing_is_written(copy, tiekd, files):
    before = files(copy.folder / "store")
    shutil.rmtree(copy.folder / "broken")
    outcome = tiekd("ablate", "study.yaml", "--only", "source=broken")
    assert outcome.code == 2
    assert outcome.err.startswith("tiekd: study demo: none of 1 cells can run: teacher maps ")
    assert outcome.err.count("\n") == 1
    assert files(copy.folder / "store") == before


def test_a_mended_cell_is_computed_when_asked(copy, tiekd, maps, files):
    runs, broken = files(copy.folder / "store" / "runs"), copy.run_of("broken")
    shutil.rmtree(copy.folder / "broken")
    shutil.copytree(maps, copy.folder / "broken")
    outcome = tiekd("ablate", "study.yaml", "--retry-failed")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1].startswith("3 cells: 3 done; computed 1, ")
    assert set(copy.states().values()) == {"done"}
    record = copy.store.run(broken)
    assert (record.status().state, record.status().cause, record.read_file("error.txt")) == ("done", "", None)
    after = files(copy.folder / "store" / "runs")
    assert {name for name in runs if runs[name] != after.get(name)} == {n for n in runs if n.startswith(broken)}


def test_a_mistake_that_only_the_cluster_shows_leaves_failures_as_they_are(copy, tiekd, files):
    before = files(copy.folder / "store")
    outcome = tiekd("ablate", "study.yaml", "--retry-failed", "--set", "execution.cpus_per_worker=4096")
    assert outcome.code == 2
    assert outcome.err.startswith("tiekd: execution.cpus_per_worker: a trial asks for 4096 CPUs, the cluster has ")
    assert outcome.err.count("\n") == 1
    assert files(copy.folder / "store") == before
