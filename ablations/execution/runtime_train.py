"""Trials with several workers: Ray Train starts one process per rank, on one node or several.

The trial's own process begins the run, waits for the workers and reports their epochs to Tune, which it reads from the run
store. Train restarts nothing: if a process dies, the whole trial fails, and Tune's next attempt resumes from the checkpoint.
A run that ends well leaves its workers to the next one: four new processes, which import PyTorch, take 25 s of CPU time.
"""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import ray
import torch
from ray import tune
from ray.exceptions import RayError
from ray.train.torch import TorchConfig, get_device

# Same classes as in `ray.train`, which switches between v1 and v2 at import time in a way that mypy cannot follow.
from ray.train.v2.api.config import FailureConfig, ScalingConfig
from ray.train.v2.api.config import RunConfig as TrainRunConfig
from ray.train.v2.api.exceptions import WorkerGroupError

from ablations.execution.ray_private.train_placement import TrialTrainer
from ablations.execution.watchdog import stop_when_drained
from ablations.execution.worker_process import Orders, hide_unreserved_gpus, no_collections
from ablations.planning.resources import worker_resources
from ablations.planning.search_point import ReportFn
from tiekd.config import RunConfig, build
from tiekd.distill.runtime import check_execution
from tiekd.errors import PreemptedError, StoreError
from tiekd.store.run_status import FINISHED, Status
from tiekd.store.run_store import RunRecord, RunStore

POLL_S = 0.5  # between looks at the workers, and at the run's status in the store
REQUEST_POLL_S = 10.0  # the same where each look is a request to an object store
REASONS = (StoreError, PreemptedError)  # of workers that end without an outcome, which the trial passes on
NO_RESTARTS = FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0)


def execute_on_workers(config: RunConfig, record: RunRecord, report: ReportFn) -> Status:
    """Compute a run on `execution.workers` processes unless its record holds the result; call it in a Tune trial.

    Raises what `tiekd.distill.run.execute` does, and RuntimeError if a process has died: another attempt resumes from the
    last checkpoint. A failure of the work itself is recorded with its cause and returned.
    """
    known = record.status()
    if known.state in FINISHED:
        return known
    if not config.execution.gpus:
        check_execution(config.execution, torch.device("cpu"))
    record.start(config)
    reported, due = record.status().epoch, 0.0

    def report_epochs() -> None:
        nonlocal reported, due
        if time.monotonic() >= due:
            reported = _report_new_epochs(record, reported, report)
            due = time.monotonic() + (POLL_S if record.store.local else REQUEST_POLL_S)

    order = {"document": config.document(), "run_id": record.run_id, "attempt": record.attempt}
    error = _compute(config, order, report_epochs)
    ended = record.own_status()
    if ended.state == "running":
        raise _error_of(error) from error
    return ended


def make_maps_on_workers(config: RunConfig, share: int, n_shares: int) -> None:
    """Make a share of a teacher's maps, each worker a part of it. Raises StoreError, or RuntimeError for any other failure.

    The trial's own process cannot: it has reserved no GPU.
    """
    order = {"document": config.document(), "share": share, "n_shares": n_shares}
    if error := _compute(config, order, lambda: None):
        raise _error_of(error) from error


def _compute(config: RunConfig, order: dict[str, Any], meanwhile: Callable[[], None]) -> BaseException | None:
    """Let the workers of this process, or new ones, compute an order. Returns the error that has ended them, if any."""
    team = _kept.pop() if _kept else Team(config)
    try:
        error = team.compute(order, meanwhile)
        if error is None:
            _kept.append(team)
        return error
    finally:
        if team not in _kept:  # also when a scheduler stops the run, by SystemExit inside `report`
            team.close()


def _error_of(error: BaseException | None) -> Exception:
    """Return the reason why the workers ended without an outcome: one of REASONS if there is one, else a RuntimeError."""
    failures = [*error.worker_failures.values()] if isinstance(error, WorkerGroupError) else [error]
    reasons = (failure for failure in failures if isinstance(failure, REASONS))
    return next(reasons, RuntimeError(f"the workers ended without an outcome: {failures[0]}"))


