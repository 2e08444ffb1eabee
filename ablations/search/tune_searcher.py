"""Optuna behind Tune's searcher interface.

Tune's own OptunaSearch tells Optuna that stopped trials are complete, with their early value. This one keeps them apart:
pruned, failed and complete trials are told as such, and the trials of an interrupted launch are asked for again.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from ablations.planning.study import SearchConfig
from ablations.search.optuna_storage import finish_trial, get_trials, remaining_points, report_value
from search_spaces.space import SearchSpace

INTERRUPTED = ("running", "waiting")  # another launch has taken the run over; the hours were over before it began
PROCESS_DIED = {"state": "failed", "cause": "the trial's process died"}


@dataclass
class Budget:
    """What is left of a launch; None: no limit."""

    trials: int | None
    ends: float = math.inf  # seconds since 1970

    @property
    def spent(self) -> bool:
        return self.trials == 0 or time.time() >= self.ends

    def take(self) -> None:
        """One more trial begins."""
        if self.trials is not None:
            self.trials -= 1


class OptunaSearcher(Searcher):
    """Ask-and-tell between Tune and one Optuna study.

    Trials that are cut off, because the store fails or `gave_up` says that the launch stops, are left running in Optuna: the
    next launch asks for them again. So are those that wait for a slot until the hours are over.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        search: SearchConfig,
        budget: Budget,
        gave_up: Callable[[], bool] = lambda: False,
    ):
        super().__init__(metric=search.objective, mode=search.modes[0])
        self._gave_up = gave_up
        self._study, self._space, self._objectives, self._budget = study, space, search.objectives, budget
        self._grid = remaining_points(study, space.grid()) if search.sampler == "grid" else None
        self._trials: dict[str, optuna.Trial] = {}
        self._last: dict[str, dict[str, Any]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if self._budget.spent or not self._next_is_queued():
            return Searcher.FINISHED
        self._budget.take()
        trial = self._study.ask()
        self._trials[trial_id] = trial
        return {"point": self._space.suggest(trial), "begin_by": self._budget.ends}

    def _next_is_queued(self) -> bool:
        """Of a grid, see that a point waits in the study's queue; False when none is left."""
        if self._grid is None or get_trials(self._study, TrialState.WAITING):
            return True
        if self._grid:
            self._study.enqueue_trial(self._grid.pop(0))
            return True
        return False

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if self.metric in result:
            self._last[trial_id] = result
            report_value(self._trials[trial_id], result, self._objectives)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial, last = self._trials.pop(trial_id, None), self._last.pop(trial_id, {})
        outcome = {**last, **PROCESS_DIED} if error else result or last
        if trial and not self._cut_off(outcome):
            finish_trial(self._study, trial, outcome, self._objectives)

    def _cut_off(self, outcome: dict[str, Any]) -> bool:
        if "state" in outcome:
            return outcome["state"] in INTERRUPTED
        return "store_error" in outcome or self._gave_up()

    def __reduce__(self) -> tuple:
        """Tune pickles its searcher into the store, where nobody reads it; the database's password does not travel."""
        return Searcher, ()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: Optuna's storage is the memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on from Optuna's storage."""
