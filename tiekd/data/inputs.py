"""The frames and teacher maps of a run, whether they are complete, and the run's identity, which depends on their content.

Does not import PyTorch.
"""

import hashlib
import json
import logging
import math
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

import numpy as np

from tiekd.config import DataConfig, RunConfig
from tiekd.config.sections import TeacherConfig
from tiekd.data.cache.file_digests import cache_folder, file_digests
from tiekd.data.cache.pack_reader import packed_frames, packed_maps
from tiekd.data.depth_range import N_MAPS, check_reach, check_units
from tiekd.data.frame_source import (
    SPLITS,
    ChosenFrames,
    FrameSource,
    HiddenLabels,
    Split,
    check_train_crop,
    evenly_spaced,
    same_frames,
)
from tiekd.data.layouts.split_list import open_list
from tiekd.data.teacher_maps import MANIFEST, MAPS_FORMAT, MapSource, TeacherMaps, is_manifest, open_maps, parse_manifest
from tiekd.errors import DamagedFileError, UserError
from tiekd.store.files import write_atomically
from tiekd.store.run_store import RunStore

LOG = logging.getLogger(__name__)
METHOD_VERSION = "3"  # raised by hand when the same config would give other numbers
MADE_MAPS = "made_maps"  # the input whose digest is the id of maps that a launch makes
FETCH_THREADS = 32  # that copy maps from an object store


_seen: ContextVar[dict[FrameSource, str] | None] = ContextVar("seen", default=None)


@contextmanager
def one_look() -> Iterator[None]:
    """Within the block, or the decorated function, look at the files of a split once, however often its digest is needed.

    To look at 46,000 files takes half a second even if none has changed.
    """
    if _seen.get() is not None:
        yield
        return
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


def _digest(frames: FrameSource) -> str:
    seen = _seen.get()
    if seen is None:
        return frames.digest()
    if frames not in seen:
        seen[frames] = frames.digest()
    return seen[frames]


class Inputs(NamedTuple):
    """The inputs of a run."""

    train: FrameSource  # with a teacher all frames, of which some may hide their ground truth; without one those that have it
    test: FrameSource
    maps: MapSource | None  # of the training frames; None if the student is not trained on them


def open_frames(config: DataConfig, split: Split) -> FrameSource:
    """Open the frames of one split; the same object in one process as long as its list is unchanged.

    Raises UserError if the list is missing or invalid.
    """
    spec = config.spec
    if spec.frames is not None:
        return resolve_name(spec.frames)(config, split)
    return open_list(config, split, resolve_name(str(spec.layout)))


def open_inputs(config: RunConfig) -> Inputs:
    """Open the frames and maps of a run on disk: in their files, or packed. Raises UserError if the maps are not made yet."""
    train, test = train_frames(config), open_splits(config)[1]
    if not config.reads_teacher:
        return Inputs(train, test, None)
    maps = open_teacher(config)
    if config.execution.packed:
        return Inputs(train, test, packed_maps(maps, Path(config.execution.packed)))
    return Inputs(train, test, maps)


def open_splits(config: RunConfig) -> tuple[FrameSource, FrameSource]:
    """Open the train and the test frames of a run, in their files or packed."""
    train, test = open_frames(config.data, "train"), open_frames(config.data, "test")
    if not config.execution.packed:
        return train, test
    folder = Path(config.execution.packed)
    return packed_frames(train, folder), packed_frames(test, folder)


