"""A board as text: the live display's parts, and single lines."""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ablations.monitor.failure_groups import FailureGroup
from ablations.monitor.study_progress import CellProgress, StudyProgress

COLORS = {
    "done": "green",
    "running": "cyan",
    "waiting": "yellow",
    "pruned": "yellow",
    "failed": "red",
    "diverged": "red",
    "constant": "red",
}
RESERVED_LINES = 8  # lines of a terminal that are left to what stands above and below the running cells
FRESH_S = 60.0  # a cell that was heard of since needs no word about it
GAP = "  "
SHORTEST_BAR = 10


class ProgressDisplay:
    """A board as it stands `now`, in the width and height that there is."""

    def __init__(self, progress: StudyProgress, now: float):
        self._progress, self._now = progress, now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _headline(self._progress, options.max_width)
        if self._progress.active:
            yield self._bar(options.max_width)
        running, room = self._progress.in_state("running"), max(console.height - RESERVED_LINES, 1)
        yield from running_lines(self._progress, running[:room], self._now)
        if len(running) > room:
            yield Text(f"  and {len(running) - room} more", style="dim")

    def _bar(self, width: int) -> RenderableType:
        finished, total = self._progress.epochs
        told = Text(_totals(self._progress, self._now), no_wrap=True, overflow="ellipsis")
        if width < len(told) + SHORTEST_BAR:
            return told
        row = Table.grid(padding=(0, 2), expand=True)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        row.add_row(ProgressBar(total=max(total, 1), completed=finished), told)
        return row


def _headline(progress: StudyProgress, width: int) -> Iterator[Text]:
    """The counts and the best so far; lines break between them only."""
    pieces = [Text(progress.title, style="bold"), Text(f"{len(progress.cells)} cells")]
    pieces += [Text(f"{count} {state}", style=COLORS.get(state, "")) for state, count in progress.counts.items()]
    if best := progress.best:
        pieces.append(Text(f"best {progress.objective} {best.metrics[progress.objective]:.4f}: {best.name}"))
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if lines[-1].cell_len + len(GAP) + piece.cell_len <= width:
            lines[-1] = Text(GAP).join([lines[-1], piece])
        else:
            lines.append(piece)
    for line in lines:
        line.truncate(width, overflow="ellipsis")
        yield line


def running_lines(progress: StudyProgress, cells: list[CellProgress], now: float) -> Iterator[Text]:
    """A line per cell, cut at the right: epochs, the last objective, name, where it runs, and whether it may be dead."""
    several, silent = len({c.host for c in cells}) > 1, progress.stale(now)
    widest = max((len(f"{c.epoch}/{c.epochs}") for c in cells), default=0)
    for c in cells:
        value = f"{progress.objective} {c.metrics[progress.objective]:.4f}" if progress.objective in c.metrics else ""
        words = [f"{f'{c.epoch}/{c.epochs}':>{widest}}", f"{value:{len(progress.objective) + 7}}", c.name]
        if several:
            words.append(f"on {c.host}")
        if now - c.last_update >= FRESH_S:
            words.append(f"last heard of {duration(now - c.last_update)} ago")
        if c in silent:
            words.append("its process is gone" if c.alive is False else "perhaps dead")
        yield Text(GAP + GAP.join(words), style="red" if c in silent else "", no_wrap=True, overflow="ellipsis")


def ended_line(cell: CellProgress, objective: str) -> str:
    """One line, in rich's markup, of a cell that has ended, or waits since it lost its process."""
    counts = objective in cell.metrics and cell.state not in ("failed", "waiting")
    value = f"{objective} {cell.metrics[objective]:.4f}" if counts else ""
    log = f"log {escape(cell.log)}" if cell.log else ""
    words = [f"[{COLORS[cell.state]}]{cell.state:8}[/]", escape(cell.name), value, escape(cell.cause), log]
    return "  ".join(word for word in words if word)


def summary_line(progress: StudyProgress, now: float) -> str:
    """The board in one line."""
    counts = ", ".join(f"{count} {state}" for state, count in progress.counts.items())
    return f"{counts}; {_totals(progress, now)}"


def failure_lines(failures: list[FailureGroup]) -> Iterator[Text]:
    """Causes, how many runs each has, and where the first one's log lies."""
    for failure in failures:
        yield Text.assemble((f"{len(failure.runs)} {failure.state}", "red"), f": {failure.cause}")
        yield Text(f"  for example {failure.runs[0]}{f', log {failure.log}' if failure.log else ''}")


def _totals(progress: StudyProgress, now: float) -> str:
    finished, total = progress.epochs
    return f"{finished}/{total} epochs  left {duration(progress.eta_seconds(now))}  {progress.device_hours:.2f} device-hours"


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds, such as 1:02:03; "unknown" for None."""
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
