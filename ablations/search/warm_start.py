"""Add finished runs of the store to a search as its first trials. Imports no Ray."""

import statistics

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, TrialState, create_trial

from ablations.planning.constraints import violated
from ablations.planning.search_point import SeedRuns, measured_numbers
from ablations.search.optuna_storage import drawn_point, get_trials, optuna_params, violations
from search_spaces.space import Point, SearchSpace
from tiekd.config.documents import flatten
from tiekd.data.inputs import RunIds
from tiekd.errors import UserError
from tiekd.store.run_store import RunRecord, RunStore


def warm_start(study: optuna.Study, space: SearchSpace, seed_runs: SeedRuns, store: RunStore) -> int:
    """Add the store's finished points as complete trials, and return how many were added.

    A point is finished if its run is done for every seed. Its runs are those that the search itself would compute, found by
    run id. Points of which the study has a trial are not added again.
    """
    known = [drawn_point(trial) for trial in get_trials(study)]
    points = [point for point in _finished_points(store, space, seed_runs) if point not in known]
    run_id_of = RunIds()
    for point in points:
        runs = [store.run(run_id_of(seed_runs.config(point, seed))) for seed in seed_runs.seeds]
        by_seed = _values_by_seed(runs, seed_runs.names)
        means = {name: statistics.fmean(values) for name, values in by_seed.items()}
        cause = violated(seed_runs.constraints, means)
        trial = create_trial(
            params=optuna_params(point),
            distributions=_distributions(space, point),
            values=[means[name] for name in seed_runs.objectives],
            user_attrs={
                "warm": True,
                "run_id": runs[0].run_id,
                "run_ids": [run.run_id for run in runs],
                "epoch": sum(run.status().epochs for run in runs),
                "by_seed": {name: by_seed[name] for name in seed_runs.objectives},
                **({"cause": cause} if cause else {}),
            },
            constraints=violations(seed_runs.constraints, means),
            state=TrialState.COMPLETE,
        )
        study.add_trial(trial)
    return len(points)


def _finished_points(store: RunStore, space: SearchSpace, seed_runs: SeedRuns) -> list[Point]:
    """Return the points of the space for which the store has the run of every seed."""
    done = {run.run_id: run for run in store.runs() if run.status().state == "done" and _is_measured(run)}
    points: list[Point] = []
    run_id_of = RunIds()
    for run in done.values():
        config = run.config()
        point = None if config is None else space.point_of(flatten(config.document()))
        if config is None or point is None or point in points or config.seed not in seed_runs.seeds:
            continue
        try:
            run_ids = [run_id_of(seed_runs.config(point, seed)) for seed in seed_runs.seeds]
        except UserError:  # the point contradicts this search's base, which the run does not share
            continue
        if all(run_id in done for run_id in run_ids):
            points.append(point)
    return points


def _is_measured(run: RunRecord) -> bool:
    metrics = run.metrics()
    return bool(metrics) and None not in metrics.values()


def _values_by_seed(runs: list[RunRecord], names: list[str]) -> dict[str, list[float]]:
    """Return the value of each objective, or number that a constraint bounds, for each run."""
    values: dict[str, list[float]] = {name: [] for name in names}
    for run in runs:
        config, metrics = run.config(), run.metrics()
        assert config is not None  # `_finished_points` has read it
        known = metrics | measured_numbers(run, config, names)
        for name in names:
            value = known[name]
            assert value is not None  # as `_finished_points` has checked
            values[name].append(value)
    return values


def _distributions(space: SearchSpace, point: Point) -> dict[str, BaseDistribution]:
    trial = FixedTrial(optuna_params(point))
    space.suggest(trial)
    return trial.distributions
