"""Where Optuna's next point comes from. Knows no Ray.

A sampler is one entry of `SAMPLERS`: how to build it from a seed, and why it would not do for a search.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import optuna
from optuna.samplers import BaseSampler

from ablations.planning.study import SearchConfig
from search_spaces.space import SearchSpace
from tiekd.errors import UserError

POPULATION = 10  # of a generation of NSGA-II; Optuna's 50 is more than most of our searches have trials


def _no_objection(search: SearchConfig, space: SearchSpace) -> str:
    return ""


@dataclass(frozen=True)
class Sampler:
    build: Callable[[int], BaseSampler]
    objection: Callable[[SearchConfig, SearchSpace], str] = _no_objection  # "" where it can do what is asked


def _not_cmaes(search: SearchConfig, space: SearchSpace) -> str:
    # Optuna would draw such parameters at random, and say so in a warning a trial.
    if others := [*space.categorical, *space.conditional]:
        return f"adapts numbers that are always active, and {others[0]} is categorical or conditional; tpe takes both"
    if len(search.objectives) > 1:
        return f"has one objective, got {', '.join(search.objectives)}; for several: nsgaii, tpe, random, grid"
    return ""


def _not_nsgaii(search: SearchConfig, space: SearchSpace) -> str:
    if search.trials is not None and search.trials <= POPULATION:
        return f"draws its first generation of {POPULATION} at random, and {search.trials} trials end there; ask for more"
    return ""


def _not_grid(search: SearchConfig, space: SearchSpace) -> str:
    try:
        space.grid()
    except UserError as error:
        return str(error).removeprefix("search space: ")
    return ""


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        # `group` models conditional parameters together, each combination of active ones apart.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


SAMPLERS = {
    "tpe": Sampler(_tpe),
    "random": Sampler(lambda seed: optuna.samplers.RandomSampler(seed=seed)),
    # tune_searcher.py enqueues the points one by one: Optuna's GridSampler supports no conditions, and may try a point
    # twice when trials run in parallel or a launch dies.
    "grid": Sampler(lambda seed: optuna.samplers.RandomSampler(seed=seed), _not_grid),
    "cmaes": Sampler(lambda seed: optuna.samplers.CmaEsSampler(seed=seed), _not_cmaes),
    "nsgaii": Sampler(lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION), _not_nsgaii),
}


def check_sampler(search: SearchConfig, space: SearchSpace) -> None:
    """Raise UserError where a sampler cannot do what is asked of it, or where nothing ends the search."""
    if objection := SAMPLERS[search.sampler].objection(search, space):
        raise UserError(f"search.sampler: {search.sampler} {objection}")
    if search.trials is None and search.hours is None and search.sampler != "grid":
        raise UserError(f"search: {search.sampler} goes on for ever without trials or hours; give one of them")
