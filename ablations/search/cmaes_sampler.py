"""CMA-ES as an Optuna sampler that keeps no state of its own.

Optuna's `CmaEsSampler` keeps its state in the database as a pickle and unpickles it when a search resumes, so that a database
of somebody else could run code. This one computes the state from the trials before each draw.
"""

from typing import Any

import numpy as np
from cmaes import CMA
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces.parameters import Choice, FloatRange, IntRange, Parameter

SIGMA = 1 / 6  # of the first generation, in a space scaled to 0..1; Optuna's default
Numbers = dict[str, FloatRange | IntRange]


class StatelessCmaEs(BaseSampler):
    """Draws points of numeric parameters that are always active, for one objective."""

    def __init__(self, parameters: Numbers, seed: int):
        self._parameters, self._seed = parameters, seed
        self._scales = {path: _Scale(parameter) for path, parameter in parameters.items()}
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {path: distribution_of(parameter) for path, parameter in self._parameters.items()}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        n_parameters = len(search_space)
        optimizer = CMA(
            mean=np.full(n_parameters, 0.5),
            sigma=SIGMA,
            bounds=np.tile([0.0, 1.0], (n_parameters, 1)),
            n_max_resampling=10 * n_parameters,
            seed=self._seed + trial.number,
        )
        self._replay(optimizer, study, before=trial)
        return {path: self._scales[path].value(share) for path, share in zip(search_space, optimizer.ask(), strict=True)}

    def _replay(self, optimizer: CMA, study: Study, before: FrozenTrial) -> None:
        """Pass the finished trials to the optimizer, generation by generation, in the order in which they started and ended.

        A trial belongs to the generation in which its point was drawn. Trials that were enqueued or added belong to none.
        """
        sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
        drawn = [t for t in study.get_trials(deepcopy=False) if t.number < before.number and self._was_drawn(t)]
        events = [(t.datetime_start, 0, t) for t in drawn]
        events += [(t.datetime_complete, 1, t) for t in drawn if t.state == TrialState.COMPLETE]
        generation: dict[int, int] = {}  # by trial
        solutions: list[tuple[np.ndarray, float]] = []
        for _, ended, trial in sorted(events, key=lambda event: (event[0], event[2].number, event[1])):
            if not ended:
                generation[trial.number] = optimizer.generation
            elif generation[trial.number] == optimizer.generation:
                shares = [self._scales[path].share(trial.params[path]) for path in self._parameters]
                assert trial.value is not None  # it is complete
                solutions.append((np.array(shares), sign * trial.value))
            if len(solutions) == optimizer.population_size:
                optimizer.tell(solutions)
                solutions = []

    def _was_drawn(self, trial: FrozenTrial) -> bool:
        """Whether this sampler has drawn the trial's point in the space of today."""
        return (
            trial.params.keys() == self._parameters.keys()
            and all(self._parameters[path].contains(value) for path, value in trial.params.items())
            and "fixed_params" not in trial.system_attrs
            and "warm" not in trial.user_attrs
        )

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        return self._random.sample_independent(study, trial, name, distribution)


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """Return the distribution of a parameter's values."""
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.labels)
    kind: Any = IntDistribution if isinstance(parameter, IntRange) else FloatDistribution
    return kind(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


class _Scale:
    """Maps the values of a parameter to 0..1 and back; each value of a stepped range gets an equal share."""

    def __init__(self, parameter: FloatRange | IntRange):
        self._low, self._high, self._step = parameter.low, parameter.high, parameter.step or 0
        self._is_int, self._log = isinstance(parameter, IntRange), parameter.log
        ends = np.array([self._low - self._step / 2, self._high + self._step / 2])
        self._ends = np.log(ends) if self._log else ends

    def share(self, value: float) -> float:
        start, end = self._ends
        return float(((np.log(value) if self._log else value) - start) / (end - start))

    def value(self, share: float) -> float | int:
        start, end = self._ends
        value = start + share * (end - start)
        value = float(np.exp(value) if self._log else value)
        if self._step:
            value = self._low + round((value - self._low) / self._step) * self._step
        value = min(max(value, self._low), self._high)
        return int(value) if self._is_int else value
