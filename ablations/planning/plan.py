"""What a launch has to compute: the cells of a study compared with the run store."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ablations.planning.cells import StudyCell
from ablations.planning.estimate import Estimate, estimate_cost
from ablations.planning.launch_command import Argv
from ablations.planning.study import StudyConfig
from tiekd.config import RunConfig
from tiekd.data import check_inputs, inputs_key, open_frames
from tiekd.data.frame_source import SPLITS
from tiekd.data.inputs import RunIds, maps_are_made, one_look
from tiekd.data.teacher_maps.blocks import BLOCK_FRAMES
from tiekd.distill.preflight import check_ready
from tiekd.errors import UserError
from tiekd.store.run_status import FINISHED, Status
from tiekd.store.run_store import RunRecord, RunStore

INDEX_FROM = 20  # runs, from which listing all finished ones of an object store takes fewer requests than reading these
NetworkKey = tuple[Any, ...]


@dataclass(frozen=True)
class PlannedCell:
    """A cell and the status of its run. `run_id` is None if an input is missing, since it depends on digests of the inputs."""

    cell: StudyCell
    run_id: str | None
    status: Status
    missing: str = ""  # why the run cannot begin: a missing input, or a network that cannot be built
    maps_id: str | None = None  # of the maps that it reads, if a launch makes them

    def to_dict(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "state": self.status.state,
            "cause": self.status.cause,
            "factors": self.cell.factors,
            "labels": self.cell.labels,
            "seed": self.cell.config.seed,
            "missing": self.missing,
            "config": self.cell.config.document(),
        }


@dataclass(frozen=True)
class PlannedMaps:
    """The maps of a teacher that a launch makes in the store."""

    maps_id: str
    teacher: str  # its name
    config: RunConfig  # of a run that reads them
    run_id: str | None  # of the run that trains the teacher; None for a model that exists
    made: bool

    @property
    def n_frames(self) -> int:
        assert self.config.teacher is not None
        splits = SPLITS[:1] if self.config.teacher.is_aligned else SPLITS
        return sum(len(open_frames(self.config.data, split)) for split in splits)

    @property
    def n_blocks(self) -> int:
        return -(-self.n_frames // BLOCK_FRAMES)

    def __str__(self) -> str:
        return f"maps of {self.teacher}"

    def to_dict(self) -> dict[str, Any]:
        return {"maps_id": self.maps_id, "teacher": self.teacher, "made": self.made, "needs": self.run_id}


@dataclass(frozen=True)
class Plan:
    """The cells of a launch, what they need, and the cells of the whole study, which show what the others will cost."""

    cells: list[PlannedCell]
    retry_failed: bool = False
    study_cells: list[PlannedCell] = field(default_factory=list)
    teachers: Mapping[str, PlannedCell] = field(default_factory=dict)  # runs that train a teacher, by run id
    maps: Mapping[str, PlannedMaps] = field(default_factory=dict)  # by id

    @property
    def to_compute(self) -> list[PlannedCell]:
        """One cell per run that is not finished and can begin, teachers first. Failed runs only with `retry_failed`."""
        skip = set(FINISHED) if self.retry_failed else {*FINISHED, "failed"}
        wanted = [c for c in self.cells if c.run_id and not c.missing and c.status.state not in skip]
        teachers = [t for c in wanted for t in self.teachers_of(c) if t.status.state not in skip]
        return list({c.run_id: c for c in (*teachers, *wanted)}.values())

    @property
    def maps_to_make(self) -> list[PlannedMaps]:
        """The maps that do not exist and that runs to compute read."""
        read = dict.fromkeys(c.maps_id for c in self.to_compute if c.maps_id)
        return [self.maps[maps_id] for maps_id in read if not self.maps[maps_id].made]

    def teachers_of(self, planned: PlannedCell) -> list[PlannedCell]:
        """The runs of a run's teacher, and of that one's teacher first, that have to be done before it can begin."""
        maps = self.maps[planned.maps_id] if planned.maps_id else None
        if maps is None or maps.made or maps.run_id is None:
            return []
        teacher = self.teachers[maps.run_id]
        return [*self.teachers_of(teacher), teacher]

    @property
    def unread_factors(self) -> list[str]:
        """The factors whose levels are one and the same run, whatever the other factors are."""
        found = []
        for name in dict.fromkeys(name for c in self.cells for name in c.cell.factors):
            runs: dict[str, list[str | None]] = {}  # of cells that differ only in this factor
            for c in self.cells:
                runs.setdefault(repr({**c.cell.factors, name: None, "seed": c.cell.config.seed}), []).append(c.run_id)
            compared = [ids for ids in runs.values() if len(ids) > 1]
            if compared and all(len(set(ids)) == 1 and ids[0] for ids in compared):
                found.append(name)
        return found

    @property
    def cells_by_missing_input(self) -> dict[str, list[PlannedCell]]:
        """The cells that cannot be computed yet, by what they lack."""
        missing = sorted({c.missing for c in self.cells if c.missing})
        return {line: [c for c in self.cells if c.missing == line] for line in missing}

    @property
    def missing_inputs(self) -> list[str]:
        return list(self.cells_by_missing_input)

    @property
    def state_counts(self) -> Counter[str]:
        """Number of cells by state."""
        return Counter(c.status.state for c in self.cells)

    def estimate(self) -> Estimate:
        """Estimate the cost of the runs to compute."""
        known = {c.run_id: c for c in (*self.study_cells, *self.teachers.values()) if c.run_id}.values()
        return estimate_cost(*([(c.cell.config, c.status) for c in cells] for cells in (self.to_compute, known)))

    def to_dict(self) -> dict[str, Any]:
        cost = self.estimate()
        needed = dict.fromkeys(c.maps_id for c in self.cells if c.maps_id)
        return {
            "cells": [c.to_dict() for c in self.cells],
            "teachers": [t.to_dict() for t in self.teachers.values()],
            "maps": [self.maps[maps_id].to_dict() for maps_id in needed],
            "to_compute": [c.run_id for c in self.to_compute],
            "missing_inputs": self.missing_inputs,
            "estimated_device_seconds": None if cost.n_unknown else cost.device_seconds,
        }

    def exclude(self, errors: Mapping[NetworkKey, str]) -> "Plan":
        """Return the plan in which unfinished cells cannot begin whose network, or that of a teacher, is in `errors`."""

        def check(planned: PlannedCell) -> PlannedCell:
            needed = [planned, *self.teachers_of(planned)]
            error = next(filter(None, (errors.get(network_key(c.cell.config)) for c in needed)), None)
            return _cell_without_run(planned.cell, error) if error and planned.status.state not in FINISHED else planned

        return replace(self, cells=[check(c) for c in self.cells], study_cells=[check(c) for c in self.study_cells])


@one_look()
def make_plan(cells: list[StudyCell], store: RunStore, retry_failed: bool = False) -> Plan:
    """Look up the run of each cell, and what has to be made for it, in the store. Inputs that cells share are checked once."""
    lookup = _Lookup(store)
    lookup.read([cell.config for cell in cells])
    planned = [lookup.plan(cell) for cell in cells]
    blocked = {c.maps_id: reason for c in planned if (reason := lookup.why_blocked(c, retry_failed))}
    unfinished = {c.run_id for c in planned if c.status.state not in FINISHED}
    planned = [
        replace(c, missing=blocked[c.maps_id]) if c.maps_id in blocked and c.run_id in unfinished else c for c in planned
    ]
    return Plan(planned, retry_failed, planned, lookup.teachers, lookup.maps)


class _Lookup:
    """Looks up runs and teacher maps in a store."""

    def __init__(self, store: RunStore):
        self.maps: dict[str, PlannedMaps] = {}
        self.teachers: dict[str, PlannedCell] = {}
        self._store = store
        self._run_ids = RunIds()
        self._errors: dict[Hashable, str] = {}  # by inputs
        self._statuses: dict[str, Status] = {}  # by run id

    def read(self, configs: list[RunConfig]) -> None:
        """Check the inputs of some runs, and read the statuses of those runs and of their teachers'."""
        for config in configs:
            if inputs_key(config) not in self._errors:
                error = _error_of(check_inputs, config) or _error_of(self._run_ids, config)
                self._errors[inputs_key(config)] = error
                if not error and config.teacher and (maps_id := self._run_ids.maps_id(config)):
                    self._add_maps(config, maps_id)
        run_ids = [self._run_ids(config) for config in configs if not self._errors[inputs_key(config)]]
        records = [self._store.run(run_id) for run_id in dict.fromkeys(run_ids) if run_id not in self._statuses]
        if len(records) > INDEX_FROM:
            self._store.load_index()
        found = self._store.read_each(RunRecord.status, records)
        self._statuses |= dict(zip((r.run_id for r in records), found, strict=True))

    def _add_maps(self, config: RunConfig, maps_id: str) -> None:
        assert config.teacher is not None
        if maps_id in self.maps:
            return
        run_id = None
        if config.teacher_run:
            self.read([config.teacher_run])
            teacher = self.plan(StudyCell(config.teacher_run, {"teacher": config.teacher.name}))
            assert teacher.run_id is not None  # `check_inputs` has checked the teacher's inputs
            run_id = teacher.run_id
            self.teachers[run_id] = teacher
        made = maps_are_made(self._store, maps_id)
        self.maps[maps_id] = PlannedMaps(maps_id, config.teacher.name, config, run_id, made)

    def plan(self, cell: StudyCell) -> PlannedCell:
        """Plan a cell whose run has been read."""
        if error := self._errors[inputs_key(cell.config)]:
            return _cell_without_run(cell, error)
        run_id = self._run_ids(cell.config)
        return PlannedCell(cell, run_id, self._statuses[run_id], maps_id=self._run_ids.maps_id(cell.config))

    def why_blocked(self, planned: PlannedCell, retry_failed: bool) -> str:
        """Return why a run cannot begin although its inputs are there: its teacher has no result. "" if it can."""
        maps = self.maps[planned.maps_id] if planned.maps_id else None
        if maps is None or maps.made or maps.run_id is None:
            return ""
        teacher = self.teachers[maps.run_id]
        state = teacher.status.state
        if state in ("diverged", "constant") or (state == "failed" and not retry_failed):
            remedy = " (use --retry-failed to compute it again)" if state == "failed" else ""
            return f"teacher {maps.teacher}: its run {maps.run_id} {state}: {teacher.status.cause}{remedy}"
        return self.why_blocked(teacher, retry_failed)


def _cell_without_run(cell: StudyCell, missing: str) -> PlannedCell:
    return PlannedCell(cell, None, Status("missing", cause=missing), missing)


def network_key(config: RunConfig) -> NetworkKey:
    """Return the settings of a run's network, batches and protocols, on which `readiness_errors` depends."""
    protocols = config.evaluation.protocol, config.evaluation.also
    return config.data, config.student, config.bins, protocols, config.optim.batch_size == 1


@one_look()
def readiness_errors(configs: list[RunConfig]) -> list[str]:
    """Return why each run cannot begin (its network cannot be built, its protocol does not fit the data), or ""."""
    return [_error_of(check_ready, config) for config in configs]


def _error_of(check: Callable[[RunConfig], object], config: RunConfig) -> str:
    try:
        check(config)
    except UserError as error:
        return str(error)
    return ""


def study_record(study: StudyConfig, plan: Plan, commands: list[Argv]) -> dict[str, Any]:
    """Return what the store keeps of a study: its document, the commands that launched it, its cells, its teachers' runs."""
    cells = [c.to_dict() for c in plan.cells]
    return {"study": study.model_dump(mode="json"), "commands": commands, "cells": cells, "teachers": list(plan.teachers)}
