"""Frames and maps from packed data, with the names, digests and values of the files that were packed."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tiekd.data.cache.pack_format import Pack, open_pack
from tiekd.data.frame_source import Frame, FrameSource, WrappedFrames, digest_of_frames, evenly_spaced
from tiekd.data.image_io import Size, StoredDepth, format_size
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.errors import UserError


class PackedFrames(WrappedFrames):
    """A `FrameSource` that loads the frames of another one from a pack."""

    def __init__(self, source: FrameSource, pack: Pack):
        super().__init__(source)
        self.pack = pack

    def __reduce__(self) -> tuple:
        return packed_frames, (self.source, self.pack.folder.parent)

    def load(self, index: int) -> Frame:
        pack = self.pack
        return Frame(pack.image(index), pack.depth(index), pack.pair("frame_size", index), pack.pair("origin", index))

    def frame_size(self, index: int) -> Size:
        return self.pack.pair("frame_size", index)

    def size(self, index: int) -> Size:
        return self.pack.size(index)

    def digest(self) -> str:
        """Return the digest of the files as they were when they were packed; they may have been deleted.

        Raises UserError if the pack has changed since.
        """
        self.pack.check_pixels()
        digests = self.pack.source_digests()
        return digest_of_frames(self.keys, digests) if any(digests) else self.source.digest()

    def check(self) -> None:
        """Raise UserError if one file of a sample has changed since it was packed."""
        self.pack.check_sources({index: self.files(index) for index in evenly_spaced(len(self))})


class PackedMaps:
    """A `MapSource` that loads the maps of a teacher from a pack."""

    def __init__(self, maps: TeacherMaps, pack: Pack):
        self._maps, self.pack = maps, pack
        self._position = {key: position for position, key in enumerate(sorted(maps.keys))}

    def __reduce__(self) -> tuple:
        return packed_maps, (self._maps, self.pack.folder.parent)

    @property
    def max_depth(self) -> float:
        return self._maps.max_depth

    def digest(self) -> str:
        return self._maps.digest()

    def check_content(self, keys: Sequence[str]) -> None:
        """Raise UserError if the pack has changed. Each map agreed with the manifest when it was packed."""
        self.pack.check_pixels()

    def check(self, keys: Sequence[str]) -> None:
        """Raise UserError unless there is a map for each of `keys`, and the files of a sample have not changed."""
        if missing := [key for key in keys if key not in self._position]:
            problem = f"{len(missing)} of {len(keys)} frames have no map, first {', '.join(missing[:3])}"
            raise UserError(f"teacher maps {self._maps.folder}: {problem}")
        self.pack.check_sources({self._position[keys[i]]: [self._maps.path(keys[i])] for i in evenly_spaced(len(keys))})

    def check_size(self, key: str, size: Size) -> None:
        if (found := self.pack.size(self._position[key])) != size:
            raise UserError(
                f"teacher map of the wrong size: {key} in {self.pack.folder} is {format_size(found)}, "
                f"expected {format_size(size)}"
            )

    def load_stored(self, key: str, size: Size) -> StoredDepth:
        self.check_size(key, size)
        return self.pack.depth(self._position[key])


def packed_frames(source: FrameSource, folder: Path) -> PackedFrames:
    """Open the frames of a source in a folder of packed data; the same object as long as the pack is unchanged."""
    return _frames(source, open_pack(folder, pack_name("frames", source.list_digest())))


def packed_maps(maps: TeacherMaps, folder: Path) -> PackedMaps:
    """Open a teacher's maps in a folder of packed data; the same object as long as the pack is unchanged."""
    return _maps(maps, open_pack(folder, pack_name("maps", maps.digest())))


_frames, _maps = lru_cache(maxsize=16)(PackedFrames), lru_cache(maxsize=16)(PackedMaps)


def pack_name(what: str, digest: str) -> str:
    """Return the folder name of a pack of frames (by their `list_digest`) or maps (by their `digest`)."""
    return f"{what}-{digest[:16]}"
