"""A launch as people and programs see it: a live display on a terminal, lines elsewhere, JSON lines for logs."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from ablations.monitor.study_progress import CellProgress, StudyProgress
from ablations.monitor.terminal import ProgressDisplay, ended_line, summary_line
from tiekd.cli.console import make_console
from tiekd.errors import UserError

REFRESH_HZ = 2
STATUS_LINE_EVERY_S = 180.0  # so long without news, and a line says how things stand, where there is no terminal
PROGRESS_EVENTS = ("started", "epoch")


@dataclass(frozen=True)
class LaunchOptions:
    """How a launch tells what happens, and when it gives up."""

    as_json: bool
    max_failures: int  # of one cause; 0 is no limit

    def __post_init__(self) -> None:
        if self.max_failures < 0:
            raise UserError(f"--max-failures: must be at least 0, got {self.max_failures}; 0 is no limit")

    @property
    def console(self) -> Console:
        """For people: standard output, unless that is for programs."""
        return make_console(stderr=self.as_json)


class Reporter(Protocol):
    """Hears of everything that happens to a launch's cells."""

    def report(self, event: str, cell: CellProgress, numbers: dict[str, float]) -> None:
        """`event` is started, epoch, lost, finished, failed or pruned; `numbers` are what the cell reported with it.

        A cell that is lost waits to go on: a process of its trial has died.
        """
        ...

    def message(self, words: str) -> None:
        """A line about the launch as a whole."""
        ...

    def tick(self) -> None:
        """Called every second or so, whether anything happened or not."""
        ...

    def close(self) -> None:
        """The launch is over, or was interrupted."""
        ...


class LiveReporter:
    """A live display, and a line above it for each cell that ends or is lost."""

    def __init__(self, progress: StudyProgress, console: Console):
        self._progress, self._console = progress, console
        self._live = Live(
            get_renderable=lambda: ProgressDisplay(progress, time.time()),
            console=console,
            refresh_per_second=REFRESH_HZ,
            transient=True,
        )
        self._live.start()

    def report(self, event: str, cell: CellProgress, numbers: dict[str, float]) -> None:
        if event not in PROGRESS_EVENTS:
            self._console.print(ended_line(cell, self._progress.objective), highlight=False, soft_wrap=True)

    def message(self, words: str) -> None:
        self._console.print(escape(words), highlight=False, soft_wrap=True)

    def tick(self) -> None:
        """The display refreshes itself."""

    def close(self) -> None:
        self._live.stop()


class LineReporter:
    """A line per cell that ends or is lost, and now and then one about all of them."""

    def __init__(self, progress: StudyProgress, console: Console, clock: Callable[[], float] = time.time):
        self._progress, self._console, self._clock = progress, console, clock
        self._told = clock()

    def report(self, event: str, cell: CellProgress, numbers: dict[str, float]) -> None:
        if event not in PROGRESS_EVENTS:
            self._print(ended_line(cell, self._progress.objective))

    def message(self, words: str) -> None:
        self._print(escape(words))

    def tick(self) -> None:
        if self._clock() - self._told >= STATUS_LINE_EVERY_S:
            self._print(escape(summary_line(self._progress, self._clock())))

    def close(self) -> None:
        """Every line is written already."""

    def _print(self, line: str) -> None:
        self._told = self._clock()
        self._console.print(line, highlight=False, soft_wrap=True)


class JsonReporter:
    """One JSON object per event, each on a line of standard output."""

    def __init__(self, progress: StudyProgress):
        self._progress = progress

    def report(self, event: str, cell: CellProgress, numbers: dict[str, float]) -> None:
        progress = self._progress
        print_event(
            event,
            run_id=cell.run_id,
            cell=cell.name,
            state=cell.state,
            epoch=cell.epoch,
            epochs=cell.epochs,
            metrics={name: value for name, value in numbers.items() if math.isfinite(value)},
            cause=cell.cause,
            log=cell.log,
            done=progress.counts.get("done", 0),
            total=len(progress.cells),
            eta_seconds=progress.eta_seconds(time.time()),
            device_hours=progress.device_hours,
        )

    def message(self, words: str) -> None:
        print_event("note", words=words)

    def tick(self) -> None:
        """A log tells what happened."""

    def close(self) -> None:
        """Every line is written already."""


def print_event(event: str, **told: Any) -> None:
    """A JSON object on one line, at once."""
    print(json.dumps({"event": event, "time": time.time(), **told}, allow_nan=False), flush=True)
