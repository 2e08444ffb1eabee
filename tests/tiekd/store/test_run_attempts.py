"""Two processes on one run: the later continues it, the earlier stops at the end of its epoch; nothing is written twice."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tiekd.data.inputs import run_id_of
from tiekd.distill.preflight import ready_record
from tiekd.distill.run import compute_run, execute
from tiekd.distill.runtime import LocalRuntime
from tiekd.errors import SupersededError
from tiekd.store.run_status import Attempt, Status
from tiekd.store.run_store import RunRecord, RunStore

pytestmark = pytest.mark.slow

EPOCHS = 6


@pytest.fixture
def config(tiny):
    return tiny({"optim.epochs": EPOCHS, "evaluation.every": EPOCHS})


@pytest.fixture
def store(config):
    return RunStore(config.execution.store)


def execute_here(config, store, display=None) -> Status:
    record = ready_record(config, store)
    return execute(config, record, lambda: LocalRuntime(config.execution, record, display))


def at_epoch(number, act):
    """A display that calls `act` at the end of an epoch."""

    def display(epoch=None, **step):
        if epoch is not None and epoch["epoch"] == number:
            act()

    return display


def test_a_superseded_process_stops_writing(config, store, tree):
    run_id, folder, seen = run_id_of(config), Path(store.uri), {}

    def other_begins() -> None:
        store.run(run_id).start(config)
        seen.update(tree(folder))

    with pytest.raises(SupersededError, match=rf"run {run_id}: taken over by process {os.getpid()} on "):
        execute_here(config, store, at_epoch(3, other_begins))
    assert tree(folder) == seen
    assert store.run(run_id).status().epoch == 3


def test_the_new_process_resumes_from_the_checkpoint_with_the_same_result(config, store, tmp_path):
    other = store.run(run_id_of(config))
    with pytest.raises(SupersededError):
        execute_here(config, store, at_epoch(3, lambda: other.start(config)))
    rows = other.read_table("epochs.parquet")
    assert compute_run(config, other, LocalRuntime(config.execution, other)).state == "done"
    assert list(other.read_table("epochs.parquet")["seconds"][:3]) == list(rows["seconds"])
    alone = RunStore(tmp_path / "alone")
    execute_here(config, alone)
    assert other.read_json("summary.json") == alone.run(other.run_id).read_json("summary.json")


def test_a_late_status_of_the_superseded_process_does_not_take_the_run_back(config, store, monkeypatch):
    """It passes the check, the other process takes over, and only then it writes."""
    record, other = (store.run(run_id_of(config)) for _ in range(2))
    write = RunRecord.write_status

    def write_late(self, status: Status) -> None:
        if self is not other and other.attempt is None and status.epoch == 3:
            other.start(config)
        write(self, status)

    monkeypatch.setattr(RunRecord, "write_status", write_late)
    with pytest.raises(SupersededError):
        execute_here(config, store)
    assert record.last_attempt() == other.attempt
    assert (record.status().state, record.status().epoch) == ("running", 3)
    assert compute_run(config, other, LocalRuntime(config.execution, other)).state == "done"


def test_a_failure_of_a_superseded_process_is_not_recorded(config, store):
    run_id = run_id_of(config)

    def fail() -> None:
        store.run(run_id).start(config)
        raise OSError("no such teacher map")

    with pytest.raises(SupersededError):
        execute_here(config, store, at_epoch(2, fail))
    record = store.run(run_id)
    assert (record.status().state, record.status().cause) == ("running", "")
    assert record.read_file("error.txt") is None


def test_the_later_of_two_commands_continues_a_run(tiny, as_yaml, tmp_path, store):
    config = tiny({"optim.epochs": 5000, "evaluation.every": 5000})
    command = [sys.executable, "-m", "tiekd", "run", as_yaml(tmp_path / "run.yaml", config.document())]
    record = store.run(run_id_of(config))
    with started(command) as earlier:
        until_epoch(record, 2)
        first = record.last_attempt()
        assert (first.pid, first.alive) == (earlier.pid, True)
        with started(command) as later:
            _, message = earlier.communicate(timeout=240)
            until_epoch(record, record.status().epoch + 2)
    assert earlier.returncode == 1
    assert message.splitlines()[-1] == f"tiekd: run {record.run_id}: taken over by process {later.pid} on {first.host}"
    assert (record.last_attempt().pid, record.last_attempt().alive) == (later.pid, False)
    epochs = list(record.read_table("epochs.parquet")["epoch"])
    assert epochs == list(range(1, len(epochs) + 1))


def test_a_process_on_another_machine_is_of_unknown_state():
    assert Attempt("0", "elsewhere", os.getpid()).alive is None


@contextmanager
def started(command):
    """A process that is killed at the end of its test."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def until_epoch(record, epoch) -> None:
    end = time.monotonic() + 240
    while record.status().epoch < epoch:
        assert time.monotonic() < end
        time.sleep(0.05)
