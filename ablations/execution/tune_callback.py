"""Connects Ray Tune to the monitor: updates the study's progress from trial events and notifies the reporters."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from rich.text import Text

from ablations.execution.cluster import CapacityMonitor
from ablations.execution.trial_failures import death_cause, last_error
from ablations.monitor.failure_groups import FailureGroup, cause_pattern
from ablations.monitor.loggers import MLFLOW_URI, MLflow, RunLogger, TensorBoard
from ablations.monitor.reporters import JsonReporter, LaunchOptions, LineReporter, LiveReporter, Reporter
from ablations.monitor.study_progress import CellProgress, StudyProgress, log_path
from ablations.planning.search_config import MEASURED_OBJECTIVES
from tiekd.config import ExecutionConfig
from tiekd.config.labels import METRICS
from tiekd.store.run_store import RunStore

NUMBERS = (*METRICS, *MEASURED_OBJECTIVES, "loss", "lr", "seconds")  # of a trial's result, what reporters receive
END_EVENTS = {"failed": "failed", "pruned": "pruned"}  # event by the cell's state; "finished" for all others


class FailureLimit(tune.Stopper):
    """Stops a sweep after `max_failures` failures with the same cause (0 = no limit), and when the store fails.

    Cells that diverge or predict a constant depth are results and do not count.
    """

    def __init__(self, max_failures: int):
        self._max_failures = max_failures
        self.store_error = ""  # message of the StoreError of a trial, which also stops the sweep
        self._failures: dict[str, FailureGroup] = {}

    def count(self, cell: CellProgress) -> None:
        failure = self._failures.setdefault(cause_pattern(cell.cause), FailureGroup(cell.state, cell.cause, cell.log))
        failure.runs.append(cell.run_id)

    @property
    def reached(self) -> FailureGroup | None:
        """The failures that stopped the sweep; None if the limit is not reached."""
        return next((f for f in self._failures.values() if 0 < self._max_failures <= len(f.runs)), None)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.store_error = self.store_error or result.get("store_error", "")
        return "store_error" in result

    def stop_all(self) -> bool:
        return bool(self.store_error) or self.reached is not None


class ProgressCallback(tune.Callback):
    """Translates trial events of Tune into progress of cells."""

    def __init__(
        self,
        progress: StudyProgress,
        reporters: list[Reporter],
        cell_of: Callable[[dict[str, Any]], CellProgress],
        limit: FailureLimit,
        store: RunStore,
        capacity: CapacityMonitor,
    ):
        self._progress, self._reporters, self._cell_of, self._limit, self._store = progress, reporters, cell_of, limit, store
        self._capacity = capacity
        self._cells: dict[str, CellProgress] = {}  # by trial id
        self._others: set[str] = set()  # why cells wait for other launches

    def __reduce__(self) -> tuple:
        """Pickle as an empty callback: Tune saves its callbacks, and a live display cannot be pickled."""
        return tune.Callback, ()

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        cell = self._cell(trial)
        cell.state, cell.cause, cell.last_update = "running", "", time.time()
        self._progress.slots = max(self._progress.slots, len(self._progress.in_state("running")))
        self._report("started", cell, {})

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        cell = self._cells[trial.trial_id]
        cell.run_id = result.get("run_id") or cell.run_id
        cell.epoch = result.get("epoch", cell.epoch)
        cell.device_seconds = result.get("device_seconds", cell.device_seconds)
        cell.host, cell.last_update = result.get("hostname", ""), time.time()
        cell.run_ids = result.get("run_ids", cell.run_ids)
        cell.metrics = {name: result[name] for name in (*METRICS, *MEASURED_OBJECTIVES) if name in result} or cell.metrics
        if "state" not in result:
            self._report("epoch", cell, result)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        result = trial.last_result or {}
        if "store_error" in result:
            return  # printed once, when the launch ends
        if result.get("elsewhere"):
            cell = self._cells[trial.trial_id]
            cell.state, cell.cause = result["state"], result["cause"]
            self._say_who_computes(cell)
            return
        self._end(self._cells[trial.trial_id], result.get("state", "pruned"), result.get("cause", ""), result)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._end(self._cell(trial), "failed", death_cause(last_error(trial)), {})

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        cell = self._cell(trial)
        cell.state, cell.cause = "waiting", f"{death_cause(last_error(trial))}; resumes from its last checkpoint"
        self._report("lost", cell, {})

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        change = self._capacity.change(idle=not self._progress.in_state("running"))
        for reporter in self._reporters:
            reporter.tick()
            if change:
                reporter.message(change)

    def _cell(self, trial: Trial) -> CellProgress:
        """Return the trial's cell, also for a trial whose process died before `on_trial_start`."""
        if trial.trial_id not in self._cells:
            self._cells[trial.trial_id] = self._cell_of(trial.config)
        return self._cells[trial.trial_id]

    def _say_who_computes(self, cell: CellProgress) -> None:
        """Say once of each other launch that its runs are left to it."""
        if cell.state == "waiting" and cell.cause not in self._others:
            self._others.add(cell.cause)
            for reporter in self._reporters:
                reporter.message(f"{cell.name}: {cell.cause}; this launch computes what is free, and waits for the rest")

    def _end(self, cell: CellProgress, state: str, cause: str, result: dict[str, Any]) -> None:
        cell.state, cell.cause = state, cause
        if state == "failed":
            cell.log = log_path(self._store.run(cell.run_id)) if cell.run_id else ""
            self._limit.count(cell)
        self._report(END_EVENTS.get(state, "finished"), cell, result)

    def _report(self, event: str, cell: CellProgress, result: dict[str, Any]) -> None:
        numbers = {name: value for name, value in result.items() if name in NUMBERS or name.startswith("part_")}
        for reporter in self._reporters:
            reporter.report(event, cell, numbers)


@contextlib.contextmanager
def track_progress(
    progress: StudyProgress,
    cell_of: Callable[[dict[str, Any]], CellProgress],
    store: RunStore,
    launch_options: LaunchOptions,
    execution: ExecutionConfig,
) -> Iterator[tuple[ProgressCallback, FailureLimit]]:
    """Yield the Tune callback and stopper that keep `progress` up to date; `cell_of` maps a trial's parameters to its cell."""
    limit = FailureLimit(launch_options.max_failures)
    with contextlib.ExitStack() as stack:
        reporters = list(_reporters(progress, store, launch_options))
        for reporter in reporters:
            stack.callback(reporter.close)
        yield ProgressCallback(progress, reporters, cell_of, limit, store, CapacityMonitor(execution)), limit
    if failure := limit.reached:
        launch_options.console.print(
            Text.assemble(
                ("stopped", "red"),
                f" after {len(failure.runs)} failures with the same cause: {failure.cause}; "
                f"log {failure.log} (use --max-failures 0 to continue)",
            ),
            soft_wrap=True,
        )


def _reporters(progress: StudyProgress, store: RunStore, launch_options: LaunchOptions) -> Iterator[Reporter]:
    console = launch_options.console
    if store.local:
        yield RunLogger(TensorBoard(progress.title, store), store, console)
    if MLFLOW_URI in os.environ:
        yield RunLogger(MLflow(progress.title), store, console)
    if launch_options.as_json:
        yield JsonReporter(progress)
    else:
        yield LiveReporter(progress, console) if console.is_terminal else LineReporter(progress, console)
