"""Frames and maps of packed data, in the place of those that were packed: same names, same digests, same numbers."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from tiekd.data.cache.pack_format import Part, find_part
from tiekd.data.frame_source import Frame, FrameSource, spread
from tiekd.data.image_io import Size, StoredDepth, pixels
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.errors import UserError


class PackedFrames:
    """A `FrameSource` whose frames come from a part; names and digest are those of the source that was packed."""

    def __init__(self, source: FrameSource, part: Part):
        self._source, self.part = source, part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._source)

    def __reduce__(self) -> tuple:
        return packed_frames, (self._source, self.part.folder.parent)

    def load(self, index: int) -> Frame:
        part = self.part
        return Frame(part.image(index), part.depth(index), part.pair("frame_size", index), part.pair("origin", index))

    def frame_size(self, index: int) -> Size:
        return self.part.pair("frame_size", index)

    def size(self, index: int) -> Size:
        return self.part.size(index)

    def check(self) -> None:
        """Raise a `UserError` if, of a spread of them, one is not what it was when it was packed."""
        self.part.check_sources({index: self._source.files(index) for index in spread(len(self))})


class PackedMaps:
    """`TeacherMaps` that come from a part."""

    def __init__(self, maps: TeacherMaps, part: Part):
        self._maps, self.part = maps, part
        self._position = {key: position for position, key in enumerate(sorted(maps.keys))}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._maps, name)

    def __reduce__(self) -> tuple:
        return packed_maps, (self._maps, self.part.folder.parent)

    def check(self, keys: Iterable[str]) -> None:
        """Raise a `UserError` unless there is a map for each of `keys`, and a spread of them is what it was."""
        keys = list(keys)
        if without := [key for key in keys if key not in self._position]:
            problem = f"{len(without)} of {len(keys)} frames have no map, first {', '.join(without[:3])}"
            raise UserError(f"teacher maps {self._maps.folder}: {problem}")
        self.part.check_sources({self._position[keys[i]]: [self._maps.path(keys[i])] for i in spread(len(keys))})

    def check_size(self, key: str, size: Size) -> None:
        """As `TeacherMaps.check_size`."""
        if (found := self.part.size(self._position[key])) != size:
            raise UserError(
                f"teacher map of the wrong size: {key} in {self.part.folder} is {pixels(found)}, expected {pixels(size)}"
            )

    def stored(self, key: str, size: Size) -> StoredDepth:
        """As `TeacherMaps.stored`."""
        self.check_size(key, size)
        return self.part.depth(self._position[key])


def packed_frames(source: FrameSource, folder: Path) -> PackedFrames:
    """The frames of a source, from a folder of packed data; in one process the same object as long as it is unchanged."""
    return _frames(source, find_part(folder, part_name("frames", source)))


def packed_maps(maps: TeacherMaps, folder: Path) -> PackedMaps:
    """A teacher's maps, likewise."""
    return _maps(maps, find_part(folder, part_name("maps", maps)))


_frames, _maps = lru_cache(maxsize=16)(PackedFrames), lru_cache(maxsize=16)(PackedMaps)


def part_name(what: str, packed: FrameSource | TeacherMaps) -> str:
    return f"{what}-{packed.digest()[:16]}"
