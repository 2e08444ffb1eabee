"""The data sets, and all that a run reads of them.

frames.py      Frame, FrameSource: what every data set gives
lists.py       data sets described by a split list  ->  kitti.py  nyu.py
synthetic.py   rendered data sets                   ->  scenes.py  textures.py  raycast.py
transforms.py  augmentation of image, ground truth and teacher map together
dataset.py     DepthDataset and its samplers, for PyTorch
check.py       the dataset doctor
"""

from collections.abc import Callable

from tiekd import presets
from tiekd.config import DataConfig, RunConfig
from tiekd.data.frames import Frame, FrameSource, Split, check_train_crop, spread
from tiekd.data.kitti import kitti_frames
from tiekd.data.nyu import nyu_frames
from tiekd.data.synthetic import synthetic_frames
from tiekd.errors import UserError
from tiekd.teachers.maps import TeacherMaps

__all__ = [
    "DATASETS",
    "Frame",
    "FrameSource",
    "Split",
    "check_inputs",
    "input_digests",
    "open_frames",
]

DATASETS: dict[str, Callable[[DataConfig, Split], FrameSource]] = {
    "kitti": kitti_frames,
    "nyu": nyu_frames,
    "synthetic-outdoor": synthetic_frames,
    "synthetic-indoor": synthetic_frames,
}
assert DATASETS.keys() == presets.DATASETS.keys()


def open_frames(config: DataConfig, split: Split) -> FrameSource:
    """The frames of one split; a mistake in the list or its place is a `UserError`."""
    return DATASETS[config.dataset](config, split)


def check_inputs(config: RunConfig) -> None:
    """Raise a `UserError` unless all that a run will read is there and, as far as a spread of headers tells, can be read."""
    train, test = open_frames(config.data, "train"), open_frames(config.data, "test")
    for source in (train, test):
        source.check()
    if test.unlabelled == len(test):
        raise UserError(f"data.test_split: none of its {len(test)} frames has ground truth to evaluate on")
    if not config.reads_teacher and train.unlabelled == len(train):
        raise UserError(f"data.train_split: none of its {len(train)} frames has ground truth; loss.target needs it")
    size = train.size(0)
    check_train_crop(config.data.train_crop, size, train.train_border, train.keys[0])
    if config.reads_teacher:
        maps = TeacherMaps(config.teacher.maps)
        maps.check(train.keys)
        for index in spread(len(train)):
            maps.check_size(train.keys[index], train.size(index))


def input_digests(config: RunConfig) -> dict[str, str]:
    """Digests of what a run reads, for `config.fingerprint`: equal inputs, equal digests, wherever they lie."""
    digests = {split: open_frames(config.data, split).digest() for split in ("train", "test")}
    if config.reads_teacher:
        digests["teacher_maps"] = TeacherMaps(config.teacher.maps).digest()
    return digests
