"""The results of a search: best trials, Pareto front, parameter importance, and the best config. Imports no Ray."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from ablations.planning.search_config import SearchConfig
from ablations.planning.search_point import SeedRuns
from ablations.search.optuna_storage import drawn_point, get_trials, is_infeasible
from search_spaces.space import Point
from tiekd.store.run_store import RunStore

BEST_SHOWN = 5  # trials
INFEASIBLE_SHOWN = 10
MIN_TRIALS_FOR_IMPORTANCE = 10

TrialSummary = dict[str, Any]


@dataclass(frozen=True)
class SearchResults:
    """The trials of a search as plain values; the complete ones sorted by the first objective, best first."""

    best: list[TrialSummary]  # complete and feasible
    front: list[TrialSummary]  # the Pareto front; empty for one objective
    importance: dict[str, float]  # share of each parameter, largest first; empty if there are too few trials
    base: TrialSummary | None = None  # the trial of the base config, if it is among the best
    infeasible: list[dict[str, Any]] = field(
        default_factory=list
    )  # number, params and cause of those that violate a constraint


def collect_results(study: optuna.Study, search: SearchConfig, base_point: Point | None = None) -> SearchResults:
    """Return the results of a search. `base_point` is the point of its base config."""
    sign = -1 if search.modes[0] == "max" else 1
    complete = sorted(get_trials(study, TrialState.COMPLETE), key=lambda t: sign * t.values[0])
    trials = [_summarize(trial, search) for trial in complete if not is_infeasible(trial)]
    front = {t.number for t in study.best_trials} if len(search.objectives) > 1 else set()
    return SearchResults(
        best=trials,
        front=[trial for trial in trials if trial["number"] in front],
        importance=_importance(study, complete),
        base=next((trial for trial in trials if trial["params"] == base_point), None),
        infeasible=[
            {"number": trial.number, "params": drawn_point(trial), "cause": trial.user_attrs["cause"]}
            for trial in get_trials(study)
            if is_infeasible(trial)
        ],
    )


def _summarize(trial: FrozenTrial, search: SearchConfig) -> TrialSummary:
    """Return a trial's means over seeds, their standard deviations (None for one seed), the values per seed, and its runs."""
    by_seed = trial.user_attrs["by_seed"]
    return {
        "number": trial.number,
        "value": trial.values[0],
        "values": dict(zip(search.objectives, trial.values, strict=True)),
        "spread": {name: statistics.stdev(values) if len(values) > 1 else None for name, values in by_seed.items()},
        "by_seed": by_seed,
        "params": drawn_point(trial),
        "run_id": trial.user_attrs["run_id"],
        "run_ids": trial.user_attrs["run_ids"],
        "warm": trial.user_attrs.get("warm", False),
    }


def _importance(study: optuna.Study, complete: list[FrozenTrial]) -> dict[str, float]:
    """Return the parameter importance by Optuna's default (PED-ANOVA), for all objectives together."""
    if len(complete) < MIN_TRIALS_FOR_IMPORTANCE or len({tuple(t.values) for t in complete}) == 1:
        return {}
    return optuna.importance.get_param_importances(study)


def write_best_config(results: SearchResults, search: SearchConfig, seed_runs: SeedRuns, store: RunStore, name: str) -> str:
    """Write the best trial's config with the first seed, as a document for `tiekd run`, and return its location.

    The configs of all other trials are with their runs: `runs/<run_id>/config.yaml`.
    """
    best = results.best[0]
    seeds = f"seeds {', '.join(map(str, search.seeds))}" if len(search.seeds) > 1 else f"seed {search.seeds[0]}"
    value = _format_value(best, search.objective)
    comment = f"# Trial {best['number']} of the search {name}, the best by {search.objective}: {value}\n# with {seeds}.\n"
    document = yaml.safe_dump(seed_runs.config(best["params"], search.seeds[0]).document(), sort_keys=False)
    path = f"studies/{name}/best.yaml"
    store.write_bytes(path, (comment + document).encode())
    return f"{store.uri}/{path}"


