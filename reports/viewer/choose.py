"""Which finished runs of a store the viewer shows, grouped by the data set they were tested on."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from reports.loading.collect import collect
from reports.tables.cells import TableCell
from reports.tables.formatting import format_value
from reports.tables.table import Table, build_tables
from tiekd.config import RunConfig
from tiekd.data import FrameSource, open_frames
from tiekd.data.frame_source import evenly_spaced
from tiekd.data.inputs import open_teacher
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.errors import UserError
from tiekd.inference.protocols import check_protocol
from tiekd.store.find_weights import WEIGHTS_FILE
from tiekd.store.run_store import RunStore


@dataclass(frozen=True)
class ShownRun:
    """A run and the table cell that it represents."""

    run_id: str
    config: RunConfig
    table: Table
    cell: TableCell
    maps: TeacherMaps | None  # of the teacher it was trained on

    @property
    def has_dpm(self) -> bool:
        """Whether it predicts distributions over fixed bins; the bins of AdaBins differ between images."""
        return self.config.student.head == "dpm"

    @property
    def seeds(self) -> dict[str, int]:
        """Run id -> seed of every finished run of its cell."""
        return {run_id: seed for seed, run_id in sorted(self.cell.done_ids.items())}


@dataclass
class ShownDataset:
    """The test frames of a data set that are shown, and the runs tested on them."""

    id: str
    name: str
    source: FrameSource
    indices: list[int]  # of the shown frames in `source`
    runs: list[ShownRun] = field(default_factory=list)

    @property
    def config(self) -> RunConfig:
        """The config of its first run; all its runs agree on the frames."""
        return self.runs[0].config

    @cached_property
    def names(self) -> dict[str, str]:
        """Run id -> name: method, loss and whatever distinguishes the run from the others."""
        varying = [label for label in ("backbone", "teacher") if len({run.cell.labels[label] for run in self.runs} - {""}) > 1]
        names = {run.run_id: _name(run, varying) for run in self.runs}
        for suffix in (lambda run: run.table.study.name, lambda run: f"seed {run.config.seed}"):
            repeated = {name for name, n in Counter(names.values()).items() if n > 1}
            names |= {run.run_id: f"{names[run.run_id]}, {suffix(run)}" for run in self.runs if names[run.run_id] in repeated}
        return names

    @property
    def teachers(self) -> dict[str, TeacherMaps]:
        """Digest -> maps of every teacher."""
        return {run.maps.digest(): run.maps for run in self.runs if run.maps}


def _name(run: ShownRun, varying: list[str]) -> str:
    table, labels = run.table, run.cell.labels
    values = {path: table.value(run.cell, path) for path in table.varying}
    levels = [f"{path.rpartition('.')[2]}={format_value(value)}" for path, value in values.items() if value is not None]
    return ", ".join([" · ".join(labels[name] for name in ("method", "loss", *varying) if labels[name]), *levels])


def choose_datasets(
    store: RunStore, study: str | None, prefixes: Sequence[str], n_images: int | None
) -> tuple[list[ShownDataset], list[str]]:
    """Choose what to show: the first finished seed of each cell, or the runs whose ids start with one of `prefixes`.

    n_images: show at most this many test frames per data set, evenly spaced. Returns the data sets and one line for everything
    that is left out because its weights, frames or maps are missing. Raises UserError if a name is not in the store, or if
    nothing can be shown.
    """
    datasets: dict[str, ShownDataset] = {}
    left_out: dict[str, None] = {}
    seen: set[str] = set()
    for table, cell, run_id in _candidates(store, study, prefixes):
        if run_id in seen:
            continue
        seen.add(run_id)
        try:
            config = _config(store, run_id)
            dataset = _dataset(datasets, config, n_images)
        except UserError as error:
            left_out[str(error)] = None
            continue
        maps, problem = _teacher_maps(config, dataset, store)
        if problem:
            left_out[problem] = None
        dataset.runs.append(ShownRun(run_id, config, table, cell, maps))
    if not datasets:
        reason = next(iter(left_out), "it has no finished runs")
        raise UserError(f"store {store.uri}: nothing to show: {reason}")
    repeated = {name for name, n in Counter(dataset.name for dataset in datasets.values()).items() if n > 1}
    for dataset in datasets.values():
        if dataset.name in repeated:
            dataset.name = f"{dataset.name} {dataset.id[:6]}"
    return list(datasets.values()), list(left_out)


def _candidates(store: RunStore, study: str | None, prefixes: Sequence[str]) -> Iterator[tuple[Table, TableCell, str]]:
    """Each cell with its first finished run, or with every finished run that matches a prefix."""
    unused = set(prefixes)
    for table in build_tables(collect(store, [study] if study else [])):
        for cell in table.cells:
            finished = [run_id for _, run_id in sorted(cell.done_ids.items())]
            for run_id in finished if prefixes else finished[:1]:
                matching = [prefix for prefix in prefixes if run_id.startswith(prefix)]
                unused.difference_update(matching)
                if matching or not prefixes:
                    yield table, cell, run_id
    if unused:
        raise UserError(f"--runs {min(unused)}: store {store.uri} has no finished run whose id starts with it")


def _config(store: RunStore, run_id: str) -> RunConfig:
    """Read the config of a run. Raises UserError if its config or its weights are missing."""
    config = store.run(run_id).config()
    if config is None or WEIGHTS_FILE not in store.list_files(f"runs/{run_id}"):
        raise UserError(f"run {run_id} has no {'config.yaml' if config is None else WEIGHTS_FILE}")
    return config


def _dataset(datasets: dict[str, ShownDataset], config: RunConfig, n_images: int | None) -> ShownDataset:
    """Find the data set of a run in `datasets`, or check it and add it."""
    source = open_frames(config.data, "test")
    for dataset in datasets.values():
        if dataset.source is source:
            return dataset
    source.check()
    key = source.digest()[:12]
    if key not in datasets:
        check_protocol(config)
        n_frames = len(source)
        n_shown = n_frames if n_images is None else min(n_images, n_frames)
        indices = [round(i * (n_frames - 1) / max(n_shown - 1, 1)) for i in range(n_shown)]
        datasets[key] = ShownDataset(key, config.data.dataset, source, indices)
    return datasets[key]


def _teacher_maps(config: RunConfig, dataset: ShownDataset, store: RunStore) -> tuple[TeacherMaps | None, str]:
    """Open the maps a student was trained on. Returns None and the reason if they have no or wrong maps of the shown frames."""
    if config.teacher is None or not config.reads_teacher:
        return None, ""
    keys = dataset.source.keys
    try:
        maps = open_teacher(config, store)
        indices = [index for index in dataset.indices if keys[index] in maps.manifest.frames]
        if not indices:
            raise UserError(f"teacher maps {maps.folder}: no maps of the test frames")
        maps.check([keys[index] for index in indices])
        for position in evenly_spaced(len(indices)):
            maps.check_size(keys[indices[position]], dataset.source.size(indices[position]))
    except UserError as error:
        return None, str(error)
    return maps, ""