@lru_cache(maxsize=16)
def labelled_frames(train: FrameSource, labelled: float | None = None, seed: int = 0) -> FrameSource:
    """Return the frames that are trained on their ground truth: those that have one, or as many as `data.labelled` says.

    These are the frames of groups in a random order, so that few labels come from few drives or scenes. Raises UserError if
    there are none, or fewer than asked for.
    """
    indices = [index for index in range(len(train)) if train.has_ground_truth(index)]
    if not indices:
        raise UserError(f"data.train_split: none of its {len(train)} frames has ground truth; loss.target needs it")
    if isinstance(labelled, int) and labelled > len(indices):
        raise UserError(f"data.labelled: only {len(indices)} training frames have ground truth, got {labelled}")
    if labelled is not None:
        count = labelled if isinstance(labelled, int) else math.ceil(labelled * len(indices))
        groups = list(dict.fromkeys(map(train.group, indices)))
        order = np.random.default_rng(seed).permutation(len(groups))
        place = {groups[group]: position for position, group in enumerate(order)}
        indices = sorted(sorted(indices, key=lambda index: place[train.group(index)])[:count])
    return train if len(indices) == len(train) else ChosenFrames(train, tuple(indices))


def train_frames(config: RunConfig) -> FrameSource:
    """Return the frames that a run trains on, whether its teacher's maps exist or not."""
    train, _ = open_splits(config)
    if not config.reads_ground_truth:
        return train
    labelled = labelled_frames(train, config.data.labelled, config.data.label_seed)
    return few_labels(train, labelled) if config.reads_teacher else labelled


@lru_cache(maxsize=16)
def few_labels(train: FrameSource, labelled: FrameSource) -> FrameSource:
    """Return all frames, of which only those of `labelled` show their ground truth."""
    known = set(labelled.keys)
    hidden = [index for index, key in enumerate(train.keys) if train.has_ground_truth(index) and key not in known]
    return HiddenLabels(train, frozenset(hidden)) if hidden else train


def open_teacher(config: RunConfig, store: RunStore | None = None) -> TeacherMaps:
    """Open the maps of a config's teacher. Raises UserError if they do not exist, or have not been made yet.

    store: where the maps are if a launch makes them, by default the config's store.
    """
    assert config.teacher is not None
    if not config.teacher.made:
        maps = open_maps(str(config.teacher.maps))
        if maps.manifest.relative:
            raise UserError(
                f"teacher.maps {config.teacher.maps}: its maps are relative; set teacher.align, such as affine_disparity"
            )
        return maps
    store, maps_id = store or RunStore(config.execution.store), made_maps_id(config)
    if not maps_are_made(store, maps_id):
        raise UserError(
            f"store {store.uri}: the maps {maps_id} of teacher {config.teacher.name} have not been made yet; `tiekd ablate`, "
            "`tiekd search` and `tiekd run` make them"
        )
    return open_maps(Path(store.root, maps_folder(maps_id)) if store.local else _fetch_maps(store, maps_id))


def maps_folder(maps_id: str) -> str:
    """Return the folder, in a store, of maps that a launch has made."""
    return f"maps/{maps_id}"


def maps_are_made(store: RunStore, maps_id: str) -> bool:
    """Whether a store has all the maps with an id. Raises UserError if that cannot be read, which only concerns their runs."""
    try:
        return is_manifest(store.read_bytes(f"{maps_folder(maps_id)}/{MANIFEST}"))
    except DamagedFileError as error:
        raise UserError(f"{error}; delete it") from None


def _fetch_maps(store: RunStore, maps_id: str) -> Path:
    """Return a local copy, kept in the user's cache folder, of maps in an object store."""
    folder = cache_folder("maps", f"{maps_id}-{hashlib.sha256(store.uri.encode()).hexdigest()[:8]}")
    if folder is None:
        raise UserError(f"store {store.uri}: there is no folder for a local copy of teacher maps; set XDG_CACHE_HOME")
    if (folder / MANIFEST).is_file():
        return folder
    manifest = store.read_bytes(f"{maps_folder(maps_id)}/{MANIFEST}") or b""

    def fetch(item: tuple[str, str]) -> None:
        key, sha256 = item
        content = store.read_bytes(f"{maps_folder(maps_id)}/{key}.png")
        if content is None or hashlib.sha256(content).hexdigest() != sha256:
            raise UserError(
                f"store {store.uri}: the map {key} of {maps_folder(maps_id)} is missing or damaged; delete the folder"
            )
        write_atomically(folder / f"{key}.png", content)

    with ThreadPoolExecutor(FETCH_THREADS) as threads:
        list(threads.map(fetch, parse_manifest(manifest, maps_folder(maps_id)).frames.items()))
    write_atomically(folder / MANIFEST, manifest)
    return folder


