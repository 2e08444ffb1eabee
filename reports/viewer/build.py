"""Write all files of a viewer. Existing data files are kept."""

from collections.abc import Callable, Iterator
from functools import partial

from reports.viewer.choose import ShownDataset
from reports.viewer.frames import predict_frames, target_id, write_images, write_target, write_teacher
from reports.viewer.index import write_index
from reports.viewer.site import Site
from tiekd.store.run_store import RunStore


def build_site(site: Site, datasets: list[ShownDataset], store: RunStore) -> None:
    """Write the page, the data files and, last, the indexes: until then the page shows an earlier viewer."""
    site.write_page()
    for dataset in datasets:
        for description, write in _steps(site, dataset, store):
            write(f"{dataset.name}: {description}")
    write_index(site, datasets, store)


def _steps(site: Site, dataset: ShownDataset, store: RunStore) -> Iterator[tuple[str, Callable[[str], None]]]:
    yield "images and ground truth", partial(write_images, site, dataset)
    for maps in dataset.teachers.values():
        yield "teacher maps", partial(write_teacher, site, dataset, maps)
    targets = {name: run for run in dataset.runs if (name := target_id(run))}
    for name, run in targets.items():
        yield "targets", partial(write_target, site, dataset, name, run)
    for run in dataset.runs:
        yield dataset.names[run.run_id], partial(predict_frames, site, dataset, run, store)
