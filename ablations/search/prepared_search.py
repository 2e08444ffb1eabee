"""A search, checked and looked up: what is asked for, what its budget leaves, and its record in the store. Knows no Ray."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import TrialState
from rich.console import Console

from ablations.planning.launch_command import Argv, build_argv, launch_commands
from ablations.planning.search_point import SeedRuns
from ablations.planning.study import MEASURED_OBJECTIVES, SearchConfig, StudyConfig, load_study
from ablations.search.optuna_storage import (
    budget_used,
    changed_parameter,
    connect,
    get_trials,
    open_study,
    remaining_points,
    requeue_interrupted,
    storage_url,
    study_exists,
)
from ablations.search.samplers import check_sampler
from ablations.search.warm_start import warm_start
from search_spaces.space import Point, SearchSpace, load_space
from tiekd.config import RunConfig, build
from tiekd.config.documents import flatten, parse_overrides
from tiekd.data import check_inputs
from tiekd.distill.preflight import check_ready, run_id_of
from tiekd.errors import UserError
from tiekd.store.run_status import FINISHED
from tiekd.store.run_store import RunStore


@dataclass(frozen=True)
class SearchOptions:
    """What a launch may change of a study's search block; None: nothing."""

    trials: int | None = None
    hours: float | None = None
    warm_start: bool | None = None
    storage: str | None = None  # URL of the Optuna database


@dataclass(frozen=True)
class PreparedSearch:
    """A checked search."""

    study: StudyConfig
    search: SearchConfig
    space: SearchSpace  # what the base leaves of it
    base: RunConfig
    store: RunStore
    url: str  # of the Optuna database; may hold a password, and so is neither kept nor shown
    commands: list[Argv]  # that launched the search, this one the last

    @property
    def name(self) -> str:
        return search_name(self.study)

    @property
    def repeats(self) -> SeedRuns:
        return SeedRuns(self.base.stated, self.search.seeds, self.search.objectives)

    @property
    def origin(self) -> Point | None:
        """The point at which the base lies; None outside of the space."""
        return self.space.read(flatten(self.base.document()))

    def run_at_work(self, point: Point) -> str:
        """Of a point's runs, which come one after the other, the first that has not ended."""
        run_ids = [run_id_of(self.repeats.config(point, seed)) for seed in self.search.seeds]
        return next((i for i in run_ids if self.store.run(i).status().state not in FINISHED), run_ids[-1])


def search_name(study: StudyConfig) -> str:
    """A search is a study of its own in the store, beside the one whose cells `tiekd ablate` computes."""
    return f"{study.name}-search"


def prepare_search(
    path: Path, store: str | None, overrides: list[str], name: str | None, options: SearchOptions
) -> PreparedSearch:
    """Read and check a search; writes nothing."""
    changes = parse_overrides(overrides) | ({"execution.store": store} if store else {})
    study = load_study(path, changes, name)
    if study.search is None:
        raise UserError(f"study {path}: has no search: block; `tiekd ablate` runs its cells")
    search = _with(study.search, options)
    base = build(study.base, source=f"study {study.name}, base").with_absolute_paths()
    whole = load_space(search.space, beside=path.parent)
    if varied := [setting for setting in changes if setting in whole.parameters]:
        raise UserError(f"--set {varied[0]}: the search space {search.space} varies it")
    space = whole.of(base.document())
    check_sampler(search, space)
    if base.execution.workers > 1 and set(search.objectives) & set(MEASURED_OBJECTIVES):
        raise UserError(f"execution.workers: milliseconds and parameters are measured with 1, got {base.execution.workers}")
    check_inputs(base)
    run_store = RunStore(base.execution.store)
    command = build_argv("search", path, store=store, set=overrides, name=name, trials=options.trials, hours=options.hours)
    if options.warm_start is not None:
        command.append("--warm-start" if options.warm_start else "--cold-start")
    commands = launch_commands(run_store, search_name(study), command)
    return PreparedSearch(
        study, search, space, base, run_store, storage_url(options.storage, run_store, search_name(study)), commands
    )


