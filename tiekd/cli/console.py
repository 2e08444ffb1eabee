"""Output for people: streams, consoles, the progress of one run, its result.

Results go to stdout, progress to stderr; `tiekd --quiet` shows no progress. Texts of others cannot steer the terminal, and a
stderr that is lost does not fail the work.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from tiekd.errors import printable
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunRecord

REFRESH_S = 0.2


class PrintableStream:
    """A stream that makes texts printable; see `terminal` for the stream below, to which rich writes its colors."""

    def __init__(self, stream: Any):
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


class OptionalStream:
    """A stream that loses what it cannot write, such as progress on a full disk or for a reader that has gone."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def terminal(stream: Any) -> Any:
    """The stream itself, below those that rich and this module put around it under rich's name for it."""
    while hasattr(stream, "rich_proxied_file"):
        stream = stream.rich_proxied_file
    return stream


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """Wrap stdout and stderr. Either is None where the shell has closed it."""
    out = sys.stdout and PrintableStream(sys.stdout)
    err = sys.stderr and PrintableStream(OptionalStream(sys.stderr))
    with contextlib.redirect_stdout(cast(TextIO, out)), contextlib.redirect_stderr(cast(TextIO, err)):
        yield


class PlainConsole(Console):
    """A console whose texts are plain: brackets are not markup, and control characters are shown instead of obeyed."""

    def __init__(self, file: TextIO, **options: Any):
        super().__init__(file=file, markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def make_console(stderr: bool = False, quiet: bool = False) -> Console:
    """A console that does not cut tables when the output goes to a file or a pipe."""
    quiet = quiet or (stderr and logging.getLogger("tiekd").level > logging.WARNING)
    file = terminal(sys.stderr if stderr else sys.stdout)
    console = PlainConsole(file, quiet=quiet)
    return console if console.is_terminal else PlainConsole(file, quiet=quiet, width=200)


class RunDisplay:
    """Progress of one run: a bar over the steps on a terminal, and a line per epoch."""

    def __init__(self, quiet: bool = False):
        self._console = make_console(stderr=True, quiet=quiet)
        columns = (TextColumn("step"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(
            *columns, console=self._console, transient=True, disable=self._console.quiet or not self._console.is_terminal
        )
        self._task = self._bar.add_task("", total=None)
        self._shown = 0.0

    def __enter__(self) -> "RunDisplay":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, step: int = 0, steps: int = 0, epoch: dict[str, Any] | None = None) -> None:
        if epoch is not None:
            self._console.print(_line(epoch))
        elif time.monotonic() - self._shown > REFRESH_S:
            self._shown = time.monotonic()
            self._bar.update(self._task, completed=step, total=steps)


def _line(epoch: dict[str, Any]) -> str:
    terms = [f"{name.removeprefix('part_')} {value:.4f}" for name, value in epoch.items() if name.startswith("part_")]
    columns = [f"epoch {epoch['epoch']:3d}", f"loss {epoch['loss']:.4f}", *(terms if len(terms) > 1 else [])]
    if "abs_rel" in epoch:
        columns += [f"abs_rel {epoch['abs_rel']:.4f}", f"rmse {epoch['rmse']:.3f}"]
    return "  ".join([*columns, f"{epoch['seconds']:.1f} s"])


def show_run(record: RunRecord, status: Status) -> None:
    """Print the outcome of a run: its metrics, or the cause of its failure."""
    console = make_console()
    outcome = f"{status.state}, {status.cause}" if status.cause else status.state
    console.print(f"run {record.run_id}: {outcome}")
    summary = record.summary() if status.state == "done" else None
    if summary:
        title = f"protocol {summary.get('protocol', '')}, {summary.get('n_images', 0)} images"
        show_metrics(console, summary["metrics"], title)
        if "note" in summary:
            console.print(summary["note"], soft_wrap=True)
    console.print(f"{record.store.uri}/{record.folder}", soft_wrap=True)


def show_metrics(console: Console, metrics: Mapping[str, float | None], title: str) -> None:
    """Print one row of metrics under a title."""
    table = Table(*metrics, box=None, pad_edge=False, title=title, title_justify="left")
    table.add_row(*map(_number, metrics.values()))
    console.print(table)


def show_protocols(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    """Print the number of images, the metrics and the median ratio to ground truth of several protocols, one row for each."""
    table = Table("protocol", "images", *found[0]["metrics"], "median ratio", box=None, pad_edge=False)
    for each in found:
        numbers = map(_number, each["metrics"].values())
        table.add_row(each["protocol"], str(each["n_images"]), *numbers, f"{each['median_ratio']:.3f}")
    console.print(table)


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}"
