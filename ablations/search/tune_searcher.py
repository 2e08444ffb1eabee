"""Optuna behind Tune's searcher interface.

Ray's own OptunaSearch reports trials that a scheduler stopped as complete, with their early value. This one distinguishes
complete, pruned and failed trials, and repeats the trials of an interrupted launch.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
from ray.tune.search import Searcher

from ablations.planning.search_config import SAMPLERS, SearchConfig
from ablations.search.optuna_storage import (
    enqueue_point,
    finish_trial,
    remaining_points,
    report_value,
    start_trial,
    waiting_trials,
)
from search_spaces.space import SearchSpace

# A trial in one of these states has no result: another launch computes its run, or the hours ended before it began.
INTERRUPTED = ("running", "waiting")
PROCESS_DIED = {"state": "failed", "cause": "the trial's process died"}


@dataclass
class Budget:
    """The trials that a launch may still start."""

    trials: int | None  # None: no limit
    ends: float = math.inf  # seconds since 1970

    @property
    def spent(self) -> bool:
        return self.trials == 0 or time.time() >= self.ends

    def use_trial(self) -> None:
        if self.trials is not None:
            self.trials -= 1


class OptunaSearcher(Searcher):
    """Ask-and-tell between Tune and one Optuna study.

    Interrupted trials remain in the state "running" in Optuna, and the next launch repeats them: those that end because the
    store failed, because `is_stopping` says that the launch stops, or because the hours ended before they got a slot.

    No point is drawn while as many trials as `wanted` says have no result yet: one that is drawn later knows more results.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        search: SearchConfig,
        budget: Budget,
        is_stopping: Callable[[], bool] = lambda: False,
        wanted: Callable[[], float] = lambda: math.inf,
    ):
        super().__init__(metric=search.objective, mode=search.modes[0])
        self._study, self._space, self._budget = study, space, budget
        self._objectives, self._constraints = search.objectives, search.bounds
        self._is_stopping, self._wanted = is_stopping, wanted
        self._most = math.inf
        self._grid = remaining_points(study, space.grid()) if SAMPLERS[search.sampler].exhaustive else None
        self._trials: dict[str, optuna.Trial] = {}
        self._last_results: dict[str, dict[str, Any]] = {}

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Take over Tune's limit of trials at the same time. Returns whether it is kept, as Tune asks."""
        self._most = max_concurrent
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray omits Searcher.FINISHED
        if self._budget.spent:
            return Searcher.FINISHED
        if len(self._trials) >= min(self._wanted(), self._most):
            return None
        if not self._enqueue_grid_point():
            return Searcher.FINISHED
        self._budget.use_trial()
        trial = start_trial(self._study, self._space)
        self._trials[trial_id] = trial
        return {"point": self._space.suggest(trial), "begin_by": self._budget.ends}

    def _enqueue_grid_point(self) -> bool:
        """Make sure that a grid's next point is in Optuna's queue. Return False if no point is left."""
        if self._grid is None or waiting_trials(self._study, self._space):
            return True
        if self._grid:
            enqueue_point(self._study, self._grid.pop(0))
            return True
        return False

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if self.metric in result:
            self._last_results[trial_id] = result
            report_value(self._trials[trial_id], result, self._objectives)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial, last = self._trials.pop(trial_id, None), self._last_results.pop(trial_id, {})
        final = {**last, **PROCESS_DIED} if error else result or last
        if trial and not self._is_interrupted(final):
            finish_trial(self._study, trial, final, self._objectives, self._constraints)

    def _is_interrupted(self, result: dict[str, Any]) -> bool:
        if "state" in result:
            return result["state"] in INTERRUPTED
        return "store_error" in result or self._is_stopping()

    def __reduce__(self) -> tuple:
        """Leave everything out of pickles: Tune writes its searcher into a file, and the database URL has a password."""
        return Searcher, ()
