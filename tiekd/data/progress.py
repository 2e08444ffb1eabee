"""Work on many frames: who does it, and its progress on stderr, which `tiekd --quiet` leaves out."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from tiekd.errors import printable

LINE_EVERY_S = 30.0  # where no terminal shows a bar
T = TypeVar("T")
R = TypeVar("R")


class Pool(Protocol):
    """One process or several ones that divide items, such as blocks of frames."""

    def __call__(self, start: Callable[[], Callable[[T], Iterable[R]]], items: Sequence[T]) -> Iterator[R]:
        """Yield the results of all items, in their order.

        Each process calls `start` once and then, for each of its items, the function that it returned. Both are sent to the
        processes. An error of theirs is raised here.
        """
        ...


def in_this_process(start: Callable[[], Callable[[T], Iterable[R]]], items: Sequence[T]) -> Iterator[R]:
    """A `Pool` of this process alone."""
    if items:
        work = start()
        for item in items:
            yield from work(item)


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Iterate over items and show how many are done, how fast, and the time left.

    On a terminal, a bar that disappears at the end; elsewhere, such as in the log of a job, a line every LINE_EVERY_S seconds.
    The rate is that since the first item, so it does not contain the time in which the work started. `total` is the number of
    items where len() does not give it.
    """
    label = printable(label)  # such as the name of a run in a foreign store
    stream = getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # which takes rich's control characters
    console = Console(file=stream, quiet=logging.getLogger("tiekd").level > logging.WARNING)
    total = len(items) if total is None and isinstance(items, Sized) else total
    columns = (TextColumn(label, markup=False), BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeRemainingColumn())
    started = shown = 0.0
    with Progress(*columns, console=console, transient=True, disable=console.quiet or not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        for done, item in enumerate(items, 1):
            yield item
            bar.advance(task)
            now = time.monotonic()
            if done == 1:
                started = shown = now
            elif not console.is_terminal and now - shown >= LINE_EVERY_S:
                shown, rate = now, (done - 1) / (now - started)
                console.print(_progress_line(label, done, total, rate), highlight=False, markup=False, soft_wrap=True)


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def _progress_line(label: str, done: int, total: int | None, rate: float) -> str:
    """A line such as `depth maps: 120 of 600, 4.1/s, 117 s left`."""
    if total is None:
        return f"{label}: {done}, {rate:.1f}/s"
    return f"{label}: {done} of {total}, {rate:.1f}/s, {(total - done) / rate:.0f} s left"