@one_look()
def check_inputs(config: RunConfig) -> None:
    """Raise UserError unless every file that a run will read exists, and the headers of a sample of them are valid.

    A process checks valid inputs once, and again when a list or a manifest has changed. Maps that a launch will make need not
    exist, but what they are made from.
    """
    if config.reads_teacher:
        _check_names(*open_splits(config))
    if maps_to_make(config):
        _check(train_frames(config), open_splits(config)[1], None, config.data)
        if config.teacher and config.teacher_run:
            check_inputs(config.teacher_run)
            check_reach(f"teacher {config.teacher.name}", config.teacher_run.data.max_depth, config.data.max_depth)
        if config.teacher and config.teacher.is_aligned:
            _check_alignable(config.teacher, open_splits(config)[0])
    else:
        _check(*open_inputs(config), config.data)


def maps_to_make(config: RunConfig) -> str | None:
    """Return the id of the maps that have to be made before a run can begin; None if there are none."""
    if not (config.reads_teacher and config.teacher and config.teacher.made):
        return None
    maps_id = made_maps_id(config)
    return None if maps_are_made(RunStore(config.execution.store), maps_id) else maps_id


@lru_cache(maxsize=64)
def _check_names(train: FrameSource, test: FrameSource) -> None:
    same_frames(train, test)


@lru_cache(maxsize=64)
def _check(train: FrameSource, test: FrameSource, maps: MapSource | None, data: DataConfig) -> None:
    for source in (train, test):
        source.check()
    if test.n_without_ground_truth == len(test):
        raise UserError(f"data.test_split: none of its {len(test)} frames has ground truth to evaluate on")
    check_train_crop(data.train_crop, train.size(0), train.train_region, train.keys[0])
    for source in (train, test):
        check_ground_truth(source, data.max_depth)
    if shared := set(train.keys) & set(test.keys):
        images = ({s.keys[i]: s.files(i)[:1] for i in range(len(s)) if s.keys[i] in shared} for s in (train, test))
        trained, tested = images
        if same := sorted(key for key in shared if trained[key] == tested[key]):
            LOG.warning(
                "%d of %d test frames are also training frames, first %s: the metrics do not tell how new frames are predicted",
                len(same),
                len(test),
                same[0],
            )
    if maps is not None:
        check_maps(maps, train, range(len(train)), data.max_depth)


def _check_alignable(teacher: TeacherConfig, train: FrameSource) -> None:
    """Raise UserError unless each training frame has ground truth, and a map if they are in a folder."""
    if without := [key for index, key in enumerate(train.keys) if not train.has_ground_truth(index)]:
        raise UserError(
            f"teacher.align {teacher.align}: {len(without)} of {len(train)} training frames have no ground truth to fit their "
            f"maps to, first {', '.join(without[:3])}; leave them out of data.train_split"
        )
    if teacher.maps:
        _check_frames_of(open_maps(teacher.maps), train, range(len(train)))


def check_ground_truth(source: FrameSource, max_depth: float) -> None:
    """Raise UserError if the ground truth in the files of a split cannot be in m."""
    indices = [index for index in range(len(source)) if source.has_ground_truth(index) and source.files(index)]
    sample = (source.load(indices[place]).depth_gt for place in evenly_spaced(len(indices), N_MAPS))
    if remark := check_units(sample, max_depth, "ground truth"):
        LOG.warning(remark)


def check_maps(maps: MapSource, source: FrameSource, indices: Sequence[int], max_depth: float) -> None:
    """Raise UserError unless a teacher has maps of the frames at `indices`, of their size, in m and up to `max_depth`."""
    _check_frames_of(maps, source, indices)
    check_reach("teacher maps", maps.max_depth, max_depth)
    sample = (indices[place] for place in evenly_spaced(len(indices), N_MAPS))
    loaded = (maps.load_stored(source.keys[index], source.size(index)).to_meters() for index in sample)
    if remark := check_units(loaded, max_depth, "teacher maps"):
        LOG.warning(remark)


