"""The viewer's files, in the order in which they are made; what is there already is not made again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reports.viewer.choose import Shown
from reports.viewer.frames import target_id, write_frames, write_target, write_teacher
from reports.viewer.index import write_index
from reports.viewer.site import Site
from reports.viewer.students import write_student
from tiekd.cli.console import make_console
from tiekd.distill.runtime import choose_device
from tiekd.store.run_store import RunStore

Job = tuple[str, Callable[[Callable[[], None]], None]]  # what it is called, and the work, which tells of each frame


def build_site(site: Site, shown: list[Shown], store: RunStore, quiet: bool) -> None:
    """Write everything. The indices come last, so that a page shows what is whole: an earlier viewer, or this one."""
    site.write_page()
    for one in shown:
        for name, work in _jobs(site, one, store):
            with _progress(f"{one.name}: {name}", len(one.indices), quiet) as advance:
                work(advance)
    write_index(site, shown, store)


def _jobs(site: Site, shown: Shown, store: RunStore) -> Iterator[Job]:
    yield "images and ground truth", partial(write_frames, site, shown)
    for maps in shown.teachers.values():
        yield "teacher's maps", partial(write_teacher, site, shown, maps)
    targets = {name: method for method in shown.methods if (name := target_id(method))}
    for method in targets.values():
        yield "teacher's target", partial(write_target, site, shown, method)
    for method in shown.methods:
        device = choose_device(method.config.execution.device)
        yield shown.names[method.run_id], partial(write_student, site, shown, method, store, device)


@contextmanager
def _progress(name: str, frames: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar over the frames on a terminal, which leaves a line; without a terminal the line alone."""
    console = make_console(stderr=True, quiet=quiet)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(name, total=frames)
        yield lambda: bar.advance(task)
    console.print(name, highlight=False, markup=False, soft_wrap=True)
