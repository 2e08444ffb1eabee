"""The measured costs of a store's networks: STORE/efficiency/<device>/<network>.json.

Does not import PyTorch. tiekd/deploy/profile.py measures them; see docs/efficiency.md.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal

from tiekd.config import BinsConfig, RunConfig, StudentConfig, build
from tiekd.config.labels import TEACHER, labels
from tiekd.data.image_io import Size
from tiekd.errors import UserError, unknown
from tiekd.store.documents import Schema
from tiekd.store.run_store import RunRecord, RunStore

FOLDER = "efficiency"
Runtime = Literal["pytorch", "onnxruntime", "onnxruntime-int8"]
# What follows the name of a device.
RUNTIMES: dict[Runtime, str] = {"pytorch": "", "onnxruntime": ", onnxruntime", "onnxruntime-int8": ", onnxruntime int8"}


@dataclass(frozen=True)
class Cost:
    """The cost of one network on one device, for one image of the evaluation size."""

    network: str  # its id
    name: str
    size: list[int]  # height, width in px
    precision: str
    device: str  # the processor's name, threads and runtime, or the GPU's name
    parameters: int
    macs: int  # multiply-accumulate operations of one forward pass
    milliseconds: float  # per image, median
    milliseconds_low: float  # lower quartile
    milliseconds_high: float
    images: int  # number of timed images
    peak_bytes: int | None  # of weights and one forward pass; None if it is not measured
    versions: dict[str, str] = field(default_factory=dict)


COST = Schema[Cost](Cost)


@dataclass
class Network:
    """A network that runs of a store train, or that made a teacher's maps. `config` is that of one such run."""

    config: RunConfig
    roles: list[str] = field(default_factory=list)  # student, or teacher NAME

    @property
    def name(self) -> str:
        return network_name(self.config)


def network_id(config: RunConfig) -> str:
    """12 hex digits, equal for runs whose networks do the same computation on an image of the evaluation size."""
    return _id(config.student, config.bins, config.data.evaluation_size, config.optim.precision)


@lru_cache(maxsize=4096)
def _id(student: StudentConfig, bins: BinsConfig, size: Size, precision: str) -> str:
    n_bins = None if student.head == "regression" else bins.n_bins
    unread = {"pretrained"} | ({"decoder"} if student.decoder == "densedepth" else set())  # as before there was a choice
    what = [student.model_dump(mode="json", exclude=unread), n_bins, size, precision]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def network_name(config: RunConfig) -> str:
    """The name of a run's network in tables."""
    student = config.student
    if student.is_teacher:
        return student.name
    head = "regression" if student.head == "regression" else f"{config.bins.n_bins} bins"
    return f"{labels(config)['backbone']}, {head}"


# -- the networks of a store --------------------------------------------------------------------------------------------------


def store_networks(store: RunStore, study: str | None = None) -> tuple[dict[str, Network], list[str]]:
    """Return the distinct networks by id, and the names of teachers of which only the maps are known.

    These are the networks of all runs and all cells of the studies, done or not; or of one study's cells. Configs that cannot
    be read are skipped. Raises UserError for an unknown study.
    """
    names = store.studies()
    if study is not None and study not in names:
        raise UserError(unknown("--study", study, names))
    networks: dict[str, Network] = {}
    students: dict[str, RunConfig] = {}  # one by the name of its teacher
    for config in _configs(store, names if study is None else [study], other_runs=study is None):
        role = f"teacher {config.student.name}" if config.method == TEACHER else "student"
        _add(networks, config, role)
        if config.teacher and config.reads_teacher:
            students.setdefault(config.teacher.name, config)
    maps_only = []
    for name, config in students.items():
        if any(f"teacher {name}" in network.roles for network in networks.values()):
            continue
        teacher = _teacher_config(config, store)
        if teacher is None:
            maps_only.append(name)
        else:
            _add(networks, teacher, f"teacher {name}")
    return networks, maps_only


def _add(networks: dict[str, Network], config: RunConfig, role: str) -> None:
    network = networks.setdefault(network_id(config), Network(config))
    if role not in network.roles:
        network.roles.append(role)


def _configs(store: RunStore, studies: list[str], other_runs: bool) -> Iterator[RunConfig]:
    """Configs of the studies' cells, one per network and teacher, and with `other_runs` those of all other runs."""
    seen: set[str] = set()
    planned: set[str] = set()
    for name in studies:
        study = store.read_study(name)
        for cell in study["cells"] if study else ():
            planned.add(cell["run_id"] or "")
            document: dict[str, Any] = dict(cell["config"])
            parts = [document.get(section) for section in ("data", "teacher", "student", "bins", "fidelity")]
            loss = [document["loss"].get(name) for name in ("target", "parts")]
            key = json.dumps([*parts, loss, document["optim"].get("precision")], sort_keys=True)
            if key not in seen:
                seen.add(key)
                if (config := _build_or_none(document)) is not None:
                    yield config
    if other_runs:
        others = [record for record in store.runs() if record.run_id not in planned]
        yield from (config for config in store.read_each(RunRecord.config, others) if config is not None)


def _build_or_none(document: dict) -> RunConfig | None:
    """None for an invalid document, such as one of another version."""
    try:
        return build(document)
    except UserError:
        return None


def _teacher_config(config: RunConfig, store: RunStore) -> RunConfig | None:
    """The config of the network that made a run's teacher maps; None if their manifest is not found or does not state it."""
    from tiekd.data.inputs import open_teacher

    if config.teacher_run:
        return config.teacher_run
    try:
        made_by = open_teacher(config, store).manifest.made_by
    except UserError:
        return None
    return _build_or_none(made_by["config"]) if made_by.get("config") else None


# -- measured costs ----------------------------------------------------------------------------------------------------------


def cost_path(device: str, network: str) -> str:
    """The path, in a store, of a network's cost on a device."""
    return f"{FOLDER}/{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}/{network}.json"


def read_cost(store: RunStore, device: str, network: str) -> Cost | None:
    """Read the cost of a network on a device; None if it was not measured."""
    return _read(store, cost_path(device, network))


def read_costs(store: RunStore, networks: Iterable[str]) -> list[Cost]:
    """Read the measured costs of networks, grouped by device."""
    devices, networks = store.list_folders(FOLDER), list(dict.fromkeys(networks))
    paths = [f"{FOLDER}/{device}/{network}.json" for device in devices for network in networks]
    return [cost for path in paths if (cost := _read(store, path)) is not None]


def write_cost(store: RunStore, cost: Cost) -> None:
    """Write the cost of a network to a store."""
    store.write_json(cost_path(cost.device, cost.network), asdict(cost))


def _read(store: RunStore, path: str) -> Cost | None:
    return store.read_as(path, COST.parse)
