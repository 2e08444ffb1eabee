"""Jobs of a launch beside another one; no Ray is started."""

import pytest
from ray.tune.search import Searcher

from ablations.execution import run_jobs
from ablations.execution.run_jobs import JobSearcher
from ablations.monitor.study_progress import CellProgress
from ablations.planning.jobs import Job, JobQueue
from tiekd.store.claims import Claims, open_launch
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

REFUSED = {"state": "waiting", "elsewhere": True}


@pytest.fixture
def launches(tmp_path, monkeypatch):
    """The claims of this launch and of another one, which computes the run `theirs`."""
    monkeypatch.setattr(run_jobs, "LOOK_S", 0.0)
    store = RunStore(tmp_path)
    with open_launch(store) as ours, open_launch(store) as other:
        other.take("theirs")
        yield ours, other


def searcher_of(claims: Claims, store: RunStore, *jobs: Job) -> JobSearcher:
    """A searcher after the trial of its first job has been refused."""
    searcher = JobSearcher(JobQueue(jobs), claims, store, {job.key: CellProgress(run_id=job.key) for job in jobs})
    assert searcher.suggest("0") == {"job": "theirs"}
    searcher.on_trial_complete("0", REFUSED)
    return searcher


@pytest.mark.parametrize("state", ["done", "failed", "diverged"])
def test_the_end_that_another_launch_has_recorded_counts(launches, tmp_path, state):
    (ours, other), store = launches, RunStore(tmp_path)
    searcher = searcher_of(ours, store, Job("theirs", {}), Job("student", {}, ("theirs",)))
    store.run("theirs").write_status(Status("running"))
    assert searcher.suggest("1") is None
    store.run("theirs").write_status(Status(state, "for a reason", epoch=3))
    store.run("theirs").write_json("summary.json", {"metrics": {"abs_rel": 0.1}})
    other.release("theirs")
    assert searcher.suggest("1") == ({"job": "student"} if state == "done" else Searcher.FINISHED)
    cell = searcher._cells["theirs"]
    assert (cell.state, cell.cause, cell.epoch) == (state, "for a reason", 3)
    assert cell.metrics == ({"abs_rel": 0.1} if state == "done" else {})
    assert searcher.elsewhere == {"theirs"}


def test_a_run_that_another_launch_leaves_unfinished_is_computed(launches, tmp_path):
    (ours, other), store = launches, RunStore(tmp_path)
    searcher = searcher_of(ours, store, Job("theirs", {}))
    store.run("theirs").write_status(Status("running", epoch=2))
    other.release("theirs")
    assert searcher.suggest("1") == {"job": "theirs"}
    searcher.on_trial_complete("1", {"state": "done"})
    assert (searcher.suggest("2"), searcher.elsewhere) == (Searcher.FINISHED, set())


def test_a_failure_from_before_the_launch_is_computed_again_and_a_later_one_is_not(launches, tmp_path):
    (ours, other), store = launches, RunStore(tmp_path)
    store.run("theirs").write_status(Status("failed", updated=10.0))
    other.release("theirs")
    assert searcher_of(ours, store, Job("theirs", {}, failed=10.0)).suggest("1") == {"job": "theirs"}
    assert searcher_of(ours, store, Job("theirs", {}, failed=9.0)).suggest("1") == Searcher.FINISHED
