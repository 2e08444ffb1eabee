"""Trials on Ray: start or join a cluster, run them through Tune, and settle what they left in the store."""

import contextlib
import logging
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from tiekd.config import ExecutionConfig
from tiekd.errors import UserError
from tiekd.run import one_line
from tiekd.store import RunStore

CONNECT_S = 5.0  # until an address counts as silent
RETRIES = 2  # of a trial whose process dies; it goes on from its checkpoint in the store


@dataclass(frozen=True)
class Sweep:
    """Trials to run together."""

    name: str  # the study's
    trainable: Callable[[dict], None]
    execution: ExecutionConfig
    callback: tune.Callback
    run_id: Callable[[dict], str]  # of a trial's parameters
    points: list[str] | None = None  # run ids, for a fixed list of trials
    searcher: Searcher | None = None
    scheduler: TrialScheduler | None = None
    trials: int = 1


@contextlib.contextmanager
def cluster(address: str | None, execution: ExecutionConfig) -> Iterator[None]:
    """A running Ray: the cluster at `address`, or one of this machine's own that ends with the block."""
    if execution.workers > 1:
        raise UserError(f"execution.workers: trials of one worker only for now, got {execution.workers}")
    # "local", or Ray would join any cluster that it finds on the machine.
    options: dict[str, Any] = {"address": address} if address else {"address": "local", "include_dashboard": False}
    try:
        if address:
            _check_answers(address)
        ray.init(**options, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, ValueError) as error:
        if not address:
            raise
        raise UserError(f"--address {address}: no Ray cluster answers there ({one_line(error)})") from None
    try:
        _check_room(execution)
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise OSError where nothing listens: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.rpartition("/")[2].strip("[]"), int(port)), timeout=CONNECT_S).close()


def _check_room(execution: ExecutionConfig) -> None:
    have = ray.cluster_resources()
    for name, wanted in (("CPU", execution.cpus_per_worker), ("GPU", execution.gpus_per_worker)):
        if wanted > have.get(name, 0):
            raise UserError(
                f"execution.{name.lower()}s_per_worker: a trial asks for {wanted:g} {name}s, "
                f"the cluster has {have.get(name, 0):g}"
            )


def run_sweep(sweep: Sweep, store: RunStore) -> None:
    """Run all trials of a sweep; returns when each has ended, in success or failure."""
    storage, filesystem = _ray_storage(sweep.name, store)
    resources = {"CPU": sweep.execution.cpus_per_worker, "GPU": sweep.execution.gpus_per_worker}
    space = {"run_id": tune.grid_search(sweep.points)} if sweep.points is not None else {}
    with _tune_log(sweep.name, store):
        tuner = tune.Tuner(
            tune.with_resources(sweep.trainable, resources),
            param_space=space,
            tune_config=tune.TuneConfig(
                search_alg=sweep.searcher,
                scheduler=sweep.scheduler,
                num_samples=sweep.trials,
                # Without it every trial waits seconds for a new process with its own import of PyTorch.
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=storage,
                storage_filesystem=filesystem,
                callbacks=[sweep.callback],
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                verbose=0,
            ),
        )
        results = tuner.fit()
    for result in results:
        settle(result, sweep, store)


def _ray_storage(name: str, store: RunStore) -> tuple[str, Any]:
    """Where Ray keeps its own state of this launch. It is disposable: the run store alone says what is done."""
    filesystem, root = store.filesystem
    folder = f"{root}/studies/{name}"
    if not store.local:
        return folder, filesystem
    shutil.rmtree(f"{folder}/ray", ignore_errors=True)
    return folder, None


def settle(result: tune.Result, sweep: Sweep, store: RunStore) -> None:
    """Record a run that its process left as running: it died, or the scheduler stopped it."""
    if "state" in (result.metrics or {}) or not result.config:
        return  # it ended by itself, or never began
    record = store.run(sweep.run_id(result.config))
    status = record.status()
    if status.state not in ("running", "missing"):
        return
    if result.error is not None:
        record.write_status(replace(status, state="failed", cause=_death(result.error)))
    elif status.state == "running":
        cause = f"pruned by the scheduler after epoch {status.epoch} of {status.epochs}"
        record.write_status(replace(status, state="missing", cause=cause))


def _death(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"the trial's process ended {RETRIES + 1} times: {lines[-1].strip() if lines else type(error).__name__}"


@contextlib.contextmanager
def _tune_log(name: str, store: RunStore) -> Iterator[None]:
    """Tune's own messages go to a file: some matter when something is wrong, none belongs on the screen."""
    logger = logging.getLogger("ray.tune")
    folder = Path(store.filesystem[1]) / "studies" / name if store.local else Path(tempfile.mkdtemp(prefix="tiekd-"))
    handler = logging.FileHandler(folder / "ray-tune.log")
    handlers, propagate = logger.handlers[:], logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        handler.close()
