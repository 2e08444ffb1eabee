"""A search before Ray starts: its checked settings, the trials that its budget leaves, and its record in the store."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console

from ablations.planning.launch_command import Argv, build_argv, launch_commands
from ablations.planning.search_config import MAX_TRIALS, MEASURED_OBJECTIVES, SAMPLERS, SearchConfig
from ablations.planning.search_point import SeedRuns
from ablations.planning.study import StudyConfig, check_can_vary, find_study, load_study
from ablations.search.optuna_storage import (
    budget_used,
    changed_parameter,
    drawn_point,
    enqueue_point,
    get_trials,
    in_space,
    is_infeasible,
    open_storage,
    open_study,
    remaining_points,
    requeue_interrupted,
    restricted,
    storage_url,
    study_exists,
    waiting_trials,
)
from ablations.search.samplers import build_sampler
from ablations.search.warm_start import warm_start
from search_spaces.parameters import Choice
from search_spaces.space import Point, SearchSpace, load_space
from tiekd.config import RunConfig, build
from tiekd.config.documents import flatten, parse_overrides
from tiekd.data import check_inputs
from tiekd.data.inputs import RunIds
from tiekd.distill.preflight import check_ready
from tiekd.errors import UserError
from tiekd.store.run_status import FINISHED
from tiekd.store.run_store import RunStore

StudyCells = dict[str, dict[str, Any]]  # cells of a study's record, by run id
RECORD_GROWTH = 1.02


@dataclass(frozen=True)
class SearchOptions:
    """What a launch overrides in a study's search block; None keeps the study's setting."""

    trials: int | None = None
    hours: float | None = None
    warm_start: bool | None = None
    storage: str | None = None  # URL of the Optuna database


@dataclass(frozen=True)
class PreparedSearch:
    """A search whose settings have been checked."""

    study: StudyConfig
    search: SearchConfig
    space: SearchSpace  # as far as it applies to the base config
    base: RunConfig
    store: RunStore
    url: str  # of the Optuna database; may contain a password, and so is neither stored nor shown
    commands: list[Argv]  # that launched the search; the last is this launch
    run_id_of: RunIds = field(default_factory=RunIds)

    @property
    def name(self) -> str:
        return search_name(self.study)

    @property
    def seed_runs(self) -> SeedRuns:
        search = self.search
        return SeedRuns(self.base.stated, search.seeds, search.objectives, tuple(search.bounds), search.race)

    @property
    def base_point(self) -> Point | None:
        """The point of the base config; None if it is outside the space."""
        return self.space.point_of(flatten(self.base.document()))

    def current_run_id(self, point: Point) -> str:
        """Return the first of a point's runs that has not finished, which is the one being computed; else the last."""
        run_ids = [self.run_id_of(self.seed_runs.config(point, seed)) for seed in self.search.seeds]
        return next((i for i in run_ids if self.store.run(i).status().state not in FINISHED), run_ids[-1])


def search_name(study: StudyConfig) -> str:
    """Return the name of a study's search, which the store keeps as a second study beside the cells of `tiekd ablate`."""
    return f"{study.name}-search"


