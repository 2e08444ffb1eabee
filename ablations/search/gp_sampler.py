"""Optuna's Gaussian process as a sampler that keeps no state of its own.

Each draw fits the process to a copy of the trials in memory, in which they have the ranges of today's space: Optuna's sampler
draws at random a parameter whose range has changed between launches. A draw follows from the seed and the trials alone.

Trials without a result yet are in the copy, and the acquisition function counts them in, so that trials which run at the same
time differ. Trials that a scheduler stopped are not: they have no final value.
"""

import statistics
from collections.abc import Mapping
from typing import Any

import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from ablations.search.cmaes_sampler import distribution_of
from search_spaces.parameters import Parameter, from_optuna

STARTUP = 10  # complete trials before the first draw from the process, Optuna's default


class StatelessGP(BaseSampler):
    """Draws points of parameters that are always active, for any number of objectives and constraints."""

    def __init__(self, parameters: Mapping[str, Parameter], seed: int):
        self._parameters, self._seed = parameters, seed
        self._distributions = {path: distribution_of(parameter) for path, parameter in parameters.items()}
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        sampler = GPSampler(seed=self._seed + trial.number, n_startup_trials=STARTUP)
        copy = optuna.create_study(directions=study.directions, sampler=sampler)
        copy.add_trials(self._copies([t for t in study.get_trials(deepcopy=False) if t.number != trial.number]))
        return copy.ask(search_space).params

    def _copies(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Return what the process may learn from: the trials of today's space that are complete, infeasible or running.

        The process needs the same numbers of each trial. A point that was not trained because of a constraint has the mean of
        the other trials for its unknown numbers, so that it counts for that constraint only.
        """
        known = [t for t in trials if self._is_in_space(t)]
        complete = [t for t in known if t.state == TrialState.COMPLETE]
        refused = [t for t in known if t.state == TrialState.PRUNED and t.constraints] if complete else []
        values = _means([dict(enumerate(t.values)) for t in complete])
        constraints = _means([t.constraints for t in complete])
        return [
            create_trial(
                state=TrialState.RUNNING if t.state == TrialState.RUNNING else TrialState.COMPLETE,
                params=t.params,
                distributions=self._distributions,
                values=None if t.state == TrialState.RUNNING else t.values or list(values.values()),
                constraints=constraints | t.constraints,
            )
            for t in (*complete, *refused, *(t for t in known if t.state == TrialState.RUNNING))
        ]

    def _is_in_space(self, trial: FrozenTrial) -> bool:
        return trial.params.keys() == self._parameters.keys() and all(
            self._parameters[path].contains(from_optuna(value)) for path, value in trial.params.items()
        )

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        return self._random.sample_independent(study, trial, name, distribution)


def _means(numbers: list[dict[Any, float]]) -> dict[Any, float]:
    """The mean of each number over the trials, which have the same."""
    return {name: statistics.fmean(each[name] for each in numbers) for name in numbers[0]} if numbers else {}
