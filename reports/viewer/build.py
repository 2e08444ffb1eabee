"""Write all files of a viewer. Existing data files are kept."""

from collections.abc import Callable, Iterator
from functools import partial

from reports.viewer.choose import ShownDataset
from reports.viewer.frames import predict_frames, target_id, write_images, write_target, write_teacher
from reports.viewer.index import write_index
from reports.viewer.site import Site
from tiekd.errors import DivergedError, UserError
from tiekd.store.run_store import RunStore


def build_site(site: Site, datasets: list[ShownDataset], store: RunStore) -> list[str]:
    """Write the data files, the indexes and, last, the page: until then there is none, or one that shows an earlier viewer.

    Runs whose weights are damaged or predict depth that is not finite are removed from `datasets`; returns one line for each.
    """
    left_out = []
    for dataset in datasets:
        for description, write in _steps(site, dataset):
            write(f"{dataset.name}: {description}")
        names = dataset.names
        for run in list(dataset.runs):
            try:
                predict_frames(site, dataset, run, store, f"{dataset.name}: {names[run.run_id]}")
            except (UserError, DivergedError) as error:
                left_out.append(f"run {run.run_id}: {error}")
                dataset.runs.remove(run)
    datasets[:] = [dataset for dataset in datasets if dataset.runs]
    if not datasets:
        raise UserError(f"store {store.uri}: nothing to show: {left_out[0]}")
    write_index(site, datasets, store)
    site.write_page()
    return left_out


def _steps(site: Site, dataset: ShownDataset) -> Iterator[tuple[str, Callable[[str], None]]]:
    yield "images and ground truth", partial(write_images, site, dataset)
    for maps in dataset.teachers.values():
        yield "teacher maps", partial(write_teacher, site, dataset, maps)
    targets = {name: run for run in dataset.runs if (name := target_id(run))}
    for name, run in targets.items():
        yield "targets", partial(write_target, site, dataset, name, run)
