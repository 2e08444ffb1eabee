"""Progress of a launch and when it stops: unit tests, and trials on a real Ray that only report."""

import io
import os
import pickle
import time
from operator import itemgetter

import pytest
from ray import tune
from rich.console import Console

from ablations.execution.cluster import CapacityMonitor, ray_cluster
from ablations.execution.run_jobs import JobSearcher
from ablations.execution.sweep import Sweep, run_sweep
from ablations.execution.tune_callback import FailureLimit, ProgressCallback, track_progress
from ablations.monitor.reporters import LaunchOptions, LiveReporter
from ablations.monitor.study_progress import CellProgress, StudyProgress
from ablations.planning.jobs import Job, JobQueue
from tiekd.config import ExecutionConfig
from tiekd.errors import UserError
from tiekd.store.claims import Claims, Launch
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

FAILED = CellProgress("loss=mse, seed=0", "c1", "failed", cause="OSError: disk 1 is full")


def test_callback_and_stopper_can_be_pickled(tmp_path):
    progress = StudyProgress("demo", [FAILED])
    screen = LiveReporter(progress, Console(file=io.StringIO(), force_terminal=True))
    limit = FailureLimit(1)
    limit.count(FAILED)
    progress = ProgressCallback(
        progress, [screen], lambda params: FAILED, limit, RunStore(tmp_path), CapacityMonitor(ExecutionConfig())
    )
    assert type(pickle.loads(pickle.dumps(progress))) is tune.Callback
    assert pickle.loads(pickle.dumps(limit)).stop_all()
    screen.close()


def test_failure_limit_counts_failures_with_the_same_cause():
    limit = FailureLimit(2)
    for cause in ("OSError: disk 1 is full", "KeyError: x"):
        limit.count(CellProgress(cause=cause, state="failed"))
        assert not limit.stop_all()
    limit.count(CellProgress(run_id="d1", cause="OSError: disk 2 is full", state="failed"))
    assert limit.stop_all()
    assert (limit.reached.cause, len(limit.reached.runs)) == ("OSError: disk 1 is full", 2)


def test_negative_failure_limit_is_refused():
    with pytest.raises(UserError, match="--max-failures: must be at least 0, got -1; 0 is no limit"):
        LaunchOptions(as_json=False, max_failures=-1)


def test_failure_limit_of_0_is_no_limit():
    limit = FailureLimit(0)
    for _ in range(50):
        limit.count(FAILED)
    assert not limit.stop_all()


@pytest.mark.skipif(os.cpu_count() < 2, reason="two trials must run at once, and this machine has one CPU")
def test_failure_limit_stops_running_trials_and_starts_no_more(tmp_path, ray_folder, capsys):
    reached = tmp_path / "reached"

    def report(params: dict) -> None:
        """Report epochs without end, or fail once that trial has reported."""
        if params["job"] == "endless":
            for epoch in range(1, 10**6):
                tune.report({"run_id": "endless", "epoch": epoch})
                reached.touch()
                time.sleep(0.01)
        while not reached.exists():
            time.sleep(0.01)
        tune.report({"run_id": params["job"], "state": "failed", "cause": "OSError: disk is full", "epoch": 0})

    store = RunStore(tmp_path / "store")
    store.write_study("demo", {})
    names = ["endless", *(f"failing{i}" for i in range(40))]
    for name in names:
        store.run(name).write_status(Status("running" if name == "endless" else "missing", epoch=3, epochs=9))
    cells = {name: CellProgress(name, name, epochs=9) for name in names}
    progress, launch_options = StudyProgress("demo", list(cells.values())), LaunchOptions(as_json=False, max_failures=2)
    execution = ExecutionConfig(cpus_per_worker=max(os.cpu_count() // 2, 1))  # two trials at a time
    with (
        ray_cluster(None, execution),
        track_progress(progress, lambda params: cells[params["job"]], store, launch_options, execution) as (callback, limit),
    ):
        claims = Claims(store, Launch.current())
        jobs, run_id = JobSearcher(JobQueue([Job(name, {}) for name in names]), claims, store, cells), itemgetter("job")
        sweep = Sweep("demo", report, execution, callback, limit, run_id, jobs, claims, max_concurrent=len(names))
        run_sweep(sweep, store)
    assert [c.name for c in progress.in_state("failed")] == ["failing0", "failing1"]
    assert len(progress.in_state("waiting")) >= len(names) - 4
    status = store.run("endless").status()
    assert (status.state, status.cause) == ("missing", "stopped with its launch after epoch 3 of 9")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["failed", "failing0"], ["failed", "failing1"]]
    log = f"{store.uri}/runs/failing0/error.txt"
    why = f"OSError: disk is full; log {log} (use --max-failures 0 to continue)"
    assert lines[-1] == f"stopped after 2 failures with the same cause: {why}"
