"""An Optuna search over a study's space, through Ray Tune."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from ablations.study import SearchConfig, Study, load_study
from search_spaces.space import Space, load_space
from tiekd.config import RunConfig, build
from tiekd.display import make_console
from tiekd.documents import parse_overrides, with_values
from tiekd.errors import UserError
from tiekd.run import check_ready, run_id_of
from tiekd.store import RunStore

SHOWN = 5  # best trials


@dataclass(frozen=True)
class Prepared:
    """A checked search."""

    study: Study
    search: SearchConfig
    space: Space
    base: RunConfig
    store: RunStore

    @property
    def name(self) -> str:
        return f"{self.study.name}-search"

    @property
    def database(self) -> Path:
        return Path(self.store.filesystem[1]) / "studies" / self.name / "optuna.db"

    def config(self, point: dict[str, Any]) -> RunConfig:
        """The run of a point; raises UserError where its settings contradict each other."""
        return build(with_values(self.base.document(), point))


def run_search(
    path: Path,
    store: str | None,
    overrides: list[str],
    name: str | None,
    trials: int | None,
    address: str | None,
    as_json: bool,
) -> bool:
    """Search until the study holds its number of trials; print the best. Whether there is a best."""
    prepared = prepare(path, store, overrides, name, trials)
    prepared.store.check_writable()
    console = make_console(stderr=as_json)
    search = prepared.search
    left = max(search.trials - (counted(_open(prepared)) if prepared.database.exists() else 0), 0)
    console.print(f"search {prepared.name}: {left} of {search.trials} trials to run, objective {search.objective}")
    if left:
        _launch(prepared, left, address, console)
    study = _open(prepared)
    _record(prepared, study)
    found = best_trials(study)
    if as_json:
        print(json.dumps({"study": prepared.name, "trials": len(study.trials), "best": found}, indent=2))
    else:
        _show(prepared, study, found, console)
    return bool(found)


def prepare(path: Path, store: str | None, overrides: list[str], name: str | None, trials: int | None) -> Prepared:
    """Read and check a search; writes nothing."""
    changes = parse_overrides(overrides) | ({"execution.store": store} if store else {})
    study = load_study(path, changes, name)
    if study.search is None:
        raise UserError(f"study {path}: has no search: block; `tiekd ablate` runs its cells")
    if trials is not None and trials < 1:
        raise UserError(f"--trials: must be at least 1, got {trials}")
    search = study.search if trials is None else study.search.model_copy(update={"trials": trials})
    space = load_space(search.space, beside=path.parent)
    base = build(study.base, source=f"study {study.name}, base").with_absolute_paths()
    space.check_paths(base.document())
    check_ready(base)
    run_store = RunStore(base.execution.store)
    if not run_store.local:
        raise UserError(f"store {run_store.uri}: a search keeps its Optuna database beside the runs and needs a folder")
    return Prepared(study, search, space, base, run_store)


def _open(prepared: Prepared) -> optuna.Study:
    from ablations.searchers import open_study

    prepared.database.parent.mkdir(parents=True, exist_ok=True)
    study = open_study(prepared.name, f"sqlite:///{prepared.database}", prepared.search)
    subject = f"{prepared.search.objective} of {run_id_of(prepared.base)}"
    if study.user_attrs.setdefault("subject", subject) != subject:
        raise UserError(
            f"search {prepared.name}: store {prepared.store.uri} holds its trials with another base, data or objective; "
            "values of both do not compare: --name keeps this one apart"
        )
    study.set_user_attr("subject", subject)
    return study


def counted(study: optuna.Study) -> int:
    """Trials that used up budget: all that ended; those of a launch that died are repeated, and have no cause."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    return sum(t.state in ended or "cause" in t.user_attrs for t in study.get_trials(deepcopy=False))


def _launch(prepared: Prepared, left: int, address: str | None, console: Console) -> None:
    from ray import tune

    from ablations.launch import Sweep, cluster, run_sweep
    from ablations.progress import StudyProgress
    from ablations.searchers import SCHEDULERS, OptunaSearcher
    from ablations.trial import compute_point

    search, epochs = prepared.search, prepared.base.optim.epochs
    progress = StudyProgress(console, left, epochs, lambda point: _format(point["point"]), search.objective)
    with cluster(address, prepared.base.execution):
        study = _open(prepared)
        _record(prepared, study)
        sweep = Sweep(
            name=prepared.name,
            trainable=tune.with_parameters(compute_point, base=prepared.base.document()),
            execution=prepared.base.execution,
            callback=progress,
            run_id=lambda params: run_id_of(prepared.config(params["point"])),
            searcher=OptunaSearcher(study, prepared.space, search.objective, search.mode, left),
            scheduler=SCHEDULERS[search.scheduler](search, epochs),
            trials=left,
        )
        run_sweep(sweep, prepared.store)


def best_trials(study: optuna.Study) -> list[dict[str, Any]]:
    """Complete trials, best first: number, value, params, run_id."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ordered = sorted(complete, key=lambda t: t.value, reverse=study.direction == optuna.study.StudyDirection.MAXIMIZE)
    return [
        {"number": t.number, "value": t.value, "params": t.params, "run_id": t.user_attrs.get("run_id", "")} for t in ordered
    ]


def _show(prepared: Prepared, study: optuna.Study, found: list[dict], console: Console) -> None:
    by_state = {state.name.lower(): sum(t.state == state for t in study.trials) for state in TrialState}
    told = ", ".join(f"{count} {state}" for state, count in by_state.items() if count)
    console.print(f"search {prepared.name}: {told}")
    if not found:
        console.print("no trial finished: there is no best")
        return
    table = Table(
        "trial",
        prepared.search.objective,
        *(path.split(".")[-1] for path in prepared.space.parameters),
        "run",
        box=None,
        pad_edge=False,
    )
    for t in found[:SHOWN]:
        table.add_row(
            str(t["number"]), f"{t['value']:.4f}", *(_number(t["params"][p]) for p in prepared.space.parameters), t["run_id"]
        )
    console.print(table)
    console.print(f"best trial: {prepared.search.objective} {found[0]['value']:.4f} with {_format(found[0]['params'])}")


def _record(prepared: Prepared, study: optuna.Study) -> None:
    """The search as a study of the store: each trial a cell, its point the factors."""
    cells = {}
    for trial in study.get_trials(deepcopy=False):
        if set(trial.params) != set(prepared.space.parameters):
            continue
        try:
            config = prepared.config(trial.params)
        except UserError:
            continue  # a point that contradicts itself is a failed trial, and no run
        run_id = run_id_of(config)
        cells[run_id] = {"run_id": run_id, "config": config.document(), "factors": trial.params, "seed": config.seed}
    document = prepared.study.model_dump(mode="json") | {"name": prepared.name, "kind": "search"}
    prepared.store.write_study(prepared.name, {"study": document, "cells": list(cells.values())})


def _format(point: dict[str, Any]) -> str:
    return ", ".join(f"{path.split('.')[-1]}={_number(value)}" for path, value in point.items())


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