def _with(search: SearchConfig, options: SearchOptions) -> SearchConfig:
    """The search block under the launch's options."""
    if options.trials is not None and options.trials < 1:
        raise UserError(f"--trials: must be at least 1, got {options.trials}")
    if options.hours is not None and options.hours <= 0:
        raise UserError(f"--hours: must be above 0, got {options.hours:g}")
    given = {"trials": options.trials, "hours": options.hours, "warm_start": options.warm_start}
    return search.model_copy(update={name: value for name, value in given.items() if value is not None})


@contextlib.contextmanager
def open_search(prepared: PreparedSearch) -> Iterator[optuna.Study]:
    """The search's Optuna study, in which no trial of a launch that died is left running."""
    if prepared.store.local:
        Path(prepared.store.filesystem[1], "studies", prepared.name).mkdir(parents=True, exist_ok=True)
    search = prepared.search
    subject = f"{', '.join(search.objectives)} over seeds {search.seeds} of {run_id_of(prepared.base)}"
    with connect(prepared.url) as storage:
        study = open_study(prepared.name, storage, search)
        if study.user_attrs.setdefault("subject", subject) != subject:
            raise UserError(
                f"search {prepared.name}: its trials so far are of another base, data, objectives or seeds; "
                "values of both do not compare: --name keeps this one apart"
            )
        if path := changed_parameter(study, prepared.space):
            raise UserError(
                f"search {prepared.name}: its trials so far had another type or other choices of {path}, which Optuna does not "
                "mix; --name keeps this one apart"
            )
        study.set_user_attr("subject", subject)
        requeue_interrupted(study)
        yield study


def start_search(prepared: PreparedSearch, console: Console) -> int | None:
    """Give a search what the store knows, if that is asked for; trials that its budget leaves, None where hours limit it."""
    begun = study_exists(prepared.name, prepared.url)
    if not begun:
        check_ready(prepared.base)
    if not begun and not prepared.search.warm_start:
        return _left(prepared, None)
    with open_search(prepared) as study:
        if prepared.search.warm_start:
            added = warm_start(study, prepared.space, prepared.repeats, prepared.store)
            console.print(f"search {prepared.name}: {added} points of the store are trials from the start")
        left = _left(prepared, study)
    if begun and left != 0:
        check_ready(prepared.base)
    return left


def enqueue_base(prepared: PreparedSearch, study: optuna.Study) -> None:
    """Have the first trial of a search be its base itself: what is found can then be told beside it."""
    had = get_trials(study)
    begun = any(not trial.user_attrs.get("warm") for trial in had)
    known = any(trial.params == prepared.origin for trial in had)
    if prepared.origin and not begun and not known and prepared.search.sampler != "grid":
        study.enqueue_trial(prepared.origin)


def _left(prepared: PreparedSearch, study: optuna.Study | None) -> int | None:
    """Trials that the budget allows; None where hours alone limit them."""
    search = prepared.search
    left = search.trials
    if left is not None and study:
        left = max(left - budget_used(study), 0)
    if search.sampler == "grid":
        grid = prepared.space.grid()
        unasked = len(remaining_points(study, grid)) + len(get_trials(study, TrialState.WAITING)) if study else len(grid)
        left = unasked if left is None else min(left, unasked)
    return left


def record_search(prepared: PreparedSearch, study: optuna.Study) -> dict[str, dict]:
    """Write the search as a study of the store: each run of each trial a cell. Returns the cells by run id."""
    cells = {}
    for trial in get_trials(study):
        if prepared.space.read(trial.params) == trial.params:  # else it was killed before it had drawn its whole point
            cells |= point_cells(prepared, trial.params)
    write_search_study(prepared, cells)
    return cells


def point_cells(prepared: PreparedSearch, point: Point) -> dict[str, dict]:
    """A point's runs as cells, with the point as their factors; none where it contradicts itself."""
    cells = {}
    for seed in prepared.search.seeds:
        try:
            config = prepared.repeats.config(point, seed)
        except UserError:
            return {}
        run_id = run_id_of(config)
        cells[run_id] = {"run_id": run_id, "config": config.document(), "factors": point, "seed": seed}
    return cells


def write_search_study(prepared: PreparedSearch, cells: dict[str, dict]) -> None:
    document = prepared.study.model_dump(mode="json") | {"name": prepared.name, "kind": "search"}
    prepared.store.write_study(prepared.name, {"study": document, "commands": prepared.commands, "cells": list(cells.values())})