class Team:
    """The processes that compute the runs of this trial's process together, one run after the other."""

    def __init__(self, config: RunConfig):
        self._orders: Any = ray.remote(num_cpus=0)(Orders).remote(config.execution.workers)
        self._training = _fit_in_background(_trainer(config, self._orders))

    def compute(self, order: dict[str, Any], meanwhile: Callable[[], None]) -> BaseException | None:
        """Give an order to the workers, and call `meanwhile` until they have ended it. Returns the error that ended them."""
        ended = self._orders.compute.remote(order)
        while not ray.wait([ended], timeout=POLL_S)[0]:
            if self._training.done():
                return self._training.exception() or RuntimeError("they have stopped")
            meanwhile()
        ray.get(ended)
        return None

    def close(self) -> None:
        """End the workers, even within a run."""
        ray.kill(self._orders)


_kept: list[Team] = []  # of this process: the workers that wait for a run


def _trainer(config: RunConfig, orders: Any) -> TrialTrainer:
    # NCCL refuses workers that share a GPU.
    backend = "nccl" if config.execution.gpus == 1 else "gloo"
    return TrialTrainer(
        work_as_rank,
        train_loop_config={"orders": orders},
        scaling_config=ScalingConfig(
            num_workers=config.execution.workers,
            use_gpu=config.execution.gpus > 0,
            resources_per_worker=worker_resources(config.execution),
        ),
        torch_config=TorchConfig(backend=backend),
        run_config=TrainRunConfig(name="train", storage_path=tune.get_context().get_trial_dir(), failure_config=NO_RESTARTS),
    )


def work_as_rank(settings: dict[str, Any]) -> None:
    """Compute one rank's share of the orders of a team."""
    hide_unreserved_gpus()
    orders = settings["orders"]
    threading.Thread(target=_end_with, args=(orders,), daemon=True).start()
    for number in itertools.count():
        order = ray.get(orders.take.remote(number))
        (_compute_run if "run_id" in order else _make_maps)(build(order["document"]), order)


def _compute_run(config: RunConfig, order: dict[str, Any]) -> None:
    """Compute a rank's share of a run. Raises after recording a failure, so that Train stops the other ranks."""
    # The trial's own process only waits. It does not need the networks, whose imports take 4 s of CPU time.
    with no_collections():
        from tiekd.distill.ddp import DDPRuntime
        from tiekd.distill.run import compute_run

    record = RunStore(config.execution.store, must_exist=True).run(order["run_id"])
    record.attempt = order["attempt"]
    runtime = DDPRuntime(get_device(), config.execution, record)
    with stop_when_drained(runtime.stop):
        ended = compute_run(config, record, runtime)
    if ended.state == "failed":
        raise RuntimeError(ended.cause)


def _make_maps(config: RunConfig, order: dict[str, Any]) -> None:
    from tiekd.deploy.export_maps import make_maps

    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    make_maps(config, order["share"] * size + rank, order["n_shares"] * size)


def _end_with(orders: Any) -> None:
    """End this process at once when the team is closed, or the trial's process has died."""
    with contextlib.suppress(RayError):
        ray.get(orders.closed.remote())
    os._exit(1)


def _fit_in_background(trainer: TrialTrainer) -> Future:
    """Run `trainer.fit()` in a daemon thread, which ends with the process: a scheduler may stop the trial before it returns."""
    training: Future = Future()

    def fit() -> None:
        try:
            training.set_result(trainer.fit())
        except Exception as error:
            training.set_exception(error)

    threading.Thread(target=fit, daemon=True).start()
    return training


def _report_new_epochs(record: RunRecord, reported: int, report: ReportFn) -> int:
    """Report the epochs after `reported` that the store holds, except the run's last. Returns the last epoch reported."""
    status = record.status()
    last = min(status.epoch, status.epochs - 1)
    epochs = record.epochs() if reported < last else None
    if epochs is None:
        return reported
    for row in epochs.to_pylist()[reported:last]:
        measured = {name: value for name, value in row.items() if value is not None}  # None: epochs without validation
        report({"run_id": record.run_id, "device_seconds": status.device_seconds, **measured})
    return last
