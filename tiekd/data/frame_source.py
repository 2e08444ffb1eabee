"""The interface of every data set: frames, their names, and a digest that identifies a set of frames."""

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from tiekd.data.image_io import MissingFileError, Size, StoredDepth, format_size
from tiekd.errors import UserError
from tiekd.store.files import stat_signature

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    def crop(self, array: np.ndarray) -> np.ndarray:
        """Return the part of `array` [H, W, ...] inside the box, as a view."""
        return array[self.top : self.top + self.height, self.left : self.left + self.width]


class TrainRegion(NamedTuple):
    """The part of a frame that training uses. It is cut from frames of one size; of others, training uses all."""

    frame_size: Size
    box: Box

    def of(self, size: Size) -> Box:
        """Return the part of a frame of `size`."""
        return self.box if size == self.frame_size else Box(0, 0, *size)


@dataclass(frozen=True)
class Frame:
    """One frame in the canonical view of its data set (KITTI: kb-crop; others: the whole frame)."""

    image: np.ndarray  # uint8 [H, W, 3], RGB; may be a read-only view
    depth: StoredDepth  # ground truth; 0 where there is no measurement
    frame_size: Size  # of the frame before it was cropped to this view
    origin: tuple[int, int]  # top, left of this view in that frame

    @property
    def size(self) -> Size:
        height, width = self.depth.values.shape
        return height, width

    @cached_property
    def depth_gt(self) -> np.ndarray:
        """float32 [H, W] m; 0 where there is no measurement."""
        return self.depth.to_meters()


class FrameSource(Hashable, Protocol):
    """One split of one data set."""

    @property
    def keys(self) -> Sequence[str]:
        """The name of each frame: the path of its image without suffix."""
        ...

    @property
    def n_without_ground_truth(self) -> int:
        """Number of frames without ground truth."""
        ...

    @property
    def train_region(self) -> TrainRegion | None:
        """The part of the canonical view that training uses, before augmentation; None for all of it."""
        ...

    def __len__(self) -> int: ...

    def group(self, index: int) -> str:
        """Return the drive or scene of a frame; frames of one group are not independent."""
        ...

    def has_ground_truth(self, index: int) -> bool: ...

    def load(self, index: int) -> Frame: ...

    def frame_size(self, index: int) -> Size:
        """Read the size of a frame before it was cropped to its view, from the headers of its files."""
        ...

    def size(self, index: int) -> Size:
        """Read the size of a frame's view from the headers of its files. Raises UserError for headers that `load` refuses."""
        ...

    def files(self, index: int) -> list[Path]:
        """Return the files of a frame: image, then ground truth if it has one. Empty for a rendered frame."""
        ...

    def signature(self, index: int) -> int:
        """Return a number that changes with the files of a frame; never 0. Raises UserError if a file is missing."""
        ...

    def list_digest(self) -> str:
        """Return 64 hex digits that identify the list of frames, without what is in their files."""
        ...

    def digest(self) -> str:
        """Return 64 hex digits that identify the frames by name and content, independent of their location.

        Looks at every file. Raises UserError if one is missing.
        """
        ...

    def check(self) -> None:
        """Raise UserError unless every file exists and a sample of them can be loaded, judging by their headers."""
        ...


class WrappedFrames:
    """A `FrameSource` that forwards to another one. Base of sources that load the same frames from elsewhere."""

    def __init__(self, source: FrameSource):
        self.source = source

    @property
    def keys(self) -> Sequence[str]:
        return self.source.keys

    @property
    def n_without_ground_truth(self) -> int:
        return self.source.n_without_ground_truth

    @property
    def train_region(self) -> TrainRegion | None:
        return self.source.train_region

    def __len__(self) -> int:
        return len(self.source)

    def group(self, index: int) -> str:
        return self.source.group(index)

    def has_ground_truth(self, index: int) -> bool:
        return self.source.has_ground_truth(index)

    def load(self, index: int) -> Frame:
        return self.source.load(index)

    def frame_size(self, index: int) -> Size:
        return self.source.frame_size(index)

    def size(self, index: int) -> Size:
        return self.source.size(index)

    def files(self, index: int) -> list[Path]:
        return self.source.files(index)

    def signature(self, index: int) -> int:
        return self.source.signature(index)

    def list_digest(self) -> str:
        return self.source.list_digest()

    def digest(self) -> str:
        return self.source.digest()

    def check(self) -> None:
        self.source.check()


