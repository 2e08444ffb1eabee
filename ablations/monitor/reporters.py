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

from ablations.monitor.study_progress import Board, Standing
from ablations.monitor.terminal import Display, ended_line, one_line
from tiekd.cli.console import make_console
from tiekd.errors import UserError

REFRESH_HZ = 2
HEARTBEAT_S = 180.0  # so long without news, and a line says how things stand, where there is no terminal
UNDER_WAY = ("started", "epoch")


@dataclass(frozen=True)
class Telling:
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


class View(Protocol):
    """Hears of everything that happens to a launch's cells."""

    def tell(self, event: str, cell: Standing, numbers: dict[str, float]) -> None:
        """`event` is started, epoch, lost, finished, failed or pruned; `numbers` are what the cell reported with it.

        A cell that is lost waits to go on: a process of its trial has died.
        """
        ...

    def note(self, words: str) -> None:
        """A line about the launch as a whole."""
        ...

    def beat(self) -> None:
        """Called every second or so, whether anything happened or not."""
        ...

    def close(self) -> None:
        """The launch is over, or was interrupted."""
        ...


class Screen:
    """A live display, and a line above it for each cell that ends or is lost."""

    def __init__(self, board: Board, console: Console):
        self._board, self._console = board, console
        self._live = Live(
            get_renderable=lambda: Display(board, time.time()), console=console, refresh_per_second=REFRESH_HZ, transient=True
        )
        self._live.start()

    def tell(self, event: str, cell: Standing, numbers: dict[str, float]) -> None:
        if event not in UNDER_WAY:
            self._console.print(ended_line(cell, self._board.objective), highlight=False, soft_wrap=True)

    def note(self, words: str) -> None:
        self._console.print(escape(words), highlight=False, soft_wrap=True)

    def beat(self) -> None:
        """The display refreshes itself."""

    def close(self) -> None:
        self._live.stop()


class Lines:
    """A line per cell that ends or is lost, and now and then one about all of them."""

    def __init__(self, board: Board, console: Console, clock: Callable[[], float] = time.time):
        self._board, self._console, self._clock = board, console, clock
        self._told = clock()

    def tell(self, event: str, cell: Standing, numbers: dict[str, float]) -> None:
        if event not in UNDER_WAY:
            self._print(ended_line(cell, self._board.objective))

    def note(self, words: str) -> None:
        self._print(escape(words))

    def beat(self) -> None:
        if self._clock() - self._told >= HEARTBEAT_S:
            self._print(escape(one_line(self._board, self._clock())))

    def close(self) -> None:
        """Every line is written already."""

    def _print(self, line: str) -> None:
        self._told = self._clock()
        self._console.print(line, highlight=False, soft_wrap=True)


class JsonLines:
    """One JSON object per event, each on a line of standard output."""

    def __init__(self, board: Board):
        self._board = board

    def tell(self, event: str, cell: Standing, numbers: dict[str, float]) -> None:
        board = self._board
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
            done=board.counts.get("done", 0),
            total=len(board.cells),
            eta_seconds=board.eta_seconds(time.time()),
            device_hours=board.device_hours,
        )

    def note(self, words: str) -> None:
        print_event("note", words=words)

    def beat(self) -> None:
        """A log tells what happened."""

    def close(self) -> None:
        """Every line is written already."""


def print_event(event: str, **told: Any) -> None:
    """A JSON object on one line, at once."""
    print(json.dumps({"event": event, "time": time.time(), **told}, allow_nan=False), flush=True)
