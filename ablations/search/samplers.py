"""The Optuna samplers of a search. Each function raises UserError if the sampler cannot do what the search asks for."""

import pkgutil
import warnings

import optuna
from optuna.samplers import BaseSampler

from ablations.planning.search_config import SAMPLERS, SearchConfig
from ablations.search.cmaes_sampler import StatelessCmaEs
from ablations.search.gp_sampler import STARTUP, StatelessGP
from search_spaces.parameters import Choice
from search_spaces.space import SearchSpace
from tiekd.errors import UserError

POPULATION = 10  # per generation of NSGA-II; Optuna's default of 50 exceeds the trials of most searches here


def build_tpe(search: SearchConfig, space: SearchSpace, seed: int) -> BaseSampler:
    """Return TPE with a model of all parameters together; for several objectives Optuna's default, a model for each."""
    if len(search.objectives) > 1:
        return optuna.samplers.TPESampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # `group` models each combination of active conditional parameters separately.
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def build_random(search: SearchConfig, space: SearchSpace, seed: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def build_grid(search: SearchConfig, space: SearchSpace, seed: int) -> BaseSampler:
    """Return any sampler: the searcher enqueues the grid's points.

    Optuna's GridSampler does not support conditions, and it may repeat a point if trials run in parallel or a launch dies.
    """
    space.grid()  # raises UserError for a range without a grid
    return optuna.samplers.RandomSampler(seed=seed)


def build_cmaes(search: SearchConfig, space: SearchSpace, seed: int) -> BaseSampler:
    # Optuna would sample such parameters at random and warn once per trial.
    if unsupported := [*space.categorical, *space.conditional]:
        raise UserError(
            "search.sampler: cmaes supports only numeric parameters that are always active, "
            f"but {unsupported[0]} is categorical or conditional; tpe supports both"
        )
    if search.constraints:
        raise UserError(
            f"search.sampler: cmaes supports no constraints, got {', '.join(search.constraints)}; tpe, gp and nsgaii do"
        )
    if len(search.objectives) > 1:
        raise UserError(
            f"search.sampler: cmaes supports one objective, got {', '.join(search.objectives)}; "
            "for several: tpe, gp, nsgaii, random, grid"
        )
    return StatelessCmaEs({path: p for path, p in space.parameters.items() if not isinstance(p, Choice)}, seed)


def build_gp(search: SearchConfig, space: SearchSpace, seed: int) -> BaseSampler:
    # Optuna would sample such parameters at random and warn once per trial.
    if space.conditional:
        raise UserError(
            f"search.sampler: gp supports only parameters that are always active, but {space.conditional[0]} is conditional; "
            "tpe supports conditional ones"
        )
    if search.trials is not None and search.trials <= STARTUP:
        raise UserError(
            f"search.sampler: gp draws its first {STARTUP} trials at random and needs more, got {search.trials} trials"
        )
    return StatelessGP(space.parameters, seed)


def build_nsgaii(search: SearchConfig, space: SearchSpace, seed: int) -> BaseSampler:
    if search.trials is not None and search.trials <= POPULATION:
        raise UserError(
            f"search.sampler: nsgaii draws its first {POPULATION} trials at random and needs more, got {search.trials} trials"
        )
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)


def build_sampler(search: SearchConfig, space: SearchSpace, seed: int) -> BaseSampler:
    """Build the sampler of a search. Raises UserError if it cannot do what the search asks for."""
    sampler: BaseSampler = pkgutil.resolve_name(SAMPLERS[search.sampler].build)(search, space, seed)
    return sampler
