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
from tiekd.data import check_inputs, inputs_key
from tiekd.distill.preflight import RunIds, check_ready
from tiekd.errors import UserError
from tiekd.store.run_status import FINISHED, Status
from tiekd.store.run_store import RunRecord, RunStore

NetworkKey = tuple[Any, ...]


@dataclass(frozen=True)
class PlannedCell:
    """A cell and the status of its run. `run_id` is None if an input is missing, since it depends on digests of the inputs."""

    cell: StudyCell
    run_id: str | None
    status: Status
    missing: str = ""  # why the run cannot begin: a missing input, or a network that cannot be built

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
class Plan:
    """The cells of a launch, and those of the whole study, whose runs show what the others will cost."""

    cells: list[PlannedCell]
    retry_failed: bool = False
    study_cells: list[PlannedCell] = field(default_factory=list)

    @property
    def to_compute(self) -> list[PlannedCell]:
        """One cell per run that is not finished and can begin. Failed runs are included only with `retry_failed`."""
        skip = set(FINISHED) if self.retry_failed else {*FINISHED, "failed"}
        wanted = [c for c in self.cells if c.run_id and c.status.state not in skip]
        return list({c.run_id: c for c in wanted}.values())

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
        """Estimate the cost of the cells to compute."""
        known = {c.run_id: c for c in self.study_cells if c.run_id}.values()
        return estimate_cost(*([(c.cell.config, c.status) for c in cells] for cells in (self.to_compute, known)))

    def to_dict(self) -> dict[str, Any]:
        cost = self.estimate()
        return {
            "cells": [c.to_dict() for c in self.cells],
            "to_compute": [c.run_id for c in self.to_compute],
            "missing_inputs": self.missing_inputs,
            "estimated_device_seconds": None if cost.n_unknown else cost.device_seconds,
        }

    def exclude(self, errors: Mapping[NetworkKey, str]) -> "Plan":
        """Return the plan in which unfinished cells of the networks in `errors` cannot begin."""

        def check(planned: PlannedCell) -> PlannedCell:
            error = errors.get(network_key(planned.cell.config))
            return _cell_without_run(planned.cell, error) if error and planned.status.state not in FINISHED else planned

        return replace(self, cells=[check(c) for c in self.cells], study_cells=[check(c) for c in self.study_cells])


def make_plan(cells: list[StudyCell], store: RunStore, retry_failed: bool = False) -> Plan:
    """Look up the run of each cell in the store. Inputs that cells share are checked once."""
    errors: dict[Hashable, str] = {}
    run_id_of = RunIds()
    for cell in cells:
        if inputs_key(cell.config) not in errors:
            problem = _error_of(check_inputs, cell.config) or _error_of(run_id_of, cell.config)
            errors[inputs_key(cell.config)] = problem
    run_ids = [None if errors[inputs_key(cell.config)] else run_id_of(cell.config) for cell in cells]
    records = [store.run(run_id) for run_id in dict.fromkeys(run_ids) if run_id]
    statuses = dict(zip((r.run_id for r in records), store.read_each(RunRecord.status, records), strict=True))
    planned = [
        PlannedCell(cell, run_id, statuses[run_id]) if run_id else _cell_without_run(cell, errors[inputs_key(cell.config)])
        for cell, run_id in zip(cells, run_ids, strict=True)
    ]
    return Plan(planned, retry_failed, planned)


def _cell_without_run(cell: StudyCell, missing: str) -> PlannedCell:
    return PlannedCell(cell, None, Status("missing", cause=missing), missing)


def network_key(config: RunConfig) -> NetworkKey:
    """Return the settings of a run's network, batches and protocol, on which `readiness_errors` depends."""
    return config.data, config.student, config.bins, config.evaluation.protocol, config.optim.batch_size == 1


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
    """Return what the store keeps of a study: its document, the commands that launched it, and its cells."""
    return {"study": study.model_dump(mode="json"), "commands": commands, "cells": [c.to_dict() for c in plan.cells]}
