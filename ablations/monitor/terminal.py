"""A board as text: the live display's parts, and single lines."""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ablations.monitor.failure_groups import Failure
from ablations.monitor.study_progress import Board, Standing

COLOURS = {
    "done": "green",
    "running": "cyan",
    "waiting": "yellow",
    "pruned": "yellow",
    "failed": "red",
    "diverged": "red",
    "constant": "red",
}
AROUND = 8  # lines of a terminal that are left to what stands above and below the running cells
HEARD_S = 60.0  # a cell that was heard of since needs no word about it
GAP = "  "
SHORTEST_BAR = 10


class Display:
    """A board as it stands `now`, in the width and height that there is."""

    def __init__(self, board: Board, now: float):
        self._board, self._now = board, now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _headline(self._board, options.max_width)
        if self._board.at_work:
            yield self._bar(options.max_width)
        running, room = self._board.of("running"), max(console.height - AROUND, 1)
        yield from running_lines(self._board, running[:room], self._now)
        if len(running) > room:
            yield Text(f"  and {len(running) - room} more", style="dim")

    def _bar(self, width: int) -> RenderableType:
        finished, total = self._board.epochs
        told = Text(_progress(self._board, self._now), no_wrap=True, overflow="ellipsis")
        if width < len(told) + SHORTEST_BAR:
            return told
        row = Table.grid(padding=(0, 2), expand=True)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        row.add_row(ProgressBar(total=max(total, 1), completed=finished), told)
        return row


def _headline(board: Board, width: int) -> Iterator[Text]:
    """The counts and the best so far; lines break between them only."""
    pieces = [Text(board.title, style="bold"), Text(f"{len(board.cells)} cells")]
    pieces += [Text(f"{count} {state}", style=COLOURS.get(state, "")) for state, count in board.counts.items()]
    if best := board.best:
        pieces.append(Text(f"best {board.objective} {best.metrics[board.objective]:.4f}: {best.name}"))
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if lines[-1].cell_len + len(GAP) + piece.cell_len <= width:
            lines[-1] = Text(GAP).join([lines[-1], piece])
        else:
            lines.append(piece)
    for line in lines:
        line.truncate(width, overflow="ellipsis")
        yield line


def running_lines(board: Board, cells: list[Standing], now: float) -> Iterator[Text]:
    """A line per cell, cut at the right: epochs, the last objective, name, where it runs, and whether it may be dead."""
    several, silent = len({c.host for c in cells}) > 1, board.silent(now)
    widest = max((len(f"{c.epoch}/{c.epochs}") for c in cells), default=0)
    for c in cells:
        value = f"{board.objective} {c.metrics[board.objective]:.4f}" if board.objective in c.metrics else ""
        words = [f"{f'{c.epoch}/{c.epochs}':>{widest}}", f"{value:{len(board.objective) + 7}}", c.name]
        if several:
            words.append(f"on {c.host}")
        if now - c.heard >= HEARD_S:
            words.append(f"last heard of {duration(now - c.heard)} ago")
        if c in silent:
            words.append("its process is gone" if c.alive is False else "perhaps dead")
        yield Text(GAP + GAP.join(words), style="red" if c in silent else "", no_wrap=True, overflow="ellipsis")


def ended_line(cell: Standing, objective: str) -> str:
    """One line, in rich's markup, of a cell that has ended, or waits since it lost its process."""
    counts = objective in cell.metrics and cell.state not in ("failed", "waiting")
    value = f"{objective} {cell.metrics[objective]:.4f}" if counts else ""
    log = f"log {escape(cell.log)}" if cell.log else ""
    words = [f"[{COLOURS[cell.state]}]{cell.state:8}[/]", escape(cell.name), value, escape(cell.cause), log]
    return "  ".join(word for word in words if word)


def one_line(board: Board, now: float) -> str:
    """The board in one line."""
    counts = ", ".join(f"{count} {state}" for state, count in board.counts.items())
    return f"{counts}; {_progress(board, now)}"


def failure_lines(failures: list[Failure]) -> Iterator[Text]:
    """Causes, how many runs each has, and where the first one's log lies."""
    for failure in failures:
        yield Text.assemble((f"{len(failure.runs)} {failure.state}", "red"), f": {failure.cause}")
        yield Text(f"  for example {failure.runs[0]}{f', log {failure.log}' if failure.log else ''}")


def _progress(board: Board, now: float) -> str:
    finished, total = board.epochs
    return f"{finished}/{total} epochs  left {duration(board.eta_seconds(now))}  {board.device_hours:.2f} device-hours"


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds, such as 1:02:03; "unknown" for None."""
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
