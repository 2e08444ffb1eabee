"""Run the trials of a sweep with Ray Tune, and record the outcome of runs that did not record it themselves."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from ablations.execution.cluster import cluster_nodes
from ablations.execution.ray_private.no_snapshots import no_snapshots
from ablations.execution.trial_failures import MAX_RETRIES, RetryBudget, last_error, record_death
from ablations.execution.tune_callback import FailureLimit
from ablations.execution.tune_log import tune_log
from ablations.planning.resources import trial_slots, worker_resources
from tiekd.config import ExecutionConfig
from tiekd.errors import ClusterError, StoreError, shorten
from tiekd.store.claims import Claims
from tiekd.store.run_status import PRUNED_CAUSE, Attempt
from tiekd.store.run_store import RunRecord, RunStore
from tiekd.store.temporary import temporary_folder

EXPERIMENT = "sweep"  # Tune's name of it
MIN_PENDING = 200  # trials that may wait for a slot, so that a cluster that grows finds work


@dataclass(frozen=True)
class Sweep:
    """Trials to run together."""

    name: str  # of the study
    # Must contain all that it needs. `tune.with_parameters` would put it into Ray's object store, and Ray ends a driver that
    # holds an object there, without a message, when SIGTERM ends the raylet together with the driver.
    trainable: Callable[[dict], None]
    execution: ExecutionConfig
    callback: tune.Callback
    stopper: FailureLimit
    run_id: Callable[[dict], str | None]  # run id from the parameters of a trial; None if it computes no run
    searcher: Searcher  # gives the trials, and ends the sweep
    claims: Claims  # of the launch
    scheduler: TrialScheduler | None = None
    max_concurrent: int | None = None  # trials at the same time; None: as many as the resources allow


def run_sweep(sweep: Sweep, store: RunStore) -> None:
    """Run all trials of a sweep; returns when each has ended, in success or failure.

    Raises StoreError as soon as the store fails in a trial. Active runs keep the state "running", and the next launch resumes
    them.
    """
    retry_budget = RetryBudget()
    callbacks = [retry_budget, _SettleCallback(sweep, store), sweep.callback]
    # Tune's own files are of no use to anybody, so they are not in the store. Only this process writes any.
    with tune_log(sweep.name, store), temporary_folder() as folder, no_snapshots(folder / EXPERIMENT):
        try:
            _tuner(sweep, folder, callbacks).fit()
        except Exception as error:
            if not sweep.stopper.store_error:
                store.read_study(sweep.name)  # raises StoreError if Ray failed because the store is gone
                raise_if_of_ray(error)
                raise
        if sweep.stopper.store_error:
            raise StoreError(sweep.stopper.store_error)
        for trial in retry_budget.trials:
            settle_run(trial, sweep, store)


def raise_if_of_ray(error: BaseException) -> None:
    """Raise ClusterError for an error of Tune that Ray has caused, such as a node without memory on which trials start."""
    cause = error if isinstance(error, RayError) else error.__cause__
    if isinstance(cause, RayError):
        reason = shorten((str(cause).strip().splitlines() or [""])[0])
        remedy = "rerun the same command to resume from the last checkpoint"
        raise ClusterError(f"Ray failed ({type(cause).__name__}: {reason}); {remedy}") from None


def _tuner(sweep: Sweep, folder: Path, callbacks: list[tune.Callback]) -> tune.Tuner:
    slots = trial_slots(sweep.execution, cluster_nodes())
    return tune.Tuner(
        tune.with_resources(sweep.trainable, trial_resources(sweep.execution)),
        tune_config=tune.TuneConfig(
            search_alg=sweep.searcher,
            scheduler=sweep.scheduler,
            num_samples=-1,
            # Without a limit, Tune would let one trial at a time wait for its process. It is also that of waiting trials.
            max_concurrent_trials=sweep.max_concurrent or max(MIN_PENDING, 2 * slots),
            # Saves each trial the seconds of new processes that import PyTorch.
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=EXPERIMENT,
            storage_path=str(folder),
            callbacks=callbacks,
            stop=sweep.stopper,
            failure_config=tune.FailureConfig(max_failures=MAX_RETRIES),
            verbose=0,
        ),
    )


class _SettleCallback(tune.Callback):
    """Settles a run as soon as its trial has ended, while the others continue."""

    def __init__(self, sweep: Sweep, store: RunStore):
        self._sweep, self._store = sweep, store

    def __reduce__(self) -> tuple:
        """Pickle as an empty callback: Tune saves its callbacks, and nothing restores them."""
        return tune.Callback, ()

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if "store_error" not in (trial.last_result or {}):
            settle_run(trial, self._sweep, self._store)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        settle_run(trial, self._sweep, self._store)


def trial_resources(execution: ExecutionConfig) -> tune.PlacementGroupFactory:
    """Return what a trial reserves, all or nothing: one bundle per worker.

    A single worker is the trial's own process. With several workers, that process only waits, in an empty bundle.
    """
    waiting: list[dict[str, float]] = [{}] if execution.workers > 1 else []
    return tune.PlacementGroupFactory(waiting + [worker_resources(execution)] * execution.workers)


def settle_run(trial: Trial, sweep: Sweep, store: RunStore) -> None:
    """Record the outcome of a run that was left as running because its process died or the scheduler stopped it."""
    result = trial.last_result or {}
    if "state" in result:
        return  # the trial has recorded it; its run may have no id, if its settings contradict each other
    run_id = sweep.run_id(trial.config)
    if run_id is None or sweep.claims.take(run_id):
        return  # another launch has taken it over
    record = store.run(run_id)
    _record_end(trial, record, result)
    sweep.claims.release(run_id)


def _record_end(trial: Trial, record: RunRecord, result: dict[str, Any]) -> None:
    if record.status().state == "running":
        record.write_attempt(Attempt.current())  # takes over the run: a worker that is still active must not write any more
    status = record.status()
    if status.state not in ("running", "missing"):
        return
    if trial.status == Trial.ERROR:
        record_death(record, last_error(trial))
    elif status.state == "running":
        ended = PRUNED_CAUSE if result.get("done") else "stopped with its launch"
        cause = f"{ended} after epoch {status.epoch} of {status.epochs}"
        record.write_status(replace(status, state="missing", cause=cause))
