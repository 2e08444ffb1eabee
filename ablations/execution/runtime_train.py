"""Trials with several workers: Ray Train starts one process per rank, on one node or several.

The trial's own process begins the run, waits for the workers and reports their epochs to Tune, which it reads from the run
store. Train restarts nothing: if a process dies, the whole trial fails, and Tune's next attempt resumes from the checkpoint.
"""

import threading
from concurrent.futures import Future, wait
from typing import Any

import torch
from ray import tune
from ray.train.torch import TorchConfig, get_device

# Same classes as in `ray.train`, which switches between v1 and v2 at import time in a way that mypy cannot follow.
from ray.train.v2.api.config import FailureConfig, ScalingConfig
from ray.train.v2.api.config import RunConfig as TrainRunConfig
from ray.train.v2.api.exceptions import WorkerGroupError

from ablations.execution.resources import hide_unreserved_gpus
from ablations.execution.train_placement import TrialTrainer
from ablations.execution.watchdog import stop_when_drained
from ablations.planning.resources import worker_resources
from ablations.planning.search_point import ReportFn
from tiekd.config import RunConfig, build
from tiekd.distill.runtime import check_execution
from tiekd.errors import PreemptedError, StoreError
from tiekd.store.run_status import FINISHED, Status
from tiekd.store.run_store import RunRecord, RunStore

POLL_S = 0.5  # between reads of the run's status in the store
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
    training = _fit_in_background(_trainer(config, record))
    reported = record.status().epoch
    while wait([training], timeout=POLL_S).not_done:
        reported = _report_new_epochs(record, reported, report)
    ended = record.own_status()
    if ended.state == "running":
        raise _error_of(training.exception()) from training.exception()
    return ended


def _error_of(error: BaseException | None) -> Exception:
    """Return the reason why the workers ended without an outcome: one of REASONS if there is one, else a RuntimeError."""
    failures = [*error.worker_failures.values()] if isinstance(error, WorkerGroupError) else [error]
    reasons = (failure for failure in failures if isinstance(failure, REASONS))
    return next(reasons, RuntimeError(f"the workers ended without an outcome: {failures[0]}"))


def _trainer(config: RunConfig, record: RunRecord) -> TrialTrainer:
    # NCCL refuses workers that share a GPU.
    backend = "nccl" if config.execution.gpus == 1 else "gloo"
    return TrialTrainer(
        work_as_rank,
        train_loop_config={"document": config.document(), "run_id": record.run_id, "attempt": record.attempt},
        scaling_config=ScalingConfig(
            num_workers=config.execution.workers,
            use_gpu=config.execution.gpus > 0,
            resources_per_worker=worker_resources(config.execution),
        ),
        torch_config=TorchConfig(backend=backend),
        run_config=TrainRunConfig(name="train", storage_path=tune.get_context().get_trial_dir(), failure_config=NO_RESTARTS),
    )


def work_as_rank(settings: dict[str, Any]) -> None:
    """Compute one rank's share of a run that has begun. Raises after recording a failure, so that Train stops the others."""
    # The trial's own process only waits. It does not need the networks, whose imports take 4 s of CPU time.
    from tiekd.distill.ddp import DDPRuntime
    from tiekd.distill.run import compute_run

    hide_unreserved_gpus()
    config = build(settings["document"])
    record = RunStore(config.execution.store, must_exist=True).run(settings["run_id"])
    record.attempt = settings["attempt"]
    runtime = DDPRuntime(get_device(), config.execution, record)
    with stop_when_drained(runtime.stop):
        ended = compute_run(config, record, runtime)
    if ended.state == "failed":
        raise RuntimeError(ended.cause)


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
