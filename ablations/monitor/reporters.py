"""Reporters of a launch: a live display on a terminal, plain lines elsewhere, JSON lines for programs."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from ablations.monitor.study_progress import CellProgress, StudyProgress
from ablations.monitor.terminal import ProgressDisplay, ended_line, summary_line
from tiekd.cli.console import make_console
from tiekd.errors import UserError
from tiekd.store.files import json_text

REFRESH_HZ = 2
SUMMARY_EVERY_S = 180.0  # without other output, `LineReporter` prints a summary
PROGRESS_EVENTS = ("started", "epoch")


@dataclass(frozen=True)
class LaunchOptions:
    """Output format of a launch, when it stops, and what and how much it computes at once."""

    as_json: bool
    max_failures: int  # with the same cause; 0: no limit
    quiet: bool = False  # print no text
    max_concurrent: int | None = None  # cells or trials at the same time; None: as many as the resources allow
    take_over: bool = False  # what other launches compute now

    def __post_init__(self) -> None:
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise UserError(f"--max-concurrent: must be at least 1, got {self.max_concurrent}")
        if self.max_failures < 0:
            raise UserError(f"--max-failures: must be at least 0, got {self.max_failures}; 0 is no limit")

    @property
    def console(self) -> Console:
        """Console for people: standard output, or standard error if standard output carries JSON."""
        return make_console(stderr=self.as_json, quiet=self.quiet)


class Reporter:
    """Receives all events of a launch. The methods other than `report` do nothing unless overridden."""

    def report(self, event: str, cell: CellProgress, numbers: dict[str, float]) -> None:
        """Handle an event of a cell: started, epoch, lost, finished, failed or pruned.

        `numbers` are the metrics and losses reported with it. "lost" means that a process of its trial has died; the cell
        waits to be resumed.
        """
        raise NotImplementedError

    def message(self, text: str) -> None:
        """Handle a message about the launch as a whole."""

    def tick(self) -> None:
        """Called about once a second."""

    def close(self) -> None:
        """Called when the launch has ended or was interrupted."""


class LiveReporter(Reporter):
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
            self._console.print(ended_line(cell, self._progress.objective), soft_wrap=True)

    def message(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()


class LineReporter(Reporter):
    """A line for each cell that ends or is lost, and a summary if nothing was printed for SUMMARY_EVERY_S."""

    def __init__(self, progress: StudyProgress, console: Console, clock: Callable[[], float] = time.time):
        self._progress, self._console, self._clock = progress, console, clock
        self._last_output = clock()

    def report(self, event: str, cell: CellProgress, numbers: dict[str, float]) -> None:
        if event not in PROGRESS_EVENTS:
            self._print(ended_line(cell, self._progress.objective))

    def message(self, text: str) -> None:
        self._print(text)

    def tick(self) -> None:
        if self._clock() - self._last_output >= SUMMARY_EVERY_S:
            self._print(summary_line(self._progress, self._clock()))

    def _print(self, line: RenderableType) -> None:
        self._last_output = self._clock()
        self._console.print(line, soft_wrap=True)


class JsonReporter(Reporter):
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

    def message(self, text: str) -> None:
        print_event("note", words=text)


def print_event(event: str, **values: Any) -> None:
    """Print a JSON object on one line of standard output, and flush."""
    print(json_text({"event": event, "time": time.time(), **values}), flush=True)
