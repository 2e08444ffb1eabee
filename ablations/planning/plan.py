"""What is to be computed: a study's cells against the run store. Knows no Ray."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ablations.planning.cells import StudyCell
from ablations.planning.estimate import Estimate, estimate_cost
from ablations.planning.launch_command import Argv
from ablations.planning.study import StudyConfig
from tiekd.config import RunConfig
from tiekd.data import check_inputs
from tiekd.distill.preflight import check_ready, run_id_of
from tiekd.errors import UserError
from tiekd.store.run_status import FINISHED, Status
from tiekd.store.run_store import RunRecord, RunStore

CheckResults = dict[tuple, str]  # what a check said, by the settings that it reads


@dataclass(frozen=True)
class PlannedCell:
    """A cell and what the store knows of its run. Without its inputs a run has no identity yet: `run_id` is None."""

    cell: StudyCell
    run_id: str | None
    status: Status
    missing: str = ""  # the first input that is not there, as one line

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
    cells: list[PlannedCell]
    retry_failed: bool = False
    known: list[PlannedCell] = field(default_factory=list)  # all of the study's: what their runs cost, others will

    @property
    def to_compute(self) -> list[PlannedCell]:
        """Each run once that the store does not hold, failed ones only when asked."""
        skip = set(FINISHED) if self.retry_failed else {*FINISHED, "failed"}
        wanted = [c for c in self.cells if c.run_id and c.status.state not in skip]
        return list({c.run_id: c for c in wanted}.values())

    @property
    def waiting(self) -> dict[str, list[PlannedCell]]:
        """The cells that cannot be computed yet, by what they wait for."""
        missing = sorted({c.missing for c in self.cells if c.missing})
        return {line: [c for c in self.cells if c.missing == line] for line in missing}

    @property
    def missing_inputs(self) -> list[str]:
        return list(self.waiting)

    @property
    def states(self) -> Counter[str]:
        """Cells by state."""
        return Counter(c.status.state for c in self.cells)

    def estimate(self) -> Estimate:
        """What it costs to compute what is to compute."""
        known = {c.run_id: c for c in self.known if c.run_id}.values()
        return estimate_cost(*([(c.cell.config, c.status) for c in cells] for cells in (self.to_compute, known)))

    def to_dict(self) -> dict[str, Any]:
        return {
            "cells": [c.to_dict() for c in self.cells],
            "to_compute": [c.run_id for c in self.to_compute],
            "missing_inputs": self.missing_inputs,
            "estimated_device_seconds": None if (cost := self.estimate()).unknown else cost.device_seconds,
        }


def make_plan(cells: list[StudyCell], store: RunStore, retry_failed: bool = False) -> Plan:
    """Look up every cell; what several cells share is checked once."""
    told: CheckResults = {}
    run_ids = [None if _missing_input(cell.config, told) else run_id_of(cell.config) for cell in cells]
    records = [store.run(run_id) for run_id in dict.fromkeys(run_ids) if run_id]
    statuses = dict(zip((r.run_id for r in records), store.read_each(RunRecord.status, records), strict=True))
    planned = [
        PlannedCell(cell, run_id, statuses[run_id]) if run_id else _without_run(cell, _missing_input(cell.config, told))
        for cell, run_id in zip(cells, run_ids, strict=True)
    ]
    return Plan(planned, retry_failed, planned)


def _without_run(cell: StudyCell, missing: str) -> PlannedCell:
    return PlannedCell(cell, None, Status("missing", cause=missing), missing)


def _missing_input(config: RunConfig, told: CheckResults) -> str:
    """What is missing of a config's inputs, or ""; looked for once for all configs of the same inputs."""
    reads = (config.data, config.teacher if config.reads_teacher else None, config.execution.packed)
    if reads not in told:
        told[reads] = _mistake(check_inputs, config)
    return told[reads]


def network_key(config: RunConfig) -> tuple:
    """What a run's network and protocol are built from: settings on which `mistakes` says the same."""
    return config.data, config.student, config.bins, config.evaluation.protocol


def readiness_errors(configs: list[RunConfig]) -> list[str]:
    """What keeps each run from beginning: a network that cannot be built, a protocol that does not fit; else ""."""
    return [_mistake(check_ready, config) for config in configs]


def _mistake(check: Callable[[RunConfig], None], config: RunConfig) -> str:
    try:
        check(config)
    except UserError as error:
        return str(error)
    return ""


def exclude_networks(plan: Plan, refused: Mapping[tuple, str]) -> Plan:
    """The plan without runs for unfinished cells of the networks that `refused` has something against."""

    def look(planned: PlannedCell) -> PlannedCell:
        mistake = refused.get(network_key(planned.cell.config))
        return _without_run(planned.cell, mistake) if mistake and planned.status.state not in FINISHED else planned

    return replace(plan, cells=[look(c) for c in plan.cells], known=[look(c) for c in plan.known])


def study_record(study: StudyConfig, plan: Plan, commands: list[Argv]) -> dict[str, Any]:
    """What the store keeps of a study; `commands` launched it."""
    return {"study": study.model_dump(mode="json"), "commands": commands, "cells": [c.to_dict() for c in plan.cells]}
