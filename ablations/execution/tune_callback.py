"""Follows the trials of a launch: keeps a board of its cells, and lets views tell what happens."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from rich.markup import escape

from ablations.execution.resources import Room
from ablations.execution.trial_failures import cause_of, last_words
from ablations.monitor.failure_groups import Failure, pattern
from ablations.monitor.loggers import TRACKING, MLflow, RunLogger, TensorBoard
from ablations.monitor.reporters import JsonLines, Lines, Screen, Telling, View
from ablations.monitor.study_progress import Board, Standing, log_of
from ablations.planning.study import MEASURED
from tiekd.config import ExecutionConfig
from tiekd.config.presets import METRICS
from tiekd.store.run_store import RunStore

NUMBERS = (*METRICS, *MEASURED, "loss", "lr", "seconds")
ENDED = {"failed": "failed", "pruned": "pruned"}  # events by state; others have finished


class FailureLimit(tune.Stopper):
    """Ends a sweep when `most` cells have failed of one cause, 0 being no limit, and when the store fails.

    Cells that diverge or predict one depth everywhere are results, and do not count.
    """

    def __init__(self, most: int):
        self._most = most
        self.store_error = ""  # by which the store failed in a trial: that ends the sweep, too
        self._failures: dict[str, Failure] = {}

    def count(self, cell: Standing) -> None:
        failure = self._failures.setdefault(pattern(cell.cause), Failure(cell.state, cell.cause, cell.log))
        failure.runs.append(cell.run_id)

    @property
    def reached(self) -> Failure | None:
        """The cause that ended the sweep; None while none has."""
        return next((f for f in self._failures.values() if 0 < self._most <= len(f.runs)), None)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.store_error = self.store_error or result.get("store_error", "")
        return "store_error" in result

    def stop_all(self) -> bool:
        return bool(self.store_error) or self.reached is not None


class StudyProgress(tune.Callback):
    """Hears of trials from Tune, and tells of cells."""

    def __init__(
        self,
        board: Board,
        views: list[View],
        cell_of: Callable[[dict[str, Any]], Standing],
        limit: FailureLimit,
        store: RunStore,
        room: Room,
    ):
        self._board, self._views, self._cell_of, self._limit, self._store = board, views, cell_of, limit, store
        self._room = room
        self._cells: dict[str, Standing] = {}

    def __reduce__(self) -> tuple:
        """Tune pickles its callbacks with a state that nobody restores; a live display does not travel."""
        return tune.Callback, ()

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        cell = self._cell(trial)
        cell.state, cell.cause, cell.heard = "running", "", time.time()
        self._board.slots = max(self._board.slots, len(self._board.of("running")))
        self._tell("started", cell, {})

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        cell = self._cells[trial.trial_id]
        cell.run_id = result.get("run_id") or cell.run_id
        cell.epoch = result.get("epoch", cell.epoch)
        cell.device_seconds = result.get("device_seconds", cell.device_seconds)
        cell.host, cell.heard = result.get("hostname", ""), time.time()
        cell.run_ids = result.get("run_ids", cell.run_ids)
        cell.metrics = {name: result[name] for name in (*METRICS, *MEASURED) if name in result} or cell.metrics
        if "state" not in result:
            self._tell("epoch", cell, result)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        result = trial.last_result or {}
        if "store_error" in result:
            return  # that is told once, at the end
        self._end(self._cells[trial.trial_id], result.get("state", "pruned"), result.get("cause", ""), result)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._end(self._cell(trial), "failed", cause_of(last_words(trial)), {})

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        cell = self._cell(trial)
        cell.state, cell.cause = "waiting", f"{cause_of(last_words(trial))}; it goes on from its last epoch"
        self._tell("lost", cell, {})

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        news = self._room.news(idle=not self._board.of("running"))
        for view in self._views:
            view.beat()
            if news:
                view.note(news)

    def _cell(self, trial: Trial) -> Standing:
        """A trial's cell; a process may die before its trial has started."""
        if trial.trial_id not in self._cells:
            self._cells[trial.trial_id] = self._cell_of(trial.config)
        return self._cells[trial.trial_id]

    def _end(self, cell: Standing, state: str, cause: str, result: dict[str, Any]) -> None:
        cell.state, cell.cause = state, cause
        if state == "failed":
            cell.log = log_of(self._store.run(cell.run_id)) if cell.run_id else ""
            self._limit.count(cell)
        self._tell(ENDED.get(state, "finished"), cell, result)

    def _tell(self, event: str, cell: Standing, result: dict[str, Any]) -> None:
        numbers = {name: value for name, value in result.items() if name in NUMBERS or name.startswith("part_")}
        for view in self._views:
            view.tell(event, cell, numbers)


@contextlib.contextmanager
def followed(
    board: Board,
    cell_of: Callable[[dict[str, Any]], Standing],
    store: RunStore,
    telling: Telling,
    execution: ExecutionConfig,
) -> Iterator[tuple[StudyProgress, FailureLimit]]:
    """What a sweep is given so that its trials are followed: `cell_of` finds a trial's cell by its parameters."""
    limit = FailureLimit(telling.max_failures)
    with contextlib.ExitStack() as stack:
        views = list(_views(board, store, telling))
        for view in views:
            stack.callback(view.close)
        yield StudyProgress(board, views, cell_of, limit, store, Room(execution)), limit
    if limit.reached:
        telling.console.print(_gave_up(limit.reached), highlight=False, soft_wrap=True)


def _views(board: Board, store: RunStore, telling: Telling) -> Iterator[View]:
    console = telling.console
    if store.local:
        yield RunLogger(TensorBoard(board.title, store), store, console)
    if TRACKING in os.environ:
        yield RunLogger(MLflow(board.title), store, console)
    if telling.as_json:
        yield JsonLines(board)
    else:
        yield Screen(board, console) if console.is_terminal else Lines(board, console)


def _gave_up(failure: Failure) -> str:
    return (
        f"[red]stopped[/]: {len(failure.runs)} cells failed of one cause: {escape(failure.cause)}; log {escape(failure.log)}; "
        "--max-failures 0 would go on"
    )
