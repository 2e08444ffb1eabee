"""Decoded frames and teacher maps that stay in memory for the next epochs and the next runs of this process.

Loader processes are forked and share it: a frame is decoded once for all of them, and again for processes started otherwise,
each with a memory of its own. Packed data (packing.py) are shared by all. benchmarks/ holds what each costs.
"""

import ctypes
import mmap
import platform
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from tiekd.config import RunConfig
from tiekd.data import Inputs, open_inputs
from tiekd.data.frame_source import Frame, FrameSource
from tiekd.data.image_io import Size, StoredDepth
from tiekd.data.teacher_maps import TeacherMaps

GB = 10**9
ALIGNED = 64  # bytes

Columns = tuple[tuple[tuple[int, ...], type], ...]  # shape and type of each array of an item


def remembered(config: RunConfig) -> Inputs:
    """The run's inputs, each file decoded once and again when it has changed; as they are on disk unless all of them fit into
    `execution.cache_gb`. Packed data are in memory as they are, in that of all processes.

    This process, and the loader processes that it forks, from now on keep the memory of the frames that they are done with.
    """
    keep_freed_memory()
    train, test, maps = inputs = open_inputs(config)
    if config.execution.packed:
        return inputs
    wanted: dict[Hashable, tuple[int, Columns]] = {source: (len(source), _of_frame(_view(source))) for source in (train, test)}
    if maps:
        wanted[maps, train] = len(train), _of_map(_view(train))
    shelves = MEMORY.shelves(wanted, config.execution.cache_gb * GB)
    if not shelves:
        return inputs
    kept_maps = KeptMaps(maps, train, shelves[maps, train]) if maps else None
    return Inputs(KeptFrames(train, shelves[train]), KeptFrames(test, shelves[test]), kept_maps)


@lru_cache(maxsize=64)
def _view(source: FrameSource) -> Size:
    """The size of a source's frames; one of another size is not kept."""
    return source.size(0)


def _of_frame(size: Size) -> Columns:
    """Image, depth, and where the view lies in the whole frame."""
    return ((*size, 3), np.uint8), (size, np.float32), ((4,), np.int64)


def _of_map(size: Size) -> Columns:
    return ((size, np.float32),)


class Shelf:
    """Arrays by index, in memory that forked processes share, each item with the stamp of the files that it was made from."""

    def __init__(self, n_items: int, columns: Columns):
        self._memory = mmap.mmap(-1, shelf_bytes(n_items, columns))  # pages are taken as they are written to
        self._stamps = np.frombuffer(self._memory, np.int64, n_items)
        self._columns, offset = [], _column_bytes(n_items, (), np.int64)
        for shape, kind in columns:
            count = n_items * int(np.prod(shape))
            self._columns.append(np.frombuffer(self._memory, kind, count, offset).reshape(n_items, *shape))
            offset += _column_bytes(n_items, shape, kind)

    def get(self, index: int, stamp: int) -> tuple[np.ndarray, ...] | None:
        """An item's arrays, not to be written to; None where it is not kept, or was made from other files."""
        if self._stamps[index] != stamp:
            return None
        return tuple(_read_only(column[index]) for column in self._columns)

    def put(self, index: int, stamp: int, arrays: tuple[np.ndarray, ...]) -> None:
        """Keep an item, unless its shapes are not those of the shelf. `stamp` is not 0."""
        if any(array.shape != column.shape[1:] for array, column in zip(arrays, self._columns, strict=True)):
            return
        for column, array in zip(self._columns, arrays, strict=True):
            column[index] = array
        self._stamps[index] = stamp  # last: another process may look meanwhile, and would write the same


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def shelf_bytes(n_items: int, columns: Columns) -> int:
    return sum(_column_bytes(n_items, *column) for column in (((), np.int64), *columns))


def _column_bytes(n_items: int, shape: tuple[int, ...], kind: type) -> int:
    return -(-n_items * int(np.prod(shape)) * np.dtype(kind).itemsize // ALIGNED) * ALIGNED


class Memory:
    """The shelves of this process; when room is needed, those go that were used longest ago."""

    def __init__(self) -> None:
        self._held: dict[Hashable, tuple[Shelf, int]] = {}  # with its bytes; the last used comes last

    def shelves(self, wanted: Mapping[Hashable, tuple[int, Columns]], limit: float) -> dict[Hashable, Shelf]:
        """A shelf for each key of `wanted` (number of items, columns); none at all if they exceed `limit` bytes together."""
        sizes = {key: shelf_bytes(*what) for key, what in wanted.items()}
        if sum(sizes.values()) > limit:
            return {}
        others = {key: held for key, held in self._held.items() if key not in wanted}
        while sum(n_bytes for _, n_bytes in others.values()) + sum(sizes.values()) > limit:
            others.pop(next(iter(others)))
        self._held = others | {
            key: self._held[key] if key in self._held else (Shelf(*what), sizes[key]) for key, what in wanted.items()
        }
        return {key: self._held[key][0] for key in wanted}


MEMORY = Memory()


class KeptFrames:
    """A `FrameSource` whose decoded frames stay on a shelf."""

    def __init__(self, source: FrameSource, shelf: Shelf):
        self._source, self._shelf = source, shelf

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._source)

    def __reduce__(self) -> tuple:
        """To a process that is not forked, the frames travel without the shelf."""
        return _itself, (self._source,)

    def load(self, index: int) -> Frame:
        stamp = self._source.signature(index)
        if arrays := self._shelf.get(index, stamp):
            image, depth_gt, (height, width, top, left) = arrays[0], arrays[1], arrays[2].tolist()
            return Frame(image, StoredDepth(depth_gt), (height, width), (top, left))
        frame = self._source.load(index)
        self._shelf.put(index, stamp, (frame.image, frame.depth_gt, np.array([*frame.frame_size, *frame.origin])))
        return frame


class KeptMaps:
    """The `TeacherMaps` of a source's frames, whose decoded maps stay on a shelf."""

    def __init__(self, maps: TeacherMaps, source: FrameSource, shelf: Shelf):
        self._maps, self._shelf = maps, shelf
        self._position = {key: index for index, key in enumerate(source.keys)}

    def __reduce__(self) -> tuple:
        return _itself, (self._maps,)

    def stored(self, key: str, size: Size) -> StoredDepth:
        """As `TeacherMaps.stored`, but in m."""
        index, stamp = self._position[key], self._maps.signature(key)
        arrays = self._shelf.get(index, stamp)
        if arrays and arrays[0].shape == size:
            return StoredDepth(arrays[0])
        depth = self._maps.load(key, size)
        self._shelf.put(index, stamp, (depth,))
        return StoredDepth(depth)


def _itself(value: Any) -> Any:
    return value


KEPT = 64 * 2**20  # bytes of free memory that stay with the process
IN_HEAP = 32 * 2**20  # bytes; larger arrays are mapped, and unmapped, one by one
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let this process, and those that it forks, reuse freed memory instead of returning it to the system.

    Else the system takes a frame's arrays back as they are freed, and clears the same pages for the next frame. The limits are
    those that glibc ends at by itself once a program has freed a block of 32 MB; other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        c_library = ctypes.CDLL(None)
        c_library.mallopt(M_MMAP_THRESHOLD, IN_HEAP)
        c_library.mallopt(M_TRIM_THRESHOLD, KEPT)