def prepare_search(
    study: str | Path,
    store: str | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    name: str | None = None,
    options: SearchOptions = SearchOptions(),
) -> PreparedSearch:
    """Read and check a search. Writes nothing. Raises UserError if it cannot run as asked."""
    changes = parse_overrides(overrides) | ({"execution.store": store} if store else {})
    loaded = load_study(study, changes, name)
    if loaded.search is None:
        raise UserError(f"study {study}: has no search: block; compute its cells with `tiekd ablate`")
    search = _apply_options(loaded.search, options)
    base = build(loaded.base, source=f"study {loaded.name}, base").with_absolute_paths()
    space = load_space(search.space, beside=find_study(study).parent)
    if varied := [setting for setting in changes if setting in space.parameters]:
        raise UserError(f"--set {varied[0]}: the search space {search.space} varies it")
    space = space.for_base(base.document())
    _check_parameters(space)
    build_sampler(search, space, search.sampler_seed)  # raises UserError if it does not fit the search
    if search.trials is None and search.hours is None and not SAMPLERS[search.sampler].exhaustive:
        raise UserError(f"search: {search.sampler} needs a budget: give trials or hours")
    bounded = {constraint.name for constraint in search.bounds}
    if base.execution.workers > 1 and {*search.objectives, *bounded} & set(MEASURED_OBJECTIVES):
        raise UserError(
            f"execution.workers: milliseconds and parameters can be measured only with 1, got {base.execution.workers}"
        )
    check_inputs(base)
    run_store = RunStore(base.execution.store)
    run_store.check_study_name(search_name(loaded))
    command = build_argv("search", study, store=store, set=overrides, name=name, trials=options.trials, hours=options.hours)
    if options.warm_start is not None:
        command.append("--warm-start" if options.warm_start else "--cold-start")
    url = storage_url(options.storage, run_store, search_name(loaded))
    commands = launch_commands(run_store, search_name(loaded), command)
    prepared = PreparedSearch(loaded, search, space, base, run_store, url, commands)
    _check_read(prepared)
    if search.race and prepared.base_point is None:
        raise UserError(f"search.race: the base config must be in the space {search.space}, since trials race against it")
    if search.race and SAMPLERS[search.sampler].exhaustive:
        raise UserError(f"search.race: {search.sampler} does not begin with the base config, against which trials race")
    return prepared


def _check_parameters(space: SearchSpace) -> None:
    """Raise UserError for a parameter that a study could not have as a factor."""
    for path in space.parameters:
        try:
            check_can_vary(path, "parameter")
        except ValueError as error:
            raise UserError(f"search space: {error}") from None


def _check_read(prepared: PreparedSearch) -> None:
    """Raise UserError for a parameter that no point's runs read, such as loss.sigma with a loss that has none.

    All points that differ only in it would be one and the same run.
    """
    for path, parameter in prepared.space.parameters.items():
        values = parameter.choices if isinstance(parameter, Choice) else (parameter.low, parameter.high)
        contexts = prepared.space.contexts(path)
        if len(values) > 1 and all(len(_run_ids(prepared, path, values, context)) == 1 for context in contexts):
            raise UserError(f"search space {prepared.search.space}: {path}: no run of this search reads it")


def _run_ids(prepared: PreparedSearch, path: str, values: Sequence[Any], context: Point) -> set[str]:
    """The runs that differ only in one setting; settings that contradict each other count as one more."""
    found = set()
    for value in values:
        try:
            found.add(prepared.run_id_of(prepared.seed_runs.config({**context, path: value}, prepared.search.seeds[0])))
        except UserError:
            found.add("")
    return found


def _apply_options(search: SearchConfig, options: SearchOptions) -> SearchConfig:
    if options.trials is not None and options.trials < 1:
        raise UserError(f"--trials: must be at least 1, got {options.trials}")
    if options.trials is not None and options.trials > MAX_TRIALS:
        raise UserError(f"--trials: must be at most {MAX_TRIALS}, got {options.trials}")
    if options.hours is not None and not 0 < options.hours < math.inf:
        raise UserError(f"--hours: must be above 0, got {options.hours:g}")
    given = {"trials": options.trials, "hours": options.hours, "warm_start": options.warm_start}
    return search.model_copy(update={name: value for name, value in given.items() if value is not None})


@contextlib.contextmanager
def open_search(prepared: PreparedSearch) -> Iterator[optuna.Study]:
    """Open the search's Optuna study, after requeueing the trials of a launch that died.

    Raises UserError if the trials so far are not comparable: another base, data, objectives, seeds, constraints or kind of
    parameter.
    """
    if prepared.store.local:
        Path(prepared.store.root, "studies", prepared.name).mkdir(parents=True, exist_ok=True)
    search = prepared.search
    subject = f"{', '.join(search.objectives)} over seeds {search.seeds} of {prepared.run_id_of(prepared.base)}"
    if search.constraints:
        subject += f" with {', '.join(search.constraints)}"
    with open_storage(prepared.url) as storage:
        study = open_study(prepared.name, storage, search, prepared.space)
        if study.user_attrs.setdefault("subject", subject) != subject:
            raise UserError(
                f"search {prepared.name}: its trials so far have another base, data, objectives, seeds or constraints, so "
                "they cannot be compared; use --name to start a separate search"
            )
        if path := changed_parameter(study, prepared.space):
            raise UserError(
                f"search {prepared.name}: its trials so far have another type or other choices of {path}, which Optuna "
                "cannot combine; use --name to start a separate search"
            )
        study.set_user_attr("subject", subject)
        requeue_interrupted(study)
        yield study


