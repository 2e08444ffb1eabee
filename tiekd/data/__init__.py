"""The data sets, and the inputs of a run: frames with ground truth, and the maps of a teacher.

frame_source.py   Frame, FrameSource: the interface of every data set
split_list.py     data sets described by a split list: kitti.py, nyu.py
synthetic/        rendered data sets
teacher_maps/     the depth maps of a teacher on disk
cache/            decoded frames and maps, in memory or packed in files
dataset.py        DepthDataset and its samplers, for PyTorch
transforms.py     augmentation of image, ground truth and teacher map together
doctor.py         the dataset doctor
"""

from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

from tiekd.config import DataConfig, RunConfig
from tiekd.data.cache.pack_reader import packed_frames, packed_maps
from tiekd.data.frame_source import Frame, FrameSource, Split, check_train_crop, evenly_spaced
from tiekd.data.image_io import Size
from tiekd.data.split_list import open_list
from tiekd.data.teacher_maps import MapSource, open_maps
from tiekd.errors import UserError

__all__ = [
    "Frame",
    "FrameSource",
    "Inputs",
    "Split",
    "check_inputs",
    "input_digests",
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
    _check(*open_inputs(config), config.data.train_crop)


@lru_cache(maxsize=64)
def _check(train: FrameSource, test: FrameSource, maps: MapSource | None, train_crop: Size) -> None:
    for source in (train, test):
        source.check()
    if test.n_without_ground_truth == len(test):
        raise UserError(f"data.test_split: none of its {len(test)} frames has ground truth to evaluate on")
    if maps is None and train.n_without_ground_truth == len(train):
        raise UserError(f"data.train_split: none of its {len(train)} frames has ground truth; loss.target needs it")
    size = train.size(0)
    check_train_crop(train_crop, size, train.train_region, train.keys[0])
    if maps is not None:
        maps.check(train.keys)
        for index in evenly_spaced(len(train)):
            maps.check_size(train.keys[index], train.size(index))


def input_digests(config: RunConfig) -> dict[str, str]:
    """Return digests of the inputs of a run, for `config.fingerprint`. They do not depend on the location of the files."""
    train, test, maps = open_inputs(config)
    digests = {"train": train.digest(), "test": test.digest()}
    return digests | ({"teacher_maps": maps.digest()} if maps is not None else {})
