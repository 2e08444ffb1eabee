"""What the networks of a store cost, as it was measured: STORE/efficiency/<device>/<network>.json.

Without PyTorch. efficiency.py measures; docs/efficiency.md says how.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache

import yaml

from tiekd.config import BinsConfig, RunConfig, StudentConfig, build
from tiekd.config.labels import TEACHER, labels
from tiekd.data.image_io import Size
from tiekd.errors import StoreError, UserError, unknown
from tiekd.store.run_store import RunRecord, RunStore

FOLDER = "efficiency"


@dataclass(frozen=True)
class Cost:
    """One network, measured on one device with one image of the evaluation size."""

    network: str  # its id
    name: str
    size: list[int]  # height, width in pixels
    precision: str
    device: str  # the processor's name and threads, or the GPU's name
    parameters: int
    macs: int  # multiply-accumulate operations of one forward pass
    milliseconds: float  # per image, median
    milliseconds_low: float  # lower quartile
    milliseconds_high: float
    images: int  # that were timed
    peak_bytes: int | None  # weights and one forward pass; None where the system does not tell
    versions: dict[str, str] = field(default_factory=dict)


@dataclass
class Network:
    """A network that runs of a store train, or that made a teacher's maps; `roles` says which, `config` is of one such run."""

    config: RunConfig
    roles: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return network_name(self.config)


def network_id(config: RunConfig) -> str:
    """12 hex digits: equal for runs whose networks do the same work for an image of the evaluation size."""
    return _id(config.student, config.bins, config.data.evaluation_size, config.optim.precision)


@lru_cache(maxsize=4096)
def _id(student: StudentConfig, bins: BinsConfig, size: Size, precision: str) -> str:
    n_bins = None if student.head == "regression" else bins.n_bins
    what = [student.model_dump(mode="json", exclude={"pretrained"}), n_bins, size, precision]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def network_name(config: RunConfig) -> str:
    """What a table calls a run's network."""
    student = config.student
    if student.is_teacher:
        return student.name
    head = "regression" if student.head == "regression" else f"{config.bins.n_bins} bins"
    return f"{labels(config)['backbone']}, {head}"


# -- the networks of a store --------------------------------------------------------------------------------------------------


def store_networks(store: RunStore, study: str | None = None) -> tuple[dict[str, Network], list[str]]:
    """The distinct networks by id, and the teachers of which the store knows nothing but the maps.

    Those of all runs and of all cells of the studies, done or not; or of one study's cells. Raises UserError for a study that
    is not there. A config that cannot be read has no network.
    """
    names = store.studies()
    if study is not None and study not in names:
        raise UserError(unknown("--study", study, names))
    networks: dict[str, Network] = {}
    taught_by: dict[str, RunConfig] = {}
    for config in _configs(store, names if study is None else [study], alone=study is None):
        role = f"teacher {config.student.name}" if config.method == TEACHER else "student"
        _add(networks, config, role)
        if config.reads_teacher:
            taught_by.setdefault(config.teacher.name, config)
    maps_only = []
    for name, config in taught_by.items():
        if any(f"teacher {name}" in network.roles for network in networks.values()):
            continue
        maker = _maker(config)
        if maker is None:
            maps_only.append(name)
        else:
            _add(networks, maker, f"teacher {name}")
    return networks, maps_only


def _add(networks: dict[str, Network], config: RunConfig, role: str) -> None:
    network = networks.setdefault(network_id(config), Network(config))
    if role not in network.roles:
        network.roles.append(role)


def _configs(store: RunStore, studies: list[str], alone: bool) -> Iterator[RunConfig]:
    """Configs of the studies' cells, those alike in network and teacher once, and of the runs that no study holds."""
    seen, planned = set(), set()
    for name in studies:
        for cell in (store.read_study(name) or {"cells": []})["cells"]:
            planned.add(cell["run_id"])
            document = cell["config"]
            parts = [document.get(section) for section in ("data", "teacher", "student", "bins", "fidelity")]
            key = json.dumps([*parts, document["loss"]["target"], document["optim"]["precision"]], sort_keys=True)
            if key not in seen:
                seen.add(key)
                if (config := _built(document)) is not None:
                    yield config
    if alone:
        others = [record for record in store.runs() if record.run_id not in planned]
        yield from (config for config in store.read_each(_config_of, others) if config is not None)


def _built(document: dict) -> RunConfig | None:
    """None for a document that is no config, such as one of another version."""
    try:
        return build(document)
    except UserError:
        return None


def _config_of(record: RunRecord) -> RunConfig | None:
    """None where a run's config cannot be read."""
    try:
        return record.config()
    except (StoreError, UserError, yaml.YAMLError):
        return None


def _maker(config: RunConfig) -> RunConfig | None:
    """The config of the network that made a run's teacher maps, where their manifest is in reach and tells it."""
    from tiekd.data.teacher_maps import open_maps

    try:
        made_by = open_maps(config.teacher.maps).manifest.made_by
    except UserError:
        return None
    return _built(made_by["config"]) if made_by.get("config") else None


# -- what was measured --------------------------------------------------------------------------------------------------------


def cost_path(device: str, network: str) -> str:
    """The file of a network's cost on a device, in a store."""
    return f"{FOLDER}/{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}/{network}.json"


def read_cost(store: RunStore, device: str, network: str) -> Cost | None:
    """What was measured on a device; None where it was not."""
    return _cost(store, cost_path(device, network))


def read_costs(store: RunStore, networks: Iterable[str]) -> list[Cost]:
    """What was measured of these networks, device by device."""
    devices, networks = store.list_folders(FOLDER), list(dict.fromkeys(networks))
    places = [f"{FOLDER}/{device}/{network}.json" for device in devices for network in networks]
    return [cost for place in places if (cost := _cost(store, place)) is not None]


def write_cost(store: RunStore, cost: Cost) -> None:
    store.write_json(cost_path(cost.device, cost.network), asdict(cost))


def _cost(store: RunStore, place: str) -> Cost | None:
    """Raises StoreError for a file that is no cost."""
    content = store.read_json(place)
    try:
        return None if content is None else Cost(**content)
    except TypeError as error:
        raise StoreError(f"{place} in store {store.uri} is damaged: {error}") from None
