"""Body of a Tune trial: executes one or more runs, each in the trial's process or on several workers that it starts.

PyTorch is imported inside functions: the launching process hands them to Ray and does not need it.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ray import tune

from ablations.execution.watchdog import stop_when_drained
from ablations.execution.worker_process import hide_unreserved_gpus, no_collections
from ablations.planning.jobs import Job, MapsJob
from ablations.planning.search_point import ReportFn, SeedRuns, execute_point
from tiekd.config import RunConfig, build
from tiekd.distill.preflight import ready_record
from tiekd.errors import StoreError, SupersededError, UserError, error_line
from tiekd.store.claims import Claims, Launch
from tiekd.store.run_status import FINISHED, Status
from tiekd.store.run_store import RunRecord, RunStore

LOOK_S = 5.0  # between looks at what other launches compute


def compute_job(params: dict[str, Any], jobs: dict[str, Job], launch: Launch) -> None:
    """Trainable for a job of a launch, `params["job"]`: a run, or a share of a teacher's maps."""
    hide_unreserved_gpus()
    job = jobs[params["job"]]
    with _report_store_errors():
        tune.report(make_share(job) if isinstance(job, MapsJob) else execute_free_run(job, launch, tune.report))


def make_share(job: MapsJob) -> dict[str, Any]:
    """Make a share of a teacher's maps. Returns the result for `tune.report`."""
    started = time.perf_counter()
    try:
        config = build(job.document)
        if config.execution.workers > 1:
            from ablations.execution.runtime_train import make_maps_on_workers

            make_maps_on_workers(config, job.share, job.n_shares)
        else:
            from tiekd.deploy.export_maps import make_maps

            make_maps(config, job.share, job.n_shares)
    except StoreError:
        raise
    except Exception as error:  # a model raises errors of many types
        return {"state": "failed", "cause": error_line(error), "epoch": 0}
    return {"state": "done", "cause": "", "epoch": 1, "device_seconds": time.perf_counter() - started}


def compute_point(params: dict[str, Any], seed_runs: SeedRuns, launch: Launch) -> None:
    """Trainable for a point of a search, `params["point"]`; does nothing after `params["begin_by"]` (s since 1970)."""
    hide_unreserved_gpus()
    if time.time() > params["begin_by"]:  # Tune requests a trial before the slot for it is free
        tune.report({"state": "waiting", "cause": "the time budget is spent", "epoch": 0})
        return
    with _report_store_errors():
        tune.report(execute_point(params["point"], seed_runs, partial(execute_awaited_run, launch=launch), tune.report))


@contextlib.contextmanager
def _report_store_errors() -> Iterator[None]:
    """Report a StoreError as a result, which ends the launch. If raised, it would fail the trial, and Tune would retry it."""
    try:
        yield
    except StoreError as error:
        tune.report({"store_error": str(error)})


def execute_free_run(job: Job, launch: Launch, report: ReportFn) -> dict[str, Any]:
    """Execute a run unless the store already holds it, or another launch computes it. Returns its result for `tune.report`.

    "elsewhere" in the result says that another launch has computed the run, or does: the state is then "waiting".
    """
    return _result_of(job.document, partial(_compute_or_leave, launch=launch, report=report, failed=job.failed))


def execute_awaited_run(document: dict[str, Any], report: ReportFn, launch: Launch) -> dict[str, Any]:
    """Like `execute_free_run`, for a run whose result is needed: waits until no other launch computes it."""

    def compute(config: RunConfig, record: RunRecord) -> dict[str, Any]:
        while (result := _compute_or_leave(config, record, launch, report))["state"] == "waiting":
            time.sleep(LOOK_S)
        return result

    return _result_of(document, compute)


def _result_of(document: dict[str, Any], compute: Callable[[RunConfig, RunRecord], dict[str, Any]]) -> dict[str, Any]:
    try:
        config = build(document)
        return compute(config, ready_record(config, RunStore(config.execution.store, must_exist=True)))
    except UserError as error:  # contradictory settings of a search point, or an input that has disappeared
        return {"run_id": "", "state": "failed", "cause": error_line(error), "epoch": 0}


def _compute_or_leave(
    config: RunConfig, record: RunRecord, launch: Launch, report: ReportFn, failed: float = math.inf
) -> dict[str, Any]:
    """Compute a run that is claimed by no other launch. A failure that was recorded after `failed` is its result.

    Raises PreemptedError if this node is drained, so that Tune starts the trial again on another one. Keeps no state between
    calls, because trial processes are reused. If it raises, the claim stays, for the next attempt.
    """
    left = {"run_id": record.run_id, "state": "waiting", "epoch": 0, "elsewhere": True}
    known = record.status()
    if known.state in FINISHED:
        return trial_result(record, known) | {"elsewhere": True}
    claims = Claims(record.store, launch)
    if other := claims.take(record.run_id):
        return left | {"cause": f"computed by {other}"}
    try:
        known = record.status()  # another launch may have ended it before the claim
        if known.state in FINISHED or (known.state == "failed" and known.updated > failed):
            ended, elsewhere = known, True
        else:
            ended, elsewhere = _execute(config, record, report), False
    except SupersededError as error:  # another launch was asked to take over the run
        return left | {"cause": str(error)}
    except UserError:
        claims.release(record.run_id)
        raise
    claims.release(record.run_id)
    return trial_result(record, ended) | ({"elsewhere": True} if elsewhere else {})


def _execute(config: RunConfig, record: RunRecord, report: ReportFn) -> Status:
    if config.execution.workers > 1:
        with no_collections():
            from ablations.execution.runtime_train import execute_on_workers  # importing Ray Train takes seconds

        return execute_on_workers(config, record, report)
    with no_collections():
        from ablations.execution.runtime_tune import TuneRuntime
        from tiekd.distill.run import execute

    with contextlib.ExitStack() as stack:

        def make_runtime() -> TuneRuntime:
            runtime = TuneRuntime(config, record, report)
            stack.enter_context(stop_when_drained(runtime.stop))
            return runtime

        return execute(config, record, make_runtime)


def trial_result(record: RunRecord, status: Status) -> dict[str, Any]:
    """Return the last result of a trial: the run's state and, if it is done, its metrics."""
    metrics = record.metrics() if status.state == "done" else {}
    ended = {"state": status.state, "cause": status.cause, "epoch": status.epoch, "device_seconds": status.device_seconds}
    return {"run_id": record.run_id, **ended, **metrics}