def print_results(
    results: SearchResults, search: SearchConfig, console: Console, floors: Mapping[str, float] = MappingProxyType({})
) -> None:
    """Print the results, the best trial last. floors: of L_DPM, by the run id of trials."""
    if results.infeasible:
        _print_infeasible(results.infeasible, search, console)
    if not results.best:
        console.print("no feasible trial has finished" if results.infeasible else "no trial has finished")
        return
    console.print(_trial_table(results.best[:BEST_SHOWN], search, floors))
    if results.front:
        console.print(f"Pareto front of {', '.join(search.objectives)}: {len(results.front)} trials")
        console.print(_trial_table(results.front, search, floors))
    if results.importance:
        shares = ", ".join(f"{_leaf(path)} {share:.0%}" for path, share in results.importance.items())
        console.print(f"importance: {shares}", soft_wrap=True)
    best = results.best[0]
    seeds = f" over {len(search.seeds)} seeds" if len(search.seeds) > 1 else ""
    value = _format_value(best, search.objective)
    if results.base is best:
        base = " (the base config)"
    else:
        base = f"; base config: {_format_value(results.base, search.objective)}" if results.base else ""
    line = f"best trial: {search.objective} {value}{seeds} with {format_point(best['params'])}{base}"
    console.print(line, soft_wrap=True)


def floors_of(results: SearchResults, store: RunStore) -> dict[str, float]:
    """Return abs_rel of a perfect student of L_DPM by run id, for trials that are printed and whose runs have stored it."""
    summaries = {t["run_id"]: store.run(t["run_id"]).summary() for t in (*results.best[:BEST_SHOWN], *results.front)}
    found = {run_id: summary.get("floor", {}).get("abs_rel") for run_id, summary in summaries.items() if summary}
    return {run_id: floor for run_id, floor in found.items() if floor is not None}


def _print_infeasible(trials: list[dict[str, Any]], search: SearchConfig, console: Console) -> None:
    """Print the trials that violate a constraint, the latest last, with the values by which they do."""
    listed = ", ".join(f"{trial['number']} ({trial['cause']})" for trial in trials[-INFEASIBLE_SHOWN:])
    more = f"{len(trials) - INFEASIBLE_SHOWN} others, " if len(trials) > INFEASIBLE_SHOWN else ""
    console.print(
        f"{len(trials)} trials violate a constraint ({', '.join(search.constraints)}): {more}{listed}",
        soft_wrap=True,
    )


def _trial_table(trials: list[TrialSummary], search: SearchConfig, floors: Mapping[str, float]) -> Table:
    paths = list(dict.fromkeys(path for trial in trials for path in trial["params"]))
    floor = ["floor of L_DPM"] if floors else []
    table = Table("trial", *search.objectives, *floor, *map(_leaf, paths), "run", box=None, pad_edge=False)
    for trial in trials:
        number = f"{trial['number']} (from the store)" if trial["warm"] else str(trial["number"])
        values = [_format_value(trial, name) for name in search.objectives]
        if floors:
            values.append(f"{floors[trial['run_id']]:.4f}" if trial["run_id"] in floors else "")
        table.add_row(number, *values, *(_format_setting(trial["params"].get(p, "")) for p in paths), trial["run_id"])
    return table


def _format_value(trial: TrialSummary, name: str) -> str:
    spread = trial["spread"][name]
    return f"{trial['values'][name]:.4f}" + ("" if spread is None else f" ± {spread:.4f}")


def format_point(point: Point) -> str:
    """Return a point on one line, without the sections of its paths."""
    return ", ".join(f"{_leaf(path)}={_format_setting(value)}" for path, value in point.items())


def _leaf(path: str) -> str:
    return path.split(".")[-1]


def _format_setting(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