def _check_frames_of(maps: MapSource, source: FrameSource, indices: Sequence[int]) -> None:
    keys = source.keys
    maps.check([keys[index] for index in indices])
    for place in evenly_spaced(len(indices)):
        maps.check_size(keys[indices[place]], source.size(indices[place]))


@one_look()
def input_digests(config: RunConfig) -> dict[str, str]:
    """Return digests of the inputs of a run, for `config.fingerprint`: of their content, wherever the files are.

    Maps that a launch makes are identified by what they are made from, so that their digest is known before they exist. Looks
    at every file, and reads those that have changed (cache/file_digests.py). Raises UserError if one is missing.
    """
    train, test = train_frames(config), open_splits(config)[1]
    digests = {"train": _digest(train), "test": _digest(test)}
    if isinstance(config.student.pretrained, str):
        digests["encoder"] = _file_digest("student.pretrained", config.student.pretrained)
    if not config.reads_teacher or config.teacher is None:
        return digests
    if config.teacher.made:
        return digests | {MADE_MAPS: made_maps_id(config)}
    maps = open_inputs(config).maps
    assert maps is not None
    maps.check_content(train.keys)
    return digests | {"teacher_maps": maps.digest()}


def _file_digest(setting: str, path: str) -> str:
    if not Path(path).is_file():
        raise UserError(f"{setting} {path}: no such file")
    return file_digests(Path(path).parent, [Path(path).name])[0]


@one_look()
def made_maps_id(config: RunConfig) -> str:
    """Return the id of the maps that a launch makes for a run: 16 hex digits over the teacher, the frames and the encoding."""
    teacher = config.teacher
    assert teacher is not None
    if config.teacher_run:
        source = {"run": run_id_of(config.teacher_run), "flip_tta": teacher.flip_tta}
    elif teacher.maps:
        maps = open_maps(teacher.maps)
        maps.check_content(open_splits(config)[0].keys)
        source = {"maps": maps.digest()}
    elif teacher.weights:
        source = {"weights": _file_digest("teacher.weights", teacher.weights), "flip_tta": teacher.flip_tta}
    else:
        source = {"hf": teacher.hf, "metric": teacher.metric}
    frames = {split: _digest(frames) for split, frames in zip(SPLITS, open_splits(config), strict=True)}
    content = {"format": MAPS_FORMAT, "source": source, "frames": frames, "max_depth": config.data.max_depth}
    if teacher.is_aligned:
        content |= {"align": teacher.align, "frames": {"train": frames["train"]}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def inputs_key(config: RunConfig) -> Hashable:
    """Return the settings on which `check_inputs` and `input_digests` depend."""
    teacher = config.teacher.model_dump_json() if config.teacher and config.reads_teacher else None
    encoder = config.student.pretrained if isinstance(config.student.pretrained, str) else None
    store = config.execution.store if teacher else None
    return config.data, teacher, config.reads_ground_truth, encoder, config.execution.packed, store


def run_id_of(config: RunConfig) -> str:
    """The run's identity: a hash of what is computed, the content of its inputs, and METHOD_VERSION.

    Raises UserError if an input is missing.
    """
    return RunIds()(config)


class RunIds:
    """`run_id_of` for many runs at one time: looks once at inputs that runs share."""

    def __init__(self) -> None:
        self._digests: dict[Hashable, dict[str, str]] = {}

    def __call__(self, config: RunConfig) -> str:
        return config.fingerprint({**self._of(config), "method_version": METHOD_VERSION})

    def maps_id(self, config: RunConfig) -> str | None:
        """The id of the teacher maps that a launch makes for a run; None if it reads none, or those of a folder."""
        return self._of(config).get(MADE_MAPS)

    def _of(self, config: RunConfig) -> dict[str, str]:
        key = inputs_key(config)
        if key not in self._digests:
            self._digests[key] = input_digests(config)
        return self._digests[key]
