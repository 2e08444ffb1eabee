"""Which results a viewer shows: of each cell of the store one run, and the data sets that they were tested on."""

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
from tiekd.data.frame_source import spread
from tiekd.data.teacher_maps import TeacherMaps, open_maps
from tiekd.errors import UserError
from tiekd.inference.protocols import check_protocol
from tiekd.store.find_weights import WEIGHTS_FILE
from tiekd.store.run_store import RunStore


@dataclass(frozen=True)
class Method:
    """A cell, by the run that stands for it."""

    run_id: str
    config: RunConfig
    table: Table
    cell: TableCell
    maps: TeacherMaps | None  # of the teacher that it was trained on

    @property
    def runs(self) -> dict[str, int]:
        """Of all its seeds that are done: run id -> seed."""
        return {run_id: seed for seed, run_id in sorted(self.cell.done_ids.items())}


@dataclass
class Shown:
    """One data set's test frames, and what is shown of them."""

    id: str
    name: str
    source: FrameSource
    indices: list[int]  # of the frames that are shown
    methods: list[Method] = field(default_factory=list)

    @property
    def config(self) -> RunConfig:
        """Of one of its runs: they agree on the frames."""
        return self.methods[0].config

    @cached_property
    def names(self) -> dict[str, str]:
        """What its results are called, by run id: method and loss, and what else tells one from another."""
        telling = [label for label in ("backbone", "teacher") if len({m.cell.labels[label] for m in self.methods} - {""}) > 1]
        names = {m.run_id: _name(m, telling) for m in self.methods}
        for more in (lambda m: m.table.study.name, lambda m: f"seed {m.config.seed}"):
            repeated = {name for name, n in Counter(names.values()).items() if n > 1}
            names |= {m.run_id: f"{names[m.run_id]}, {more(m)}" for m in self.methods if names[m.run_id] in repeated}
        return names

    @property
    def teachers(self) -> dict[str, TeacherMaps]:
        """The teachers' maps by their digest."""
        return {m.maps.digest(): m.maps for m in self.methods if m.maps}


def _name(method: Method, telling: list[str]) -> str:
    table, labels = method.table, method.cell.labels
    values = {path: table.value(method.cell, path) for path in table.varying}
    levels = [f"{path.rpartition('.')[2]}={format_value(value)}" for path, value in values.items() if value is not None]
    return ", ".join([" · ".join(labels[name] for name in ("method", "loss", *telling) if labels[name]), *levels])


def choose(store: RunStore, study: str | None, runs: Sequence[str], images: int | None) -> tuple[list[Shown], list[str]]:
    """What is shown, and a line on each thing that is left out, since it is not on this machine.

    Raises UserError for names that are not in the store, and where nothing can be shown.
    """
    found: dict[str, Shown] = {}
    left_out: dict[str, None] = {}
    taken: set[str] = set()
    for table, cell, run_id in _cells(store, study, runs):
        if run_id in taken:
            continue
        taken.add(run_id)
        try:
            config = _readable(store, run_id)
            shown = _of_frames(found, config, images)
        except UserError as error:
            left_out[str(error)] = None
            continue
        maps, problem = _maps(config, shown)
        if problem:
            left_out[problem] = None
        shown.methods.append(Method(run_id, config, table, cell, maps))
    if not found:
        why = next(iter(left_out), "it holds no finished runs")
        raise UserError(f"store {store.uri}: nothing to show: {why}")
    _tell_apart(list(found.values()))
    return list(found.values()), list(left_out)


def _tell_apart(shown: list[Shown]) -> None:
    """Data sets of one name are those of other frames: the beginning of their digest tells which."""
    counts = Counter(one.name for one in shown)
    for one in shown:
        if counts[one.name] > 1:
            one.name = f"{one.name} {one.id[:6]}"


def _cells(store: RunStore, study: str | None, runs: Sequence[str]) -> Iterator[tuple[Table, TableCell, str]]:
    """Each cell with the finished run that stands for it: its first seed, or each that `runs` name by how their ids begin."""
    unused = set(runs)
    for table in build_tables(collect(store, study)):
        for cell in table.cells:
            done = [run_id for _, run_id in sorted(cell.done_ids.items())]
            for run_id in done if runs else done[:1]:
                named = [name for name in runs if run_id.startswith(name)]
                unused.difference_update(named)
                if named or not runs:
                    yield table, cell, run_id
    if unused:
        raise UserError(f"--runs {sorted(unused)[0]}: store {store.uri} has no finished run whose id begins so")


def _readable(store: RunStore, run_id: str) -> RunConfig:
    """The config of a run whose weights are there."""
    config, (filesystem, root) = store.run(run_id).config(), store.filesystem
    if config is None or not filesystem.get_file_info(f"{root}/runs/{run_id}/{WEIGHTS_FILE}").is_file:
        raise UserError(f"run {run_id} has no {'config.yaml' if config is None else WEIGHTS_FILE}")
    return config


def _of_frames(found: dict[str, Shown], config: RunConfig, images: int | None) -> Shown:
    """The data set of a run, checked when it is met first."""
    source = open_frames(config.data, "test")
    key = source.digest()[:12]
    if key not in found:
        source.check()
        check_protocol(config)
        n_frames = len(source)
        indices = list(range(n_frames)) if images is None else [round(i) for i in _evenly(n_frames, images)]
        found[key] = Shown(key, config.data.dataset, source, indices)
    return found[key]


def _evenly(n_frames: int, images: int) -> list[float]:
    images = min(images, n_frames)
    return [i * (n_frames - 1) / max(images - 1, 1) for i in range(images)]


def _maps(config: RunConfig, shown: Shown) -> tuple[TeacherMaps | None, str]:
    """The maps that a student was trained on, unless none of the shown frames has one or one does not fit; and why."""
    if not config.reads_teacher:
        return None, ""
    try:
        maps = open_maps(config.teacher.maps)
        indices = [index for index in shown.indices if shown.source.keys[index] in maps.manifest.frames]
        if not indices:
            raise UserError(f"teacher maps {maps.folder}: has none of the test frames")
        maps.check(shown.source.keys[index] for index in indices)
        for place in spread(len(indices)):
            maps.check_size(shown.source.keys[indices[place]], shown.source.size(indices[place]))
    except UserError as error:
        return None, str(error)
    return maps, ""
