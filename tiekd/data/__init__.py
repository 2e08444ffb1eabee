"""The data sets, and all that a run reads of them.

frames.py      Frame, FrameSource: what every data set gives
lists.py       data sets described by a split list  ->  kitti.py  nyu.py
synthetic.py   rendered data sets                   ->  rendered.py  streets.py  rooms.py  textures.py  raycast.py
transforms.py  augmentation of image, ground truth and teacher map together
dataset.py     DepthDataset and its samplers, for PyTorch
memory.py      decoded frames that stay for the next epochs and runs
packing.py     decoded frames in files that all processes share  ->  pack.py (a file)  packed.py (its frames)
check.py       the dataset doctor
"""

from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

from tiekd.config import DataConfig, RunConfig
from tiekd.data.cache.pack_reader import packed_frames, packed_maps
from tiekd.data.frame_source import Frame, FrameSource, Split, check_train_crop, spread
from tiekd.data.image_io import Size
from tiekd.data.split_list import open_list
from tiekd.data.teacher_maps import TeacherMaps, open_maps
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
    """What a run reads."""

    train: FrameSource
    test: FrameSource
    maps: TeacherMaps | None  # of the training frames; None where the student is not trained on them


def open_frames(config: DataConfig, split: Split) -> FrameSource:
    """The frames of one split, in one process the same object as long as its list is unchanged.

    A mistake in the list or its place is a `UserError`.
    """
    spec = config.spec
    if spec.frames is not None:
        return resolve_name(spec.frames)(config, split)
    return open_list(config, split, resolve_name(spec.layout))


def open_inputs(config: RunConfig) -> Inputs:
    """The run's frames and maps as they are on disk: in their files, or packed."""
    train, test = open_frames(config.data, "train"), open_frames(config.data, "test")
    maps = open_maps(config.teacher.maps) if config.reads_teacher else None
    if not config.execution.packed:
        return Inputs(train, test, maps)
    folder = Path(config.execution.packed)
    return Inputs(packed_frames(train, folder), packed_frames(test, folder), packed_maps(maps, folder) if maps else None)


def check_inputs(config: RunConfig) -> None:
    """Raise a `UserError` unless all that a run will read is there and, as far as a spread of headers tells, can be read.

    A process looks at inputs that it found in order once, and again when a list or a manifest has changed.
    """
    _check(*open_inputs(config), config.data.train_crop)


@lru_cache(maxsize=64)
def _check(train: FrameSource, test: FrameSource, maps: TeacherMaps | None, train_crop: Size) -> None:
    for source in (train, test):
        source.check()
    if test.unlabelled == len(test):
        raise UserError(f"data.test_split: none of its {len(test)} frames has ground truth to evaluate on")
    if maps is None and train.unlabelled == len(train):
        raise UserError(f"data.train_split: none of its {len(train)} frames has ground truth; loss.target needs it")
    size = train.size(0)
    check_train_crop(train_crop, size, train.train_border, train.keys[0])
    if maps is not None:
        maps.check(train.keys)
        for index in spread(len(train)):
            maps.check_size(train.keys[index], train.size(index))


def input_digests(config: RunConfig) -> dict[str, str]:
    """Digests of what a run reads, for `config.fingerprint`: equal inputs, equal digests, wherever they lie."""
    train, test, maps = open_inputs(config)
    digests = {"train": train.digest(), "test": test.digest()}
    return digests | ({"teacher_maps": maps.digest()} if maps is not None else {})
