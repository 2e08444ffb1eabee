"""What every data set gives: frames, their names, and what tells one set of frames from another."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from tiekd.data.image_io import Size, StoredDepth, pixels
from tiekd.errors import UserError

Split = Literal["train", "test"]


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, array: np.ndarray) -> np.ndarray:
        """The part of `array` [H, W, ...] inside the box."""
        return array[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Frame:
    """One frame in its data set's canonical view (KITTI: kb-crop; others: the whole frame)."""

    image: np.ndarray  # uint8 [H, W, 3], RGB; may be a read-only view
    depth: StoredDepth  # ground truth; 0 where nothing was measured
    frame_size: Size  # of the frame before it was cut to this view
    origin: tuple[int, int]  # top, left of this view in that frame

    @property
    def size(self) -> Size:
        return self.depth.values.shape

    @cached_property
    def depth_gt(self) -> np.ndarray:
        """float32 [H, W] m; 0 where nothing was measured."""
        return self.depth.metres()


class FrameSource(Protocol):
    """One split of one data set."""

    keys: Sequence[str]  # a frame's name: its image's path without suffix
    unlabelled: int  # frames without any ground truth
    train_border: Box | None  # what a training sees of the canonical view, before augmentation; None: all

    def __len__(self) -> int: ...

    def group(self, index: int) -> str:
        """The drive or scene; frames of one group are not independent."""

    def labelled(self, index: int) -> bool:
        """Whether there is ground truth for the frame."""

    def load(self, index: int) -> Frame: ...

    def frame_size(self, index: int) -> Size:
        """Of the frame before it was cut to its view, from its files' headers."""

    def size(self, index: int) -> Size:
        """Of the frame's view, without decoding it; what `load` would refuse in the files' headers is refused."""

    def files(self, index: int) -> list[Path]:
        """What the frame is read from: image, then ground truth where there is one; none where it is rendered."""

    def signature(self, index: int) -> int:
        """A number that differs once the frame's files do; never 0. A file that is not there is a `UserError`."""

    def digest(self) -> str:
        """64 hex digits that identify the frames, wherever they lie."""

    def check(self) -> None:
        """Raise a `UserError` unless every file is there and a spread of them has what `load` needs."""


def spread(n_frames: int, most: int = 500) -> range:
    """Evenly spaced frames, all of them when they are few: enough to see a mistake before hours are spent."""
    return range(0, n_frames, max(1, -(-n_frames // most)))


def check_train_crop(train_crop: Size, size: Size, border: Box | None, key: str) -> None:
    """Raise a `UserError` unless a training crop fits into a canonical view of `size`."""
    if border is None:
        visible = size
    else:
        visible = (border.height, border.width)
        needed = (border.top + border.height, border.left + border.width)
        if size[0] < needed[0] or size[1] < needed[1]:
            raise UserError(
                f"frame {key}: training cuts a border off, which needs at least {pixels(needed)} px, got {pixels(size)}"
            )
    if train_crop[0] > visible[0] or train_crop[1] > visible[1]:
        raise UserError(f"data.train_crop {pixels(train_crop)} exceeds what training sees of frame {key}: {pixels(visible)} px")
