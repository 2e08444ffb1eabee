"""Where the cells of a study stand, and what follows: counts, time left, best so far, device-hours.

Knows no Ray and no screen: a launch fills a `StudyProgress` from the reports of its trials, `tiekd status` from the store.
"""

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ablations.monitor.failure_groups import FailureGroup, group_failures
from ablations.planning.cells import cell_name
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunRecord

# "waiting": to be computed, and not begun; "missing": its inputs are not there.
STATE_ORDER = ("done", "running", "waiting", "pruned", "constant", "diverged", "failed", "missing")
FAILURE_STATES = ("failed", "diverged", "constant")  # ended without a number
PRUNED = "pruned by the scheduler"  # how the cause begins of a missing run that a search gave up
STALE_EPOCHS, STALE_S = 3, 120.0  # a run that is not heard of for longer than both may be dead


@dataclass
class CellProgress:
    """What is known of one cell. Times are seconds since 1970."""

    name: str = ""
    run_id: str = ""
    state: str = "waiting"
    epoch: int = 0  # epochs finished
    epochs: int = 0  # epochs asked for
    workers: int = 1
    device_seconds: float = 0.0  # spent so far, over all workers and interruptions
    metrics: dict[str, float] = field(default_factory=dict)  # of its last validation
    cause: str = ""
    log: str = ""  # where a failure is told in full
    host: str = ""
    last_update: float = 0.0
    alive: bool | None = None  # whether its process is there; None where that cannot be told from here
    factors: dict[str, Any] = field(default_factory=dict)
    run_ids: list[str] = field(default_factory=list)  # of a search's trial with several seeds, those that have ended

    def epoch_seconds(self, otherwise: float | None = None) -> float | None:
        """Seconds from one epoch's end to the next; `otherwise` before its first."""
        return self.device_seconds / self.workers / self.epoch if self.epoch and self.device_seconds else otherwise

    def left(self, now: float, otherwise: float) -> float:
        """Seconds until its last epoch ends, as its earlier ones took. An epoch that is late counts as about to end."""
        pace = self.epoch_seconds(otherwise)
        begun = max(now - self.last_update, 0.0) if self.state == "running" else 0.0
        return max((self.epochs - self.epoch) * pace - min(begun, pace), 0.0)


def cell_progress(cell: Mapping[str, Any], record: RunRecord, status: Status) -> CellProgress:
    """A cell of a study's record, and what the store holds of its run."""
    config = cell["config"]
    summary = record.read_json("summary.json") if status.state == "done" else None
    state = status.state
    if state == "missing" and not cell.get("missing"):
        state = "pruned" if status.cause.startswith(PRUNED) else "waiting"
    return CellProgress(
        name=cell_name(cell["factors"], cell["seed"]),
        run_id=cell["run_id"] or "",
        state=state,
        epoch=status.epoch,
        epochs=config["optim"]["epochs"],
        workers=config["execution"]["workers"],
        device_seconds=status.device_seconds,
        metrics=summary["metrics"] if summary else {},
        cause=status.cause,
        log=log_path(record) if state == "failed" else "",
        last_update=status.updated,
        factors=cell["factors"],
        **(process_of(record) if state == "running" else {}),
    )


def process_of(record: RunRecord) -> dict[str, Any]:
    """Where the process of a running run is, and whether it still is."""
    begun = record.last_attempt()
    return {"host": begun.host, "alive": begun.alive} if begun else {}


def log_path(record: RunRecord) -> str:
    """Where a failed run tells more than its cause."""
    return f"{record.store.uri}/{record.folder}/error.txt"


@dataclass
class StudyProgress:
    """The cells of a study. `objective` is the metric by which the best is chosen; deltas are better when larger."""

    title: str
    cells: list[CellProgress]
    objective: str = "abs_rel"
    slots: int = 0  # the most cells seen running at once

    def start_cell(self, name: str, factors: dict[str, Any], epochs: int) -> CellProgress:
        """The standing of a search's next trial: its cells have no names before they begin."""
        cell = next((c for c in self.cells if not c.name), None)
        if cell is None:
            cell = CellProgress()
            self.cells.append(cell)
        cell.name, cell.factors, cell.epochs = name, factors, epochs
        return cell

    def in_state(self, *states: str) -> list[CellProgress]:
        return [c for c in list(self.cells) if c.state in states]

    @property
    def counts(self) -> dict[str, int]:
        """Cells by state, in the order in which they are told."""
        counted = Counter(c.state for c in list(self.cells))
        return {state: counted[state] for state in STATE_ORDER if counted[state]}

    @property
    def epochs(self) -> tuple[int, int]:
        """Epochs finished, and epochs that there are to finish; a cell that ended early has none left."""
        done = sum(c.epoch for c in list(self.cells))
        return done, done + sum(max(c.epochs - c.epoch, 0) for c in self.in_state("waiting", "running"))

    @property
    def active(self) -> bool:
        """Whether cells run, or have run while they were track_progress."""
        return self.slots > 0 or bool(self.in_state("running"))

    @property
    def device_hours(self) -> float:
        return sum(c.device_seconds for c in list(self.cells)) / 3600

    @property
    def best(self) -> CellProgress | None:
        """The finished cell with the best objective; None while there is none."""
        done = [c for c in self.in_state("done") if self.objective in c.metrics]
        sign = -1 if self.objective.startswith("delta") else 1
        return min(done, key=lambda c: sign * c.metrics[self.objective], default=None)

    @property
    def failures(self) -> list[FailureGroup]:
        return group_failures((c.run_id, c.state, c.cause, c.log) for c in self.in_state("failed"))

    def mean_epoch_seconds(self) -> float | None:
        """Over all epochs finished; None before the first."""
        timed = [c for c in list(self.cells) if c.epoch and c.device_seconds]
        epochs = sum(c.epoch for c in timed)
        return sum(c.device_seconds / c.workers for c in timed) / epochs if epochs else None

    def eta_seconds(self, now: float) -> float | None:
        """Seconds until the last cell ends, if waiting cells take slots as these become free. None before the first epoch.

        None, too, where nothing runs that could take them.
        """
        pace, running, waiting = self.mean_epoch_seconds(), self.in_state("running"), self.in_state("waiting")
        if not running and not waiting:
            return 0.0
        slots = max(self.slots, len(running))
        if pace is None or slots == 0:
            return None
        free = [c.left(now, pace) for c in running] + [0.0] * (slots - len(running))
        heapq.heapify(free)
        for cell in waiting:
            heapq.heappush(free, heapq.heappop(free) + cell.left(now, pace))
        return max(free)

    def stale(self, now: float) -> list[CellProgress]:
        """Running cells whose processes are gone, or that were not heard of for long, relative to their own epochs."""
        typical = self.mean_epoch_seconds() or STALE_S
        patience = {id(c): max(STALE_S, STALE_EPOCHS * c.epoch_seconds(typical)) for c in self.in_state("running")}
        return [c for c in self.in_state("running") if c.alive is False or now - c.last_update > patience[id(c)]]
