"""The data sets, and the inputs of a run: frames with ground truth, and the maps of a teacher.

frame_source.py   Frame, FrameSource: the interface of every data set
split_list.py     data sets described by a split list: kitti.py, nyu.py
synthetic/        rendered data sets
teacher_maps/     the depth maps of a teacher on disk
cache/            decoded frames and maps, in memory or packed in files; digests of input files
depth_range.py    whether depths can be in metres, and reach as far as the data
dataset.py        DepthDataset and its samplers, for PyTorch
transforms.py     augmentation of image, ground truth and teacher map together
doctor.py         the dataset doctor
"""

from collections.abc import Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

from tiekd.config import DataConfig, RunConfig
from tiekd.data.cache.pack_reader import packed_frames, packed_maps
from tiekd.data.depth_range import N_MAPS, check_reach, check_units
from tiekd.data.frame_source import Frame, FrameSource, Split, check_train_crop, evenly_spaced
from tiekd.data.split_list import open_list
from tiekd.data.teacher_maps import MapSource, open_maps
from tiekd.errors import UserError

__all__ = [
    "Frame",
    "FrameSource",
    "Inputs",
    "Split",
    "check_ground_truth",
    "check_inputs",
    "check_maps",
    "input_digests",
    "inputs_key",
    "open_frames",
    "open_inputs",
]


class Inputs(NamedTuple):
    """The inputs of a run."""

    train: FrameSource
    test: FrameSource
    maps: MapSource | None  # of the training frames; None if the student is not trained on them


def open_frames(config: DataConfig, split: Split) -> FrameSource:
    """Open the frames of one split; the same object in one process as long as its list is unchanged.

    Raises UserError if the list is missing or invalid.
    """
    spec = config.spec
    if spec.frames is not None:
        return resolve_name(spec.frames)(config, split)
    return open_list(config, split, resolve_name(spec.layout))


def open_inputs(config: RunConfig) -> Inputs:
    """Open the frames and maps of a run on disk: in their files, or packed."""
    train, test = open_frames(config.data, "train"), open_frames(config.data, "test")
    maps = open_maps(config.teacher.maps) if config.teacher and config.reads_teacher else None
    if not config.execution.packed:
        return Inputs(train, test, maps)
    folder = Path(config.execution.packed)
    return Inputs(packed_frames(train, folder), packed_frames(test, folder), packed_maps(maps, folder) if maps else None)


def check_inputs(config: RunConfig) -> None:
    """Raise UserError unless every file that a run will read exists, and the headers of a sample of them are valid.

    A process checks valid inputs once, and again when a list or a manifest has changed.
    """
    _check(*open_inputs(config), config.data)


@lru_cache(maxsize=64)
def _check(train: FrameSource, test: FrameSource, maps: MapSource | None, data: DataConfig) -> None:
    for source in (train, test):
        source.check()
    if test.n_without_ground_truth == len(test):
        raise UserError(f"data.test_split: none of its {len(test)} frames has ground truth to evaluate on")
    if maps is None and train.n_without_ground_truth == len(train):
        raise UserError(f"data.train_split: none of its {len(train)} frames has ground truth; loss.target needs it")
    check_train_crop(data.train_crop, train.size(0), train.train_region, train.keys[0])
    for source in (train, test):
        check_ground_truth(source, data.max_depth)
    if maps is not None:
        check_maps(maps, train, range(len(train)), data.max_depth)


def check_ground_truth(source: FrameSource, max_depth: float) -> None:
    """Raise UserError if the ground truth in the files of a split cannot be in m."""
    indices = [index for index in range(len(source)) if source.has_ground_truth(index) and source.files(index)]
    sample = (source.load(indices[place]).depth_gt for place in evenly_spaced(len(indices), N_MAPS))
    check_units(sample, max_depth, "ground truth")


def check_maps(maps: MapSource, source: FrameSource, indices: Sequence[int], max_depth: float) -> None:
    """Raise UserError unless a teacher has maps of the frames at `indices`, of their size, in m and up to `max_depth`."""
    keys = source.keys
    maps.check([keys[index] for index in indices])
    for place in evenly_spaced(len(indices)):
        maps.check_size(keys[indices[place]], source.size(indices[place]))
    check_reach("teacher maps", maps.max_depth, max_depth)
    sample = (indices[place] for place in evenly_spaced(len(indices), N_MAPS))
    loaded = (maps.load_stored(keys[index], source.size(index)).to_meters() for index in sample)
    check_units(loaded, max_depth, "teacher maps")


def input_digests(config: RunConfig) -> dict[str, str]:
    """Return digests of the inputs of a run, for `config.fingerprint`: of their content, wherever the files are.

    Looks at every file, and reads those that have changed (cache/file_digests.py). Raises UserError if one is missing.
    """
    train, test, maps = open_inputs(config)
    digests = {"train": train.digest(), "test": test.digest()}
    if maps is None:
        return digests
    maps.check_content(train.keys)
    return digests | {"teacher_maps": maps.digest()}


def inputs_key(config: RunConfig) -> Hashable:
    """Return the settings on which `check_inputs` and `input_digests` depend."""
    return config.data, config.teacher if config.reads_teacher else None, config.execution.packed