class ChosenFrames(WrappedFrames):
    """Some frames of another source."""

    def __init__(self, source: FrameSource, indices: tuple[int, ...]):
        super().__init__(source)
        self._indices = indices

    @cached_property
    def keys(self) -> Sequence[str]:
        return [self.source.keys[index] for index in self._indices]

    @property
    def n_without_ground_truth(self) -> int:
        return sum(not self.source.has_ground_truth(index) for index in self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def group(self, index: int) -> str:
        return self.source.group(self._indices[index])

    def has_ground_truth(self, index: int) -> bool:
        return self.source.has_ground_truth(self._indices[index])

    def load(self, index: int) -> Frame:
        return self.source.load(self._indices[index])

    def frame_size(self, index: int) -> Size:
        return self.source.frame_size(self._indices[index])

    def size(self, index: int) -> Size:
        return self.source.size(self._indices[index])

    def files(self, index: int) -> list[Path]:
        return self.source.files(self._indices[index])

    def signature(self, index: int) -> int:
        return self.source.signature(self._indices[index])

    def list_digest(self) -> str:
        return digest_of_frames(self.keys, [[self.source.list_digest()]])

    def digest(self) -> str:
        return digest_of_frames(self.keys, [[self.source.digest()]])


class HiddenLabels(WrappedFrames):
    """All frames of another source; the ground truth of some is hidden."""

    def __init__(self, source: FrameSource, hidden: frozenset[int]):
        super().__init__(source)
        self._hidden = hidden

    @property
    def n_without_ground_truth(self) -> int:
        return self.source.n_without_ground_truth + len(self._hidden)

    def has_ground_truth(self, index: int) -> bool:
        return index not in self._hidden and self.source.has_ground_truth(index)

    def load(self, index: int) -> Frame:
        frame = self.source.load(index)
        if index not in self._hidden:
            return frame
        values, unit = frame.depth
        return replace(frame, depth=StoredDepth(np.zeros_like(values), unit))

    def files(self, index: int) -> list[Path]:
        files = self.source.files(index)
        return files[:1] if index in self._hidden else files

    def list_digest(self) -> str:
        return self._digest(self.source.list_digest())

    def digest(self) -> str:
        return self._digest(self.source.digest())

    def _digest(self, digest: str) -> str:
        return digest_of_frames([self.source.keys[index] for index in sorted(self._hidden)], [["hidden", digest]])


def same_frames(*sources: FrameSource) -> list[str]:
    """Return the names of frames that occur more than once, in one source or several.

    Raises UserError if different images have one name: their depth maps would be the same file.
    """
    first: dict[str, tuple[FrameSource, int]] = {}
    repeated = []
    for source in sources:
        for index, key in enumerate(source.keys):
            other, place = first.setdefault(key, (source, index))
            if (other, place) == (source, index):
                continue
            repeated.append(key)
            images = [str(path) for path in (*other.files(place)[:1], *source.files(index)[:1])]
            if len(set(images)) > 1:
                raise UserError(f"{' and '.join(images)}: both frames have the name {key}, and so have their maps; rename one")
    return list(dict.fromkeys(repeated))


def digest_of_frames(keys: Sequence[str], files: Sequence[Sequence[str]]) -> str:
    """Return the digest of frames from their names and the digests of their files: image, then ground truth if there is one."""
    content = json.dumps([list(keys), [list(digests) for digests in files]], separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def signature_of_frame(key: str, files: Sequence[Path]) -> int:
    """Return a number that changes with the files of a frame; never 0. Raises UserError if one is missing."""
    try:
        return stat_signature(*files)
    except FileNotFoundError as error:
        raise MissingFileError(f"frame {key}: {error.filename}: no such file") from None


def evenly_spaced(n_frames: int, at_most: int = 500) -> range:
    """Return evenly spaced indices below `n_frames`: a sample that finds systematic mistakes in seconds."""
    return range(0, n_frames, max(1, -(-n_frames // at_most)))


def check_train_crop(train_crop: Size, size: Size, region: TrainRegion | None, key: str) -> Box:
    """Return the part of a view of `size` that training uses. Raises UserError unless a training crop fits into it."""
    part = region.of(size) if region else Box(0, 0, *size)
    if train_crop[0] > part.height or train_crop[1] > part.width:
        raise UserError(
            f"data.train_crop {format_size(train_crop)} exceeds the part of frame {key} that training uses: "
            f"{format_size((part.height, part.width))} px"
        )
    return part