def start_search(prepared: PreparedSearch, console: Console) -> int | None:
    """Add the store's finished points if asked, and return the trials that the budget leaves; None if only hours limit it."""
    exists = study_exists(prepared.name, prepared.url)
    if not exists:
        check_ready(prepared.base)
    if not exists and not prepared.search.warm_start:
        return _trials_left(prepared, None)
    with open_search(prepared) as study:
        if prepared.search.warm_start:
            added = warm_start(study, prepared.space, prepared.seed_runs, prepared.store)
            console.print(f"search {prepared.name}: added {added} finished points of the store as trials")
        left = _trials_left(prepared, study)
    if exists and left != 0:
        check_ready(prepared.base)
    return left


def enqueue_base(prepared: PreparedSearch, study: optuna.Study) -> None:
    """Make the base config the first trial of a new search, so that results can be compared with it."""
    trials = get_trials(study)
    is_new = all(trial.user_attrs.get("warm") for trial in trials if in_space(trial, prepared.space))
    is_known = any(drawn_point(trial) == prepared.base_point for trial in trials)
    if prepared.base_point and is_new and not is_known and not SAMPLERS[prepared.search.sampler].exhaustive:
        enqueue_point(study, prepared.base_point)


def _trials_left(prepared: PreparedSearch, study: optuna.Study | None) -> int | None:
    """Return the trials that the budget leaves; None if only hours limit them. `study` is None before the first launch."""
    search = prepared.search
    left = search.trials
    if left is not None and study:
        left = max(left - budget_used(restricted(study, prepared.space)), 0)
    if SAMPLERS[search.sampler].exhaustive:
        grid = prepared.space.grid()
        untried = len(remaining_points(study, grid)) + len(waiting_trials(study, prepared.space)) if study else len(grid)
        left = untried if left is None else min(left, untried)
    return left


def point_cells(prepared: PreparedSearch, point: Point) -> StudyCells:
    """Return the cells of a point's runs, with the point as their factors; none if its settings contradict each other."""
    cells: StudyCells = {}
    for seed in prepared.search.seeds:
        try:
            config = prepared.seed_runs.config(point, seed)
        except UserError:
            return {}
        run_id = prepared.run_id_of(config)
        cells[run_id] = {"run_id": run_id, "config": config.document(), "factors": point, "seed": seed}
    return cells


class SearchRecord:
    """The record of a search as a study of the store, in which each run of each trial is a cell.

    While points are added, it is written again when it has grown by a share, since it holds all cells.
    """

    def __init__(self, prepared: PreparedSearch, study: optuna.Study):
        self._prepared, self._study = prepared, study
        self._cells: StudyCells = {}
        for trial in get_trials(study):
            point = drawn_point(trial)
            if prepared.space.point_of(point) == point:  # not so for a trial killed while its point was drawn
                self._cells |= point_cells(prepared, point)
        self.write()

    def add(self, point: Point) -> None:
        """Add the cells of a point."""
        self._cells |= point_cells(self._prepared, point)
        if len(self._cells) >= RECORD_GROWTH * self._n_written:
            self.write()

    def write(self) -> None:
        """Write the record; the cells of infeasible trials say so."""
        for trial in filter(is_infeasible, get_trials(self._study)):
            for run_id in self._cells.keys() & trial.user_attrs["run_ids"]:
                self._cells[run_id]["infeasible"] = trial.user_attrs["cause"]
        prepared = self._prepared
        document = prepared.study.model_dump(mode="json") | {"name": prepared.name, "kind": "search"}
        teacher = prepared.base.teacher_run if prepared.base.reads_teacher else None
        teachers = [prepared.run_id_of(teacher)] if teacher else []
        record = {"study": document, "commands": prepared.commands, "cells": list(self._cells.values()), "teachers": teachers}
        prepared.store.write_study(prepared.name, record)
        self._n_written = len(self._cells)
