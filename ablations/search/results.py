"""What a search has found: the best trials, the Pareto front, what mattered, and the winner as a config. Knows no Ray."""

import statistics
from dataclasses import dataclass
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from ablations.planning.search_point import SeedRuns
from ablations.planning.study import SearchConfig
from ablations.search.optuna_storage import get_trials
from search_spaces.space import Point
from tiekd.store.run_store import RunStore

BEST_SHOWN = 5  # best trials
MIN_TRIALS_FOR_IMPORTANCE = 10  # complete trials, for the parameters' importance


@dataclass(frozen=True)
class SearchResults:
    """Complete trials, best first, by the first objective; each as plain values."""

    best: list[dict[str, Any]]
    front: list[dict[str, Any]]  # those that no other surpasses in every objective; empty for one objective
    importance: dict[str, float]  # share of each parameter, the largest first; empty for too few trials
    base: dict[str, Any] | None = None  # the trial of the search's base itself, if it is complete


def collect_results(study: optuna.Study, search: SearchConfig, origin: Point | None = None) -> SearchResults:
    """origin: the point at which the search's base lies."""
    sign = -1 if search.modes[0] == "max" else 1
    complete = sorted(get_trials(study, TrialState.COMPLETE), key=lambda t: sign * t.values[0])
    told = [_told(trial, search) for trial in complete]
    front = {t.number for t in study.best_trials} if len(search.objectives) > 1 else set()
    base = next((trial for trial in told if trial["params"] == origin), None)
    return SearchResults(told, [t for t in told if t["number"] in front], _importance(study, complete), base)


def _told(trial: FrozenTrial, search: SearchConfig) -> dict[str, Any]:
    """A trial: means over its seeds, their standard deviations (None for one seed), the values they are of, and its runs."""
    by_seed = trial.user_attrs["by_seed"]
    return {
        "number": trial.number,
        "value": trial.values[0],
        "values": dict(zip(search.objectives, trial.values, strict=True)),
        "spread": {name: statistics.stdev(values) if len(values) > 1 else None for name, values in by_seed.items()},
        "by_seed": by_seed,
        "params": trial.params,
        "run_id": trial.user_attrs["run_id"],
        "run_ids": trial.user_attrs["run_ids"],
        "warm": trial.user_attrs.get("warm", False),
    }


def _importance(study: optuna.Study, complete: list[FrozenTrial]) -> dict[str, float]:
    """Optuna's own measure (PED-ANOVA); of several objectives together."""
    if len(complete) < MIN_TRIALS_FOR_IMPORTANCE or len({tuple(t.values) for t in complete}) == 1:
        return {}
    return optuna.importance.get_param_importances(study)


def write_best_config(findings: SearchResults, search: SearchConfig, repeats: SeedRuns, store: RunStore, name: str) -> str:
    """The best trial's config, with the first seed, as a document that `tiekd run` takes; its place in the store.

    Every other trial's configs lie with its runs: `runs/<run_id>/config.yaml`.
    """
    best = findings.best[0]
    seeds = ", ".join(map(str, search.seeds))
    lines = [
        f"# Trial {best['number']} of the search {name}, its best by {search.objective}: {_value(best, search.objective)}",
        f"# over the seeds {seeds}." if len(search.seeds) > 1 else f"# with seed {seeds}.",
    ]
    document = yaml.safe_dump(repeats.config(best["params"], search.seeds[0]).document(), sort_keys=False)
    place = f"studies/{name}/best.yaml"
    store.write_bytes(place, "\n".join([*lines, document]).encode())
    return f"{store.uri}/{place}"


def print_results(findings: SearchResults, search: SearchConfig, console: Console) -> None:
    """Print what was found, the winner last."""
    if not findings.best:
        console.print("no trial finished: there is no best")
        return
    console.print(_table(findings.best[:BEST_SHOWN], search))
    if findings.front:
        console.print(f"Pareto front of {', '.join(search.objectives)}: {len(findings.front)} trials")
        console.print(_table(findings.front, search))
    if findings.importance:
        shares = ", ".join(f"{_leaf(path)} {share:.0%}" for path, share in findings.importance.items())
        console.print(f"importance: {shares}", highlight=False, soft_wrap=True)
    best = findings.best[0]
    over = f" over {len(search.seeds)} seeds" if len(search.seeds) > 1 else ""
    line = f"best trial: {search.objective} {_value(best, search.objective)}{over} with {format_point(best['params'])}"
    console.print(line + _beside_base(findings, search), soft_wrap=True)


def _beside_base(findings: SearchResults, search: SearchConfig) -> str:
    if not findings.base:
        return ""
    if findings.base is findings.best[0]:
        return ", the base itself"
    return f"; the base: {_value(findings.base, search.objective)}"


def _table(trials: list[dict], search: SearchConfig) -> Table:
    paths = list(dict.fromkeys(path for trial in trials for path in trial["params"]))
    table = Table("trial", *search.objectives, *map(_leaf, paths), "run", box=None, pad_edge=False)
    for trial in trials:
        number = f"{trial['number']}, of the store" if trial["warm"] else str(trial["number"])
        values = [_value(trial, name) for name in search.objectives]
        table.add_row(number, *values, *(_number(trial["params"].get(path, "")) for path in paths), trial["run_id"])
    return table


def _value(trial: dict, name: str) -> str:
    spread = trial["spread"][name]
    return f"{trial['values'][name]:.4f}" + ("" if spread is None else f" ± {spread:.4f}")


def format_point(point: Point) -> str:
    """A point on one line."""
    return ", ".join(f"{_leaf(path)}={_number(value)}" for path, value in point.items())


def _leaf(path: str) -> str:
    return path.split(".")[-1]


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
