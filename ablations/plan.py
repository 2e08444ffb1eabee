"""What is to be computed: a study's cells against the run store. Knows no Ray."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ablations.study import Study
from ablations.variants import Cell
from tiekd.config import RunConfig
from tiekd.errors import UserError
from tiekd.run import check_ready, run_id_of
from tiekd.store import FINISHED, RunStore, Status


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
    seconds: dict[str, float] = field(default_factory=dict)  # of earlier runs, by kind of run

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

    def estimated_seconds(self) -> float | None:
        """Device seconds of what is to compute, from finished runs alike; None where one has no such run."""
        costs = [self.seconds.get(kind_of(c.cell.config)) for c in self.to_compute]
        return None if None in costs else sum(costs)

    def to_dict(self) -> dict[str, Any]:
        return {
            "cells": [c.to_dict() for c in self.cells],
            "to_compute": [c.run_id for c in self.to_compute],
            "missing_inputs": self.missing_inputs,
            "estimated_device_seconds": self.estimated_seconds(),
        }


def make_plan(cells: list[Cell], store: RunStore, retry_failed: bool = False) -> Plan:
    """Look up every cell; inputs that several cells share are checked once."""
    checked: dict[str, str] = {}
    planned = [_look_up(cell, store, checked) for cell in cells]
    return Plan(planned, retry_failed, _seconds_by_kind(planned))


def _look_up(cell: Cell, store: RunStore, checked: dict[str, str]) -> PlannedCell:
    config = cell.config
    teacher = config.teacher if config.reads_teacher else None
    inputs = str((config.data, teacher, config.student, config.evaluation.protocol))
    if inputs not in checked:
        checked[inputs] = _first_missing(config)
    if checked[inputs]:
        return PlannedCell(cell, None, Status("missing", cause=checked[inputs]), checked[inputs])
    run_id = run_id_of(config)
    return PlannedCell(cell, run_id, store.run(run_id).status())


def _first_missing(config: RunConfig) -> str:
    try:
        check_ready(config)
    except UserError as error:
        return str(error)
    return ""


def kind_of(config: RunConfig) -> str:
    """Runs of one kind cost about the same: same data, network and schedule."""
    return str((config.data, config.student, config.bins.n_bins, config.optim.epochs, config.optim.batch_size))


def _seconds_by_kind(planned: list[PlannedCell]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for c in planned:
        kind = kind_of(c.cell.config)
        if c.status.state == "done" and kind not in seconds:
            seconds[kind] = c.status.device_seconds
    return seconds


def study_record(study: Study, plan: Plan) -> dict[str, Any]:
    """What the store keeps of a study."""
    return {"study": study.model_dump(mode="json"), "cells": [c.to_dict() for c in plan.cells]}
