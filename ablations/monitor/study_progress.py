"""Progress of a study's cells: counts by state, time left, best cell so far, device-hours.

Knows neither Ray nor a screen: a launch updates a `StudyProgress` from the results of its trials, `tiekd status` reads one from
the store.
"""

import heapq
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from ablations.monitor.failure_groups import FailureGroup, group_failures
from ablations.planning.cells import study_cell_name
from ablations.planning.constraints import INFEASIBLE
from tiekd.config.labels import HIGHER_IS_BETTER, METRICS
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunRecord

# "waiting": will be computed but has not started; "missing": its inputs do not exist.
STATE_ORDER = ("done", "running", "waiting", "pruned", INFEASIBLE, "constant", "diverged", "failed", "missing")
FAILURE_STATES = ("failed", "diverged", "constant")  # ended without a result
STALE_EPOCHS, STALE_S = 3, 120.0  # a run without an update for longer than both may be dead


@dataclass
class CellProgress:
    """Progress of one cell. Times are seconds since 1970."""

    name: str = ""
    run_id: str = ""
    state: str = "waiting"
    epoch: int = 0  # epochs finished
    epochs: int = 0  # epochs requested
    workers: int = 1
    device_seconds: float = 0.0  # spent so far, over all workers and interruptions
    metrics: dict[str, float] = field(default_factory=dict)  # of the last validation
    cause: str = ""
    log: str = ""  # path or URI of error.txt
    host: str = ""
    last_update: float = 0.0
    alive: bool | None = None  # whether its process exists; None if it is on another machine
    factors: dict[str, Any] = field(default_factory=dict)
    run_ids: list[str] = field(default_factory=list)  # finished runs of a search trial with several seeds

    @property
    def epoch_seconds(self) -> float | None:
        """Mean seconds per epoch so far; None before the end of the first."""
        return self.device_seconds / self.workers / self.epoch if self.epoch and self.device_seconds else None

    def seconds_left(self, now: float, default_epoch_seconds: float) -> float:
        """Estimate seconds until the last epoch ends, at the pace so far. An overdue epoch counts as about to end."""
        pace = self.epoch_seconds or default_epoch_seconds
        elapsed = max(now - self.last_update, 0.0) if self.state == "running" else 0.0
        return max((self.epochs - self.epoch) * pace - min(elapsed, pace), 0.0)


def cell_progress(cell: Mapping[str, Any], record: RunRecord, status: Status) -> CellProgress:
    """Return the progress of a cell of a study's record; `status` is that of its run, `record`."""
    config = cell["config"]
    state: str = status.state
    infeasible = cell.get("infeasible", "") if state in ("done", "missing") else ""
    if infeasible:
        state = INFEASIBLE
    elif state == "missing" and not cell.get("missing"):
        state = "pruned" if status.pruned else "waiting"
    return CellProgress(
        name=study_cell_name(cell.get("factors", {}), config.get("seed", 0)),
        run_id=cell["run_id"] or "",
        state=state,
        epoch=status.epoch,
        epochs=config["optim"]["epochs"],
        workers=config["execution"]["workers"],
        device_seconds=status.device_seconds,
        metrics=finite(record.metrics()) if status.state == "done" else {},
        cause=infeasible or status.cause,
        log=log_path(record) if state == "failed" else "",
        last_update=status.updated,
        factors=cell.get("factors", {}),
        **(process_of(record) if state == "running" else {}),
    )


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics among the values that have one."""
    return {name: values[name] for name in METRICS if values.get(name) is not None and math.isfinite(values[name])}


def process_of(record: RunRecord) -> dict[str, Any]:
    """Return `host` and `alive` of the process that a running run belongs to."""
    attempt = record.last_attempt()
    return {"host": attempt.host, "alive": attempt.alive} if attempt else {}


def log_path(record: RunRecord) -> str:
    """Return the path or URI of a failed run's error.txt."""
    return f"{record.store.uri}/{record.folder}/error.txt"


