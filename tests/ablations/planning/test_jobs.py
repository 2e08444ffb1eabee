"""When each job of a launch may begin."""

import pytest

from ablations.planning.cells import expand_cells
from ablations.planning.jobs import Job, JobQueue, MapsJob, make_jobs
from ablations.planning.plan import make_plan
from ablations.planning.study import StudyConfig
from tiekd.config import ExecutionConfig
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

TEACHERS = {
    "first": {"teacher.name": "first", "teacher.run": {"student.name": "small"}},
    "second": {"teacher.name": "second", "teacher.run": {"optim.epochs": 3}},
}


@pytest.fixture
def store(tmp_path) -> RunStore:
    return RunStore(tmp_path / "store")


@pytest.fixture
def cells(tiny, store):
    """Two students of each of two teachers, and a Baseline."""
    base = tiny | {"execution": {"store": store.uri}}
    baseline = {"loss.name": ["si"], "loss.target": ["ground_truth"]}
    study = {"name": "demo", "base": base, "factors": [{"teacher": TEACHERS, "loss.name": ["si", "mse"]}, baseline]}
    return expand_cells(StudyConfig.model_validate(study))


def queue_of(*jobs: tuple[str, tuple[str, ...]]) -> JobQueue:
    return JobQueue([Job(key, {}, needs) for key, needs in jobs])


def test_jobs_begin_in_order_when_what_they_need_is_done():
    queue = queue_of(("teacher", ()), ("maps", ("teacher",)), ("student", ("maps",)), ("baseline", ()))
    assert [queue.begin(), queue.begin(), queue.begin()] == ["teacher", "baseline", None]
    queue.end("baseline", done=True)
    assert queue.begin() is None
    assert not queue.finished
    queue.end("teacher", done=True)
    assert [queue.begin(), queue.begin()] == ["maps", None]
    queue.end("maps", done=True)
    assert queue.begin() == "student"
    assert not queue.finished  # it may be put aside
    queue.end("student", done=True)
    assert queue.finished


def test_a_job_waits_for_all_that_it_needs():
    queue = queue_of(("a", ()), ("b", ()), ("student", ("a", "b")))
    assert [queue.begin(), queue.begin()] == ["a", "b"]
    queue.end("b", done=True)
    assert queue.begin() is None
    queue.end("a", done=True)
    assert queue.begin() == "student"


def test_what_needs_a_failed_job_never_begins_and_does_not_keep_the_launch_waiting():
    queue = queue_of(("teacher", ()), ("maps", ("teacher",)), ("student", ("maps",)), ("other", ()))
    assert [queue.begin(), queue.begin()] == ["teacher", "other"]
    queue.end("teacher", done=False)
    assert (queue.begin(), queue.finished) == (None, False)  # another job is running
    queue.end("other", done=True)
    assert (queue.begin(), queue.finished) == (None, True)


def test_a_job_of_another_launch_is_put_aside_until_that_has_ended_it():
    queue = queue_of(("teacher", ()), ("student", ("teacher",)))
    queue.put_aside(queue.begin())
    assert ([job.key for job in queue.aside], queue.begin(), queue.finished) == (["teacher"], None, False)
    queue.end("teacher", done=True)
    assert (queue.aside, queue.begin(), queue.finished) == ([], "student", False)


def test_a_job_that_another_launch_has_left_begins_first():
    queue = queue_of(("a", ()), ("b", ()))
    queue.put_aside(queue.begin())
    queue.put_back("a")
    assert (queue.aside, queue.begin(), queue.finished) == ([], "a", False)


def test_an_empty_queue_is_finished():
    assert JobQueue([]).finished


