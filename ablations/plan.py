"""What is to be computed: a study's cells against the run store. Knows no Ray."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ablations.estimate import Estimate, estimate
from ablations.study import Study
from ablations.variants import Cell
from tiekd.config import RunConfig
from tiekd.data import check_inputs
from tiekd.errors import UserError
from tiekd.identity import run_id_of
from tiekd.store import FINISHED, RunRecord, RunStore, Status

Told = dict[tuple, str]  # what a check said, by the check and the settings that it reads


@dataclass(frozen=True)
class PlannedCell:
    """A cell and what the store knows of its run. Without its inputs a run has no identity yet: `run_id` is None."""

    cell: Cell
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
        return estimate(*([(c.cell.config, c.status) for c in cells] for cells in (self.to_compute, known)))

    def to_dict(self) -> dict[str, Any]:
        return {
            "cells": [c.to_dict() for c in self.cells],
            "to_compute": [c.run_id for c in self.to_compute],
            "missing_inputs": self.missing_inputs,
            "estimated_device_seconds": None if (cost := self.estimate()).unknown else cost.device_seconds,
        }


def make_plan(cells: list[Cell], store: RunStore, retry_failed: bool = False) -> Plan:
    """Look up every cell; what several cells share is checked once."""
    told: Told = {}
    run_ids = [None if _missing_input(cell.config, told) else run_id_of(cell.config) for cell in cells]
    records = [store.run(run_id) for run_id in dict.fromkeys(run_ids) if run_id]
    statuses = dict(zip((r.run_id for r in records), store.read_each(RunRecord.status, records), strict=True))
    planned = [_planned(cell, run_id, statuses.get(run_id), told) for cell, run_id in zip(cells, run_ids, strict=True)]
    return Plan(planned, retry_failed, planned)


def _planned(cell: Cell, run_id: str | None, status: Status | None, told: Told) -> PlannedCell:
    missing = _missing_input(cell.config, told)
    if status and status.state not in FINISHED:
        config = cell.config
        missing = _mistake(_check_ready, config, (config.data, config.student, config.bins, config.evaluation.protocol), told)
    if missing or not status:
        return PlannedCell(cell, None, Status("missing", cause=missing), missing)
    return PlannedCell(cell, run_id, status)


def _missing_input(config: RunConfig, told: Told) -> str:
    return _mistake(check_inputs, config, (config.data, config.teacher if config.reads_teacher else None), told)


def _mistake(check: Callable[[RunConfig], None], config: RunConfig, reads: tuple, told: Told) -> str:
    """What `check` says against a config, or ""; it is asked once for all configs with the same `reads`."""
    if (check, reads) not in told:
        try:
            check(config)
            told[check, reads] = ""
        except UserError as error:
            told[check, reads] = str(error)
    return told[check, reads]


def _check_ready(config: RunConfig) -> None:
    """PyTorch is imported here: a study that is done does not wait for it."""
    from tiekd.run import check_ready

    check_ready(config)


def study_record(study: Study, plan: Plan) -> dict[str, Any]:
    """What the store keeps of a study."""
    return {"study": study.model_dump(mode="json"), "cells": [c.to_dict() for c in plan.cells]}
