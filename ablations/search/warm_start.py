"""Earlier runs as a search's first trials. Knows no Ray."""

import statistics
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from ablations.planning.search_point import SeedRuns, measured_objectives
from ablations.search.optuna_storage import get_trials
from search_spaces.space import Point, SearchSpace
from tiekd.config.documents import flatten
from tiekd.distill.preflight import run_id_of
from tiekd.errors import UserError
from tiekd.store.run_store import RunRecord, RunStore


def warm_start(study: optuna.Study, space: SearchSpace, repeats: SeedRuns, store: RunStore) -> int:
    """Add the store's points to a study that has no such trials yet, as complete ones; how many there were.

    A point is the store's where its run with every seed is done: the very runs that the search would compute, found by their
    identities. Points that the search had itself are left alone.
    """
    had = [trial.params for trial in get_trials(study)]
    points = [point for point in _points_in(store, space, repeats) if point not in had]
    for point in points:
        runs = [store.run(run_id_of(repeats.config(point, seed))) for seed in repeats.seeds]
        by_seed = _values(runs, repeats)
        trial = create_trial(
            params=point,
            distributions=_distributions(space, point),
            values=[statistics.fmean(by_seed[name]) for name in repeats.objectives],
            user_attrs={
                "warm": True,
                "run_id": runs[0].run_id,
                "run_ids": [run.run_id for run in runs],
                "epoch": sum(run.status().epochs for run in runs),
                "by_seed": by_seed,
            },
            state=TrialState.COMPLETE,
        )
        study.add_trial(trial)
    return len(points)


def _points_in(store: RunStore, space: SearchSpace, repeats: SeedRuns) -> list[Point]:
    """The points of the space of which the store holds every run, each once."""
    done = {run.run_id: run for run in store.runs() if run.status().state == "done"}
    points: list[Point] = []
    for run in done.values():
        config = run.config()
        point = space.read(flatten(config.document()))
        if point is None or point in points or config.seed not in repeats.seeds:
            continue
        if all(_identity(repeats, point, seed) in done for seed in repeats.seeds):
            points.append(point)
    return points


def _identity(repeats: SeedRuns, point: Point, seed: int) -> str:
    try:
        return run_id_of(repeats.config(point, seed))
    except UserError:  # another run's settings that contradict this search's base
        return ""


def _values(runs: list[RunRecord], repeats: SeedRuns) -> dict[str, list[float]]:
    """Each objective's value for each run."""
    values: dict[str, list[float]] = {name: [] for name in repeats.objectives}
    for run in runs:
        known = run.read_json("summary.json")["metrics"] | measured_objectives(run, run.config(), repeats.objectives)
        for name in values:
            values[name].append(known[name])
    return values


def _distributions(space: SearchSpace, point: Point) -> dict[str, Any]:
    trial = optuna.trial.FixedTrial(point)
    space.suggest(trial)
    return trial.distributions
