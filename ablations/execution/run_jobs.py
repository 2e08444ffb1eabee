"""Run the jobs of a plan with Ray Tune: each begins as soon as those that it needs are done."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ray.tune.search import Searcher

from ablations.execution.cluster import cluster_nodes
from ablations.execution.sweep import Sweep, run_sweep
from ablations.execution.trial import compute_job
from ablations.execution.tune_callback import track_progress
from ablations.monitor.reporters import LaunchOptions
from ablations.monitor.study_progress import CellProgress, StudyProgress, cell_progress
from ablations.planning.jobs import Job, JobQueue, MapsJob, make_jobs
from ablations.planning.plan import Plan
from ablations.planning.resources import trial_slots
from tiekd.config import ExecutionConfig
from tiekd.store.run_store import RunStore


def run_jobs(
    plan: Plan,
    progress: StudyProgress,
    store: RunStore,
    execution: ExecutionConfig,
    launch_options: LaunchOptions,
    wanted: Callable[[Job], bool] = lambda job: True,
) -> None:
    """Compute the runs of a plan that can begin, after the runs and maps of their teachers; see also `check_nodes`.

    progress: of a study, whose name is its title; the jobs of other runs and of maps are added to it. execution: of all jobs,
    as `ray_cluster` yields it. wanted: says which jobs to run.
    """
    slots = trial_slots(execution, cluster_nodes())
    jobs = {job.key: job for job in make_jobs(plan, slots, execution) if wanted(job)}
    cells = _add_cells(progress, plan, list(jobs.values()), store)
    with track_progress(progress, lambda params: cells[params["job"]], store, launch_options, execution) as (callback, limit):
        for c in plan.to_compute:
            if c.run_id in jobs and c.status.state == "failed":
                store.run(c.run_id).write_status(replace(c.status, state="missing", cause="to be retried"))
        sweep = Sweep(
            name=progress.title,
            trainable=partial(compute_job, jobs=jobs),
            execution=execution,
            callback=callback,
            stopper=limit,
            run_id=lambda params: cells[params["job"]].run_id or None,
            searcher=JobSearcher(JobQueue(list(jobs.values()))),
            max_concurrent=launch_options.max_concurrent,
        )
        run_sweep(sweep, store)


def _add_cells(progress: StudyProgress, plan: Plan, jobs: list[Job], store: RunStore) -> dict[str, CellProgress]:
    """Return the progress of each job, by its key; what is not a cell of the study is put before those that are."""
    known, cells, others = {cell.run_id: cell for cell in progress.cells}, {}, []
    for job in jobs:
        if job.key in known:
            cell = known[job.key]
        else:
            cell = _maps_cell(job) if isinstance(job, MapsJob) else _teacher_cell(job, plan, store)
            others.append(cell)
        cell.state = "waiting"
        cells[job.key] = cell
    progress.cells = [*others, *progress.cells]
    return cells


def _maps_cell(job: MapsJob) -> CellProgress:
    share = f", share {job.share + 1} of {job.n_shares}" if job.n_shares > 1 else ""
    return CellProgress(name=f"maps of {job.document['teacher']['name']}{share}", epochs=1)


def _teacher_cell(job: Job, plan: Plan, store: RunStore) -> CellProgress:
    planned = plan.teachers[job.key]
    return cell_progress(planned.to_dict(), store.run(job.key), planned.status)


class JobSearcher(Searcher):
    """Gives the jobs of a queue as trials with the parameter `job`."""

    def __init__(self, queue: JobQueue):
        super().__init__()
        self._queue = queue
        self._keys: dict[str, str] = {}  # by trial id

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray omits Searcher.FINISHED
        if self._queue.finished:
            return Searcher.FINISHED
        key = self._queue.begin()
        if key is None:
            return None
        self._keys[trial_id] = key
        return {"job": key}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: only the end of a job counts."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._queue.end(self._keys.pop(trial_id), not error and (result or {}).get("state") == "done")

    def __reduce__(self) -> tuple:
        """Pickle as an empty searcher: Tune saves its searcher at the start, and nothing restores it."""
        return Searcher, ()
