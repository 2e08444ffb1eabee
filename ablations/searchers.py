"""Optuna behind Tune's searcher interface.

Tune's own OptunaSearch tells Optuna that stopped trials are complete, with their early value. This one keeps them apart:
pruned, failed and complete trials are told as such, and the trials of an interrupted launch are asked for again.
"""

from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search import Searcher

from ablations.study import SearchConfig
from search_spaces.space import Space

SAMPLERS = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}

SCHEDULERS = {
    "none": lambda search, epochs: None,
    "asha": lambda search, epochs: AsyncHyperBandScheduler(
        time_attr="epoch",
        metric=search.objective,
        mode=search.mode,
        max_t=epochs,
        grace_period=min(search.grace_epochs, epochs),
        reduction_factor=search.reduction_factor,
    ),
}


def open_study(name: str, storage: str, search: SearchConfig) -> optuna.Study:
    """The Optuna study of that name, with the running trials of a dead launch failed and enqueued again."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name=name, storage=storage, direction=f"{search.mode}imize", load_if_exists=True)
    # A resumed search must not draw its first points again.
    study.sampler = SAMPLERS[search.sampler](search.sampler_seed + len(study.get_trials(deepcopy=False)))
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params, user_attrs={"repeats": trial.number})
    return study


class OptunaSearcher(Searcher):
    """Ask-and-tell between Tune and one Optuna study."""

    def __init__(self, study: optuna.Study, space: Space, metric: str, mode: str, budget: int):
        super().__init__(metric=metric, mode=mode)
        self._study, self._space, self._budget = study, space, budget
        self._trials: dict[str, optuna.Trial] = {}
        self._last: dict[str, dict[str, Any]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if self._budget <= 0:
            return Searcher.FINISHED
        self._budget -= 1
        trial = self._study.ask()
        self._trials[trial_id] = trial
        return {"point": self._space.suggest(trial)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if self.metric not in result:
            return
        self._last[trial_id] = result
        trial = self._trials[trial_id]
        trial.report(result[self.metric], result["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self._trials.pop(trial_id, None)
        if trial is None:
            return
        result = result or self._last.get(trial_id, {})
        state = result.get("state")
        trial.set_user_attr("run_id", result.get("run_id", ""))
        trial.set_user_attr("epoch", result.get("epoch", 0))
        if state == "done":
            self._study.tell(trial, result[self.metric])
        elif error or state is not None:
            trial.set_user_attr("cause", result.get("cause", "the trial's process died"))
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            if self.metric in result:  # Tune keeps the result at which a scheduler stops a trial from on_trial_result
                trial.report(result[self.metric], result["epoch"])
            self._study.tell(trial, state=TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: Optuna's storage is the memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on from Optuna's storage."""
