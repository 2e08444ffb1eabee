"""Run the jobs of a plan with Ray Tune: each begins as soon as those that it needs are done."""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ray.tune.search import Searcher

from ablations.execution.cluster import cluster_nodes
from ablations.execution.sweep import Sweep, run_sweep
from ablations.execution.trial import LOOK_S, compute_job
from ablations.execution.tune_callback import track_progress
from ablations.monitor.reporters import LaunchOptions
from ablations.monitor.study_progress import CellProgress, StudyProgress, cell_progress, finite
from ablations.planning.jobs import Job, JobQueue, MapsJob, make_jobs
from ablations.planning.plan import Plan
from ablations.planning.resources import trial_slots
from tiekd.config import ExecutionConfig
from tiekd.store.claims import Claims
from tiekd.store.run_status import FINISHED
from tiekd.store.run_store import RunStore


def run_jobs(
    plan: Plan,
    progress: StudyProgress,
    store: RunStore,
    execution: ExecutionConfig,
    launch_options: LaunchOptions,
    claims: Claims,
    wanted: Callable[[Job], bool] = lambda job: True,
) -> set[str]:
    """Compute the runs of a plan that can begin, after the runs and maps of their teachers; see also `check_nodes`.

    Leaves the runs to other launches that compute them, and waits for their end. Returns the ids of those.

    progress: of a study, whose name is its title; the jobs of other runs and of maps are added to it. execution: of all jobs,
    as `ray_cluster` yields it. wanted: says which jobs to run.
    """
    slots = trial_slots(execution, cluster_nodes())
    jobs = {job.key: job for job in make_jobs(plan, slots, execution) if wanted(job)}
    cells = _add_cells(progress, plan, list(jobs.values()), store)
    with track_progress(progress, lambda params: cells[params["job"]], store, launch_options, execution) as (callback, limit):
        searcher = JobSearcher(JobQueue(list(jobs.values())), claims, store, cells)
        sweep = Sweep(
            name=progress.title,
            trainable=partial(compute_job, jobs=jobs, launch=claims.launch),
            execution=execution,
            callback=callback,
            stopper=limit,
            run_id=lambda params: cells[params["job"]].run_id or None,
            searcher=searcher,
            claims=claims,
            max_concurrent=launch_options.max_concurrent,
        )
        run_sweep(sweep, store)
    return searcher.elsewhere


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
    """Gives the jobs of a queue as trials with the parameter `job`. Waits for the end of those that other launches compute.

    cells: the progress of each job, by its key.
    """

    def __init__(self, queue: JobQueue, claims: Claims, store: RunStore, cells: Mapping[str, CellProgress]):
        super().__init__()
        self._queue, self._claims, self._store, self._cells = queue, claims, store, cells
        self._keys: dict[str, str] = {}  # by trial id
        self._looked = -math.inf  # when at the other launches, by the clock of this process
        self.elsewhere: set[str] = set()  # jobs whose end another launch has recorded

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray omits Searcher.FINISHED
        if self._queue.aside and time.monotonic() >= self._looked + LOOK_S:
            self._look_elsewhere()
            self._looked = time.monotonic()
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
        key, result = self._keys.pop(trial_id), result or {}
        if result.get("state") == "waiting":
            self._queue.put_aside(key)
            return
        if result.get("elsewhere"):
            self.elsewhere.add(key)
        self._queue.end(key, not error and result.get("state") == "done")

    def _look_elsewhere(self) -> None:
        """End the jobs that other launches have ended, and let those begin that these have left."""
        aside = {job.key: job for job in self._queue.aside}
        theirs = self._claims.of_others(aside)
        for job in (aside[key] for key in aside if key not in theirs):
            record, cell = self._store.run(job.key), self._cells[job.key]
            status = record.status()
            if status.state not in FINISHED and not (status.state == "failed" and status.updated > job.failed):
                self._queue.put_back(job.key)
                continue
            cell.state, cell.cause, cell.epoch, cell.device_seconds = (
                status.state,
                status.cause,
                status.epoch,
                status.device_seconds,
            )
            cell.metrics = finite(record.metrics()) if status.state == "done" else {}
            self.elsewhere.add(job.key)
            self._queue.end(job.key, status.state == "done")

    def __reduce__(self) -> tuple:
        """Pickle as an empty searcher: Tune saves its searcher at the start, and nothing restores it."""
        return Searcher, ()
