"""How often Tune starts a trial again: trials on a real Ray that only fail."""

import os
import signal
from operator import itemgetter
from pathlib import Path

import pytest
from ray import tune

from ablations.execution.cluster import ray_cluster
from ablations.execution.run_jobs import JobSearcher
from ablations.execution.sweep import Sweep, run_sweep
from ablations.execution.tune_callback import FailureLimit
from ablations.monitor.study_progress import CellProgress
from ablations.planning.jobs import Job, JobQueue
from tiekd.config import ExecutionConfig
from tiekd.distill.runtime import PREEMPTED
from tiekd.errors import PreemptedError
from tiekd.store.claims import Claims, Launch
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

# What happens to each attempt of a trial, all within one epoch; one that comes after these ends well.
ENDS = {
    "drained": ["preempted"] * 5,
    "drained-and-killed": ["preempted", "killed", "preempted", "killed", "killed"],
}


@pytest.fixture(scope="module")
def swept(shared_cluster, tmp_path_factory) -> Path:
    """The folder of a sweep's store, and of the attempts of its trials."""
    folder = tmp_path_factory.mktemp("swept")

    def attempt(params: dict) -> None:
        attempts = folder / params["job"]
        attempts.mkdir(exist_ok=True)
        number = len(os.listdir(attempts))
        (attempts / f"{number}").touch()
        match dict(enumerate(ENDS[params["job"]])).get(number):
            case "preempted":
                raise PreemptedError(PREEMPTED)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
        tune.report({"run_id": params["job"], "state": "done"})

    store = RunStore(folder / "store")
    store.write_study("demo", {})
    for name in ENDS:
        store.run(name).write_status(Status("running", epoch=0, epochs=9))
    claims, cells = Claims(store, Launch.current()), {name: CellProgress(name, name, epochs=9) for name in ENDS}
    jobs = JobSearcher(JobQueue([Job(name, {}) for name in ENDS]), claims, store, cells)
    execution = ExecutionConfig()
    with ray_cluster(shared_cluster, execution):
        sweep = Sweep("demo", attempt, execution, tune.Callback(), FailureLimit(0), itemgetter("job"), jobs, claims)
        run_sweep(sweep, store)
    return folder


def test_a_trial_may_be_preempted_more_often_than_its_process_may_die(swept):
    assert len(os.listdir(swept / "drained")) == 6  # the last of which ends well
    assert RunStore(swept / "store").run("drained").status().state == "running"  # a real trial records its own end


def test_a_preemption_allows_no_further_death(swept):
    assert len(os.listdir(swept / "drained-and-killed")) == 5
    status = RunStore(swept / "store").run("drained-and-killed").status()
    assert (status.state, status.cause.partition(": ")[0]) == ("failed", "its process died 3 times in epoch 1")
