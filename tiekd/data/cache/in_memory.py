"""Decoded frames and teacher maps in the memory of this process, for the next epochs and the next runs.

Loader processes are forked and share this memory, so a frame is decoded once for all of them. Processes that are started in
another way have a cache of their own; packed data (pack_writer.py) are shared by all processes. benchmarks/frames.py and
benchmarks/data.py measure the costs.
"""

import mmap
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from tiekd.data import Inputs
from tiekd.data.cache.pack_reader import PackedFrames
from tiekd.data.frame_source import Frame, FrameSource, WrappedFrames
from tiekd.data.image_io import Size, StoredDepth
from tiekd.data.teacher_maps import MapSource, TeacherMaps

GB = 10**9


def cache_inputs(inputs: Inputs, limit_gb: float) -> Inputs:
    """Cache the inputs of a run if all of them fit into `limit_gb`; otherwise return them unchanged.

    A file is decoded once, and again when it has changed. Packed data need no cache, since they are mapped into memory.
    """
    train, test, maps = inputs
    if isinstance(test, PackedFrames):  # those of training may be wrapped, to hide ground truth
        return inputs
    assert maps is None or isinstance(maps, TeacherMaps)
    wanted: dict[Hashable, tuple[int, np.dtype]] = {
        source: (len(source), frame_dtype(_view_size(source))) for source in (train, test)
    }
    if maps:
        wanted[maps, train] = len(train), map_dtype(_view_size(train))
    arrays = POOL.allocate(wanted, limit_gb * GB)
    if not arrays:
        return inputs
    cached_maps = CachedMaps(maps, train, arrays[maps, train]) if maps else None
    return Inputs(CachedFrames(train, arrays[train]), CachedFrames(test, arrays[test]), cached_maps)


@lru_cache(maxsize=64)
def _view_size(source: FrameSource) -> Size:
    """The size of the first frame; frames of other sizes are not cached."""
    return source.size(0)


# -- memory ----------------------------------------------------------------------------------------------------------------


def frame_dtype(size: Size) -> np.dtype:
    """One cached frame. `signature` is that of the files it was decoded from, and 0 if it is not cached yet."""
    sizes = [("signature", np.int64), ("frame_size", np.int64, 2), ("origin", np.int64, 2)]
    return np.dtype([*sizes, ("image", np.uint8, (*size, 3)), ("depth", np.float32, size)], align=True)


def map_dtype(size: Size) -> np.dtype:
    """One cached teacher map."""
    return np.dtype([("signature", np.int64), ("depth", np.float32, size)], align=True)


class CachePool:
    """The cached arrays of this process. When memory is needed, the least recently used are dropped."""

    def __init__(self) -> None:
        self._arrays: dict[Hashable, np.ndarray] = {}  # least recently used first

    def allocate(self, wanted: Mapping[Hashable, tuple[int, np.dtype]], limit: float) -> dict[Hashable, np.ndarray]:
        """Return an array for each key of `wanted` (number of items, dtype), or none if they exceed `limit` bytes together.

        An array that exists is returned with its content. New ones are zero.
        """
        n_bytes = sum(n_items * dtype.itemsize for n_items, dtype in wanted.values())
        if n_bytes > limit:
            return {}
        others = {key: array for key, array in self._arrays.items() if key not in wanted}
        while n_bytes + sum(array.nbytes for array in others.values()) > limit:
            others.pop(next(iter(others)))
        arrays = {key: self._arrays[key] if key in self._arrays else _shared_zeros(*what) for key, what in wanted.items()}
        self._arrays = others | arrays
        return arrays


def _shared_zeros(n_items: int, dtype: np.dtype) -> np.ndarray:
    """Zeros in memory that forked processes share. Pages are allocated when they are first written."""
    return np.frombuffer(mmap.mmap(-1, n_items * dtype.itemsize), dtype)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


POOL = CachePool()


# -- frames and maps -------------------------------------------------------------------------------------------------------


class CachedFrames(WrappedFrames):
    """A `FrameSource` that keeps decoded frames in an array of `frame_dtype`."""

    def __init__(self, source: FrameSource, array: np.ndarray):
        super().__init__(source)
        self._array, self._cached = array, _read_only(array)

    def __reduce__(self) -> tuple:
        """Pickle the source without the cached frames; forked processes do not pickle."""
        return _identity, (self.source,)

    def load(self, index: int) -> Frame:
        signature, cached = self.source.signature(index), self._cached
        if cached["signature"][index] == signature:
            height, width = cached["frame_size"][index].tolist()
            top, left = cached["origin"][index].tolist()
            return Frame(cached["image"][index], StoredDepth(cached["depth"][index]), (height, width), (top, left))
        frame = self.source.load(index)
        if frame.size == cached["depth"].shape[1:]:
            self._array["image"][index], self._array["depth"][index] = frame.image, frame.depth_gt
            self._array["frame_size"][index], self._array["origin"][index] = frame.frame_size, frame.origin
            self._array["signature"][index] = signature  # last, since another process may read it; it would write the same
        return frame


class CachedMaps:
    """A `MapSource` that keeps the decoded maps of a source's frames in an array of `map_dtype`."""

    def __init__(self, maps: TeacherMaps, source: FrameSource, array: np.ndarray):
        self._maps, self._array, self._cached = maps, array, _read_only(array)
        self._position = {key: index for index, key in enumerate(source.keys)}

    def __reduce__(self) -> tuple:
        return _identity, (self._maps,)

    @property
    def max_depth(self) -> float:
        return self._maps.max_depth

    def digest(self) -> str:
        return self._maps.digest()

    def check(self, keys: Sequence[str]) -> None:
        self._maps.check(keys)

    def check_content(self, keys: Sequence[str]) -> None:
        self._maps.check_content(keys)

    def check_size(self, key: str, size: Size) -> None:
        self._maps.check_size(key, size)

    def load_stored(self, key: str, size: Size) -> StoredDepth:
        """Load the map of a frame [H, W] in m; see `MapSource.load_stored`."""
        index, signature = self._position[key], self._maps.signature(key)
        depth = self._cached["depth"][index]
        if self._cached["signature"][index] == signature and depth.shape == size:
            return StoredDepth(depth)
        loaded = self._maps.load(key, size)
        if loaded.shape == depth.shape:
            self._array["depth"][index] = loaded
            self._array["signature"][index] = signature
        return StoredDepth(loaded)


def _identity(source: FrameSource | MapSource) -> FrameSource | MapSource:
    return source
