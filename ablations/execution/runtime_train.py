"""A trial of several workers: Ray Train starts them, on one node or on many, and each runs the loop as one rank.

The trial's process begins the run, waits for the workers and tells Tune of their epochs; what it knows of them stands in the
run store. Train restarts nobody: when a process dies the trial fails as a whole, and Tune's next attempt goes on from there.
"""

import threading
from concurrent.futures import Future, wait
from typing import Any

import torch
from ray import tune
from ray.train import FailureConfig, ScalingConfig, WorkerGroupError
from ray.train import RunConfig as TrainRunConfig
from ray.train.torch import TorchConfig, get_device

from ablations.execution.resources import worker_resources
from ablations.execution.runtime_tune import ReportFn
from ablations.execution.train_placement import TrialTrainer
from tiekd.config import ExecutionConfig, RunConfig, build
from tiekd.distill.ddp import ParallelRuntime
from tiekd.distill.preflight import check_ready
from tiekd.distill.run import begin, run_id_of, work
from tiekd.distill.runtime import check_execution
from tiekd.errors import StoreError
from tiekd.store.run_status import FINISHED, Status
from tiekd.store.run_store import RunRecord, RunStore

LOOK_EVERY_S = 0.5  # between looks into the store for a new epoch
NO_RESTARTS = FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0)


def execute_on_workers(config: RunConfig, store: RunStore, report: ReportFn) -> Status:
    """Compute a run on `execution.workers` processes unless the store already holds it; called in a Tune trial.

    Raises what `tiekd.distill.run.carry_out` does, and RuntimeError when a process has died: another attempt resumes from the
    last checkpoint. A failure of the work itself is recorded with its cause and returned.
    """
    check_ready(config)
    record = store.run(run_id_of(config))
    known = record.status()
    if known.state in FINISHED:
        return known
    if not config.execution.gpus_per_worker:
        check_execution(config.execution, torch.device("cpu"))
    begin(config, record)
    training = _in_background(_trainer(config, record))
    reported = record.status().epoch
    while wait([training], timeout=LOOK_EVERY_S).not_done:
        reported = _report_new_epochs(record, reported, report)
    ended = record.own_status()
    if ended.state == "running":
        raise _what_stopped(training.exception()) from training.exception()
    return ended


def _what_stopped(error: BaseException | None) -> Exception:
    """Why the workers ended without an outcome: the store failed one of them, or a process died."""
    failures = [*error.worker_failures.values()] if isinstance(error, WorkerGroupError) else [error]
    of_store = (failure for failure in failures if isinstance(failure, StoreError))
    return next(of_store, RuntimeError(f"the workers ended without an outcome: {failures[0]}"))


def _trainer(config: RunConfig, record: RunRecord) -> TrialTrainer:
    return TrialTrainer(
        work_as_rank,
        train_loop_config={"document": config.document(), "run_id": record.run_id, "attempt": record.attempt},
        scaling_config=ScalingConfig(
            num_workers=config.execution.workers,
            use_gpu=config.execution.gpus_per_worker > 0,
            resources_per_worker=worker_resources(config.execution),
        ),
        torch_config=TorchConfig(backend=_backend(config.execution)),
        run_config=TrainRunConfig(name="train", storage_path=tune.get_context().get_trial_dir(), failure_config=NO_RESTARTS),
    )


def _backend(execution: ExecutionConfig) -> str:
    """NCCL refuses workers that share a GPU."""
    return "nccl" if execution.gpus_per_worker >= 1 else "gloo"


def work_as_rank(settings: dict[str, Any]) -> None:
    """One worker's part of a run that has begun. Raises once a failure is recorded, so that Train ends the other workers."""
    config = build(settings["document"])
    record = RunStore(config.execution.store, must_exist=True).run(settings["run_id"])
    record.attempt = settings["attempt"]
    ended = work(config, record, ParallelRuntime(get_device(), config.execution.cpus_per_worker, record))
    if ended.state == "failed":
        raise RuntimeError(ended.cause)


def _in_background(trainer: TrialTrainer) -> Future:
    """`trainer.fit()` in a thread that dies with the process: a scheduler may end the trial before it."""
    training: Future = Future()

    def fit() -> None:
        try:
            training.set_result(trainer.fit())
        except Exception as error:
            training.set_exception(error)

    threading.Thread(target=fit, daemon=True).start()
    return training


def _report_new_epochs(record: RunRecord, reported: int, report: ReportFn) -> int:
    """Report the epochs after `reported` that the store holds, except the run's last. Returns how many are reported now."""
    status = record.status()
    last = min(status.epoch, status.epochs - 1)
    if reported < last:
        for row in record.read_table("epochs.parquet").to_dict("records")[reported:last]:
            measured = {name: value for name, value in row.items() if value == value}  # epochs without validation hold NaN
            report({"run_id": record.run_id, "device_seconds": status.device_seconds, **measured})
    return last
