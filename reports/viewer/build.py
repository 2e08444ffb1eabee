"""Write all files of a viewer. Existing data files are kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reports.viewer.choose import ShownDataset
from reports.viewer.frames import Advance, predict_frames, target_id, write_images, write_target, write_teacher
from reports.viewer.index import write_index
from reports.viewer.site import Site
from tiekd.cli.console import make_console
from tiekd.store.run_store import RunStore


def build_site(site: Site, datasets: list[ShownDataset], store: RunStore, quiet: bool) -> None:
    """Write the page, the data files and, last, the indexes: until then the page shows an earlier viewer."""
    site.write_page()
    for dataset in datasets:
        for description, write in _steps(site, dataset, store):
            with _progress(f"{dataset.name}: {description}", len(dataset.indices), quiet) as advance:
                write(advance)
    write_index(site, datasets, store)


def _steps(site: Site, dataset: ShownDataset, store: RunStore) -> Iterator[tuple[str, Callable[[Advance], None]]]:
    yield "images and ground truth", partial(write_images, site, dataset)
    for maps in dataset.teachers.values():
        yield "teacher maps", partial(write_teacher, site, dataset, maps)
    targets = {name: run for run in dataset.runs if (name := target_id(run))}
    for name, run in targets.items():
        yield "targets", partial(write_target, site, dataset, name, run)
    for run in dataset.runs:
        yield dataset.names[run.run_id], partial(predict_frames, site, dataset, run, store)


@contextmanager
def _progress(description: str, n_frames: int, quiet: bool) -> Iterator[Advance]:
    """Show a progress bar on a terminal; afterwards, or without a terminal, print one line."""
    console = make_console(stderr=True, quiet=quiet)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(description, total=n_frames)
        yield lambda: bar.advance(task)
    console.print(description, highlight=False, markup=False, soft_wrap=True)