def _finished_trials(done: list[CellProgress], objective: str, n_seeds: int) -> list[CellProgress]:
    """Return one cell per point of which the run of every seed is done, with the mean of the objective."""
    points: dict[str, list[CellProgress]] = {}
    for cell in done:
        points.setdefault(repr(sorted(cell.factors.items())), []).append(cell)
    return [
        replace(
            runs[0],
            name=f"{runs[0].name.rpartition(', seed=')[0]}, mean of {n_seeds} seeds",
            metrics={objective: fmean(run.metrics[objective] for run in runs)},
        )
        for runs in points.values()
        if len(runs) == n_seeds
    ]


@dataclass
class StudyProgress:
    """Progress of a study. The best cell is chosen by `objective`; for deltas, larger is better."""

    title: str
    cells: list[CellProgress]
    objective: str = "abs_rel"
    n_seeds: int = 1  # runs of a search's trial, whose value is their mean
    slots: int = 0  # largest number of cells that ran at the same time

    def start_cell(self, name: str, factors: dict[str, Any], epochs: int) -> CellProgress:
        """Return the cell for a search's next trial: the first without a name, or a new one."""
        cell = next((c for c in self.cells if not c.name), None)
        if cell is None:
            cell = CellProgress()
            self.cells.append(cell)
        cell.name, cell.factors, cell.epochs = name, factors, epochs
        return cell

    def in_state(self, *states: str) -> list[CellProgress]:
        # The copy of the list is for the display's thread, which reads while the main thread appends.
        return [c for c in list(self.cells) if c.state in states]

    @property
    def counts(self) -> dict[str, int]:
        """Number of cells by state, in STATE_ORDER; states without cells are left out."""
        counted = Counter(c.state for c in list(self.cells))
        return {state: counted[state] for state in STATE_ORDER if counted[state]}

    @property
    def epochs(self) -> tuple[int, int]:
        """Epochs finished, and epochs in total; a cell that ended early has none left."""
        done = sum(c.epoch for c in list(self.cells))
        return done, done + sum(max(c.epochs - c.epoch, 0) for c in self.in_state("waiting", "running"))

    @property
    def active(self) -> bool:
        """Whether cells are running, or have been since this process started."""
        return self.slots > 0 or bool(self.in_state("running"))

    @property
    def device_hours(self) -> float:
        return sum(c.device_seconds for c in list(self.cells)) / 3600

    @property
    def best(self) -> CellProgress | None:
        """The finished cell, or trial of a search, with the best objective; None if there is none."""
        done = [c for c in self.in_state("done") if self.objective in c.metrics]
        if self.n_seeds > 1:
            done = _finished_trials(done, self.objective, self.n_seeds)
        sign = -1 if self.objective in HIGHER_IS_BETTER else 1
        return min(done, key=lambda c: sign * c.metrics[self.objective], default=None)

    @property
    def failures(self) -> list[FailureGroup]:
        return group_failures((c.run_id, c.state, c.cause, c.log) for c in self.in_state("failed"))

    def mean_epoch_seconds(self) -> float | None:
        """Return mean seconds per epoch over all finished epochs; None before the first."""
        timed = [c for c in list(self.cells) if c.epoch and c.device_seconds]
        epochs = sum(c.epoch for c in timed)
        return sum(c.device_seconds / c.workers for c in timed) / epochs if epochs else None

    def eta_seconds(self, now: float) -> float | None:
        """Estimate seconds until the last cell ends, if waiting cells take slots as they become free.

        None before the first epoch ends, and if cells wait while none has run.
        """
        pace, running, waiting = self.mean_epoch_seconds(), self.in_state("running"), self.in_state("waiting")
        if not running and not waiting:
            return 0.0
        slots = max(self.slots, len(running))
        if pace is None or slots == 0:
            return None
        free = [c.seconds_left(now, pace) for c in running] + [0.0] * (slots - len(running))
        heapq.heapify(free)
        for cell in waiting:
            heapq.heappush(free, heapq.heappop(free) + cell.seconds_left(now, pace))
        return max(free)

    def stale(self, now: float) -> list[CellProgress]:
        """Return running cells whose process has exited, or that are overdue by the measure of their own epochs."""
        default = self.mean_epoch_seconds() or STALE_S

        def is_stale(cell: CellProgress) -> bool:
            patience = max(STALE_S, STALE_EPOCHS * (cell.epoch_seconds or default))
            return cell.alive is False or now - cell.last_update > patience

        return [c for c in self.in_state("running") if is_stale(c)]