def test_each_student_needs_the_maps_of_its_teacher_and_those_the_teachers_run(cells, store):
    plan = make_plan(cells, store)
    jobs = {job.key: job for job in make_jobs(plan, 2, ExecutionConfig())}
    runs = {key: job for key, job in jobs.items() if not isinstance(job, MapsJob)}
    maps = {key: job for key, job in jobs.items() if isinstance(job, MapsJob)}
    assert (len(runs), len(maps)) == (2 + 4 + 1, 2)
    for planned in plan.cells[:4]:
        (needed,) = jobs[planned.run_id].needs
        (teacher,) = maps[needed].needs
        assert jobs[teacher].document["student"]["name"] == ("small" if planned.cell.factors["teacher"] == "first" else "tiny")
    assert jobs[plan.cells[4].run_id].needs == ()
    keys = list(jobs)
    assert all(keys.index(needed) < keys.index(job.key) for job in jobs.values() for needed in job.needs)


def test_maps_of_many_frames_are_made_in_shares_by_as_many_processes_as_there_are_slots(tiny, store):
    base = tiny | {"data": tiny["data"] | {"train_frames": 200}, "teacher": {"name": "t", "run": {"optim.epochs": 1}}}
    plan = make_plan(expand_cells(StudyConfig.model_validate({"name": "demo", "base": base})), store)  # 204 frames, 4 blocks
    for slots, shares in {1: 1, 3: 3, 9: 4}.items():
        maps = [job for job in make_jobs(plan, slots, ExecutionConfig()) if isinstance(job, MapsJob)]
        assert [(job.share, job.n_shares) for job in maps] == [(share, shares) for share in range(shares)]


def test_a_finished_teacher_is_not_trained_again(cells, store):
    teacher = next(iter(make_plan(cells, store).teachers.values()))
    store.run(teacher.run_id).write_status(Status("done", epoch=2, epochs=2))
    jobs = make_jobs(make_plan(cells, store), 1, ExecutionConfig())
    assert teacher.run_id not in {job.key for job in jobs}
    assert sum(isinstance(job, MapsJob) and job.needs == () for job in jobs) == 1


@pytest.mark.parametrize("state", ["failed", "diverged", "constant"])
def test_students_of_a_teacher_without_a_result_cannot_begin_and_the_plan_says_why(cells, store, state):
    plan = make_plan(cells, store)
    teacher = plan.teachers_of(plan.cells[0])[0]
    store.run(teacher.run_id).write_status(Status(state, cause="why"))
    plan = make_plan(cells, store)
    why = f"teacher first: its run {teacher.run_id} {state}: why"
    assert [c.missing.partition(" (")[0] for c in plan.cells] == [why, why, "", "", ""]
    assert teacher.run_id not in {c.run_id for c in plan.to_compute}
    retried = make_plan(cells, store, retry_failed=True)
    assert (teacher.run_id in {c.run_id for c in retried.to_compute}) == (state == "failed")


def test_a_teacher_that_is_also_a_cell_is_one_run(tiny, store):
    base = tiny | {"execution": {"store": store.uri}, "loss": {}}
    factors = [
        {"student.name": ["small"], "loss": {"gt": {"loss.name": "si", "loss.target": "ground_truth"}}},
        {"teacher": {"small": TEACHERS["first"]}, "loss.name": ["mse"]},
    ]
    plan = make_plan(expand_cells(StudyConfig.model_validate({"name": "demo", "base": base, "factors": factors})), store)
    assert list(plan.teachers) == [plan.cells[0].run_id]
    assert len(plan.to_compute) == 2


def test_a_teacher_may_have_a_teacher(tiny, store):
    grandteacher = {"name": "large", "run": {"student.name": "small"}}
    run = {"teacher": grandteacher, "loss": {"name": "mse", "target": "teacher"}}
    base = tiny | {"teacher": {"name": "middle", "run": run}, "execution": {"store": store.uri}}
    plan = make_plan(expand_cells(StudyConfig.model_validate({"name": "demo", "base": base})), store)
    jobs = make_jobs(plan, 1, ExecutionConfig())
    assert [type(job) for job in jobs] == [Job, MapsJob, Job, MapsJob, Job]
    assert [job.needs for job in jobs[1:]] == [(before.key,) for before in jobs[:-1]]
