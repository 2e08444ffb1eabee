"""A study's progress as text: the parts of the live display, and single lines."""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ablations.monitor.failure_groups import FailureGroup
from ablations.monitor.study_progress import CellProgress, StudyProgress
from ablations.planning.constraints import INFEASIBLE

COLORS = {
    "done": "green",
    "running": "cyan",
    "waiting": "yellow",
    "pruned": "yellow",
    INFEASIBLE: "yellow",
    "failed": "red",
    "diverged": "red",
    "constant": "red",
}
RESERVED_LINES = 8  # lines of the terminal above and below the running cells
FRESH_S = 60.0  # the age of a cell's last update is shown from here on
GAP = "  "
MIN_BAR_WIDTH = 10


class ProgressDisplay:
    """A renderable of a study's progress at the time `now`, fitted to the console's width and height."""

    def __init__(self, progress: StudyProgress, now: float):
        self._progress, self._now = progress, now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _headline(self._progress, options.max_width)
        if self._progress.active:
            yield self._bar(options.max_width)
        running, shown = self._progress.in_state("running"), max(console.height - RESERVED_LINES, 1)
        yield from running_lines(self._progress, running[:shown], self._now)
        if len(running) > shown:
            yield Text(f"  and {len(running) - shown} more", style="dim")

    def _bar(self, width: int) -> RenderableType:
        finished, total = self._progress.epochs
        totals = Text(_totals(self._progress, self._now), no_wrap=True, overflow="ellipsis")
        if width < len(totals) + MIN_BAR_WIDTH:
            return totals
        row = Table.grid(padding=(0, 2), expand=True)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        row.add_row(ProgressBar(total=max(total, 1), completed=finished), totals)
        return row


def _headline(progress: StudyProgress, width: int) -> Iterator[Text]:
    """Yield counts and the best cell so far, on lines that break between them only."""
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
    """Yield a line per cell, cut off at the right: epochs, last objective, name, host, and whether it may be dead."""
    several_hosts, stale = len({c.host for c in cells}) > 1, progress.stale(now)
    widest = max((len(f"{c.epoch}/{c.epochs}") for c in cells), default=0)
    for c in cells:
        value = f"{progress.objective} {c.metrics[progress.objective]:.4f}" if progress.objective in c.metrics else ""
        words = [f"{f'{c.epoch}/{c.epochs}':>{widest}}", f"{value:{len(progress.objective) + 7}}", c.name]
        if several_hosts:
            words.append(f"on {c.host}")
        if now - c.last_update >= FRESH_S:
            words.append(f"last update {duration(now - c.last_update)} ago")
        if c in stale:
            words.append("process exited" if c.alive is False else "no heartbeat")
        yield Text(GAP + GAP.join(words), style="red" if c in stale else "", no_wrap=True, overflow="ellipsis")


def ended_line(cell: CellProgress, objective: str) -> Text:
    """Return one line about a cell that has ended or has lost its process."""
    has_value = objective in cell.metrics and cell.state not in ("failed", "waiting")
    value = f"{objective} {cell.metrics[objective]:.4f}" if has_value else ""
    words = [cell.name, value, cell.cause, f"log {cell.log}" if cell.log else ""]
    return Text.assemble((f"{cell.state:8}", COLORS[cell.state]), *(f"{GAP}{word}" for word in words if word))


def summary_line(progress: StudyProgress, now: float) -> str:
    """Return the progress in one line."""
    counts = ", ".join(f"{count} {state}" for state, count in progress.counts.items())
    return f"{counts}; {_totals(progress, now)}"


def failure_lines(failures: list[FailureGroup]) -> Iterator[Text]:
    """Yield two lines per group: number of runs and cause, then an example and its log."""
    for failure in failures:
        yield Text.assemble((f"{len(failure.runs)} {failure.state}", "red"), f": {failure.cause}")
        yield Text(f"  for example {failure.runs[0]}{f', log {failure.log}' if failure.log else ''}")


def _totals(progress: StudyProgress, now: float) -> str:
    finished, total = progress.epochs
    eta = duration(progress.eta_seconds(now))
    return f"{finished}/{total} epochs  left {eta}  {progress.device_hours:.2f} device-hours"


def duration(seconds: float | None) -> str:
    """Format as hours, minutes and seconds, such as 1:02:03; "unknown" for None."""
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
