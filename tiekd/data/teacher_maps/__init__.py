"""A teacher's depth maps on disk: one map of the canonical view of each frame, and a manifest.

FOLDER/<key>.png        16-bit grayscale; depth in m = value * depth_per_unit
FOLDER/manifest.json    written last: a folder without it is unfinished
"""

import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tiekd.data.cache.file_digests import file_digests
from tiekd.data.image_io import (
    MissingFileError,
    Size,
    StoredDepth,
    encode_png,
    format_size,
    missing_files,
    read_uint16,
    uint16_size,
)
from tiekd.errors import UserError
from tiekd.store.files import stat_signature, write_atomically

MAPS_FORMAT = 1
MANIFEST = "manifest.json"
MAX_VALUE = 2**16 - 1


class MapsManifest(BaseModel):
    """The manifest of a folder of maps."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    format: int = Field(ge=MAPS_FORMAT, le=MAPS_FORMAT, description="version of this layout")
    depth_per_unit: float = Field(gt=0, description="m per value of a PNG")
    max_depth: float = Field(gt=0, description="m; depth of the largest value")
    relative: bool = Field(False, description="whether the maps have no unit: 1 is the largest value of each")
    made_by: dict[str, Any] = Field(description="teacher, run, digests of its inputs; not part of the digest")
    sizes: dict[str, int] = Field(description="number of maps of each size, 'HxW'")
    frames: dict[str, str] = Field(description="key of a frame: sha256 of its PNG file")

    @field_validator("frames")
    @classmethod
    def _stay_inside(cls, frames: dict[str, str]) -> dict[str, str]:
        """Keys become names of files."""
        for key in frames:
            if key.startswith("/") or ".." in key.split("/"):
                raise ValueError(f"the key {key!r} leaves the folder")
        return frames


def encode_map(key: str, depth: np.ndarray, max_depth: float) -> bytes:
    """Encode a depth map [H, W] m as a 16-bit PNG whose largest value means `max_depth`; `key` names the frame in messages."""
    if depth.ndim != 2 or not np.isfinite(depth).all():
        raise ValueError(f"teacher map of {key}: needed a finite [H, W] depth map, got shape {depth.shape}")
    value = np.rint(depth.clip(0, max_depth).astype(np.float64) * (MAX_VALUE / max_depth))
    return encode_png(value.astype(np.uint16))


def manifest_bytes(
    max_depth: float, made_by: Mapping[str, Any], sizes: Mapping[str, int], frames: Mapping[str, str], relative: bool = False
) -> bytes:
    """Return the content of a manifest; see `MapsManifest`."""
    manifest = MapsManifest(
        format=MAPS_FORMAT,
        depth_per_unit=max_depth / MAX_VALUE,
        max_depth=max_depth,
        relative=relative,
        made_by=dict(made_by),
        sizes=dict(sizes),
        frames=dict(frames),
    )
    return (manifest.model_dump_json(indent=1) + "\n").encode()


class MapWriter:
    """Context manager that writes a teacher's maps, and the manifest at the end if there was no exception.

    It deletes an earlier manifest first, so that a partly rewritten folder counts as unfinished.
    """

    def __init__(self, folder: str | Path, max_depth: float, made_by: Mapping[str, Any], relative: bool = False):
        self.folder, self.max_depth, self.made_by, self.relative = Path(folder), max_depth, dict(made_by), relative
        self._frames: dict[str, str] = {}
        self._sizes: Counter[str] = Counter()
        self._manifest.unlink(missing_ok=True)

    @property
    def _manifest(self) -> Path:
        return self.folder / MANIFEST

    def write(self, key: str, depth: np.ndarray) -> None:
        """Write the map of one frame. depth [H, W] m, finite; depths outside 0 .. max_depth are clamped."""
        content = encode_map(key, depth, self.max_depth)
        if key in self._frames:
            raise ValueError(f"teacher map of {key}: written twice")
        write_atomically(_map_path(self.folder, key), content)
        self._frames[key] = hashlib.sha256(content).hexdigest()
        self._sizes[format_size((depth.shape[0], depth.shape[1]))] += 1

    def close(self) -> None:
        """Write the manifest, which makes the folder complete."""
        content = manifest_bytes(self.max_depth, self.made_by, self._sizes, self._frames, self.relative)
        write_atomically(self._manifest, content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()


class MapSource(Hashable, Protocol):
    """The maps of one teacher, by the keys of their frames."""

    @property
    def max_depth(self) -> float:
        """The depth at which they end, m."""
        ...

    def digest(self) -> str:
        """Return 64 hex digits that identify the maps: equal maps have equal digests, whatever their location and origin."""
        ...

    def check(self, keys: Sequence[str]) -> None:
        """Raise UserError unless there is a map for each of `keys`."""
        ...

    def check_content(self, keys: Sequence[str]) -> None:
        """Raise UserError unless the map of each of `keys` is the one that the digest covers."""
        ...

    def check_size(self, key: str, size: Size) -> None:
        """Raise UserError unless the map of a frame has 16 bits and `size`, judging by its header."""
        ...

    def load_stored(self, key: str, size: Size) -> StoredDepth:
        """Load the map of a frame [H, W]. Raises UserError if it is missing or does not have `size`."""
        ...


class TeacherMaps:
    """The maps in a teacher's folder; a `MapSource`."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)

    @property
    def keys(self) -> list[str]:
        return list(self.manifest.frames)

    @property
    def max_depth(self) -> float:
        return self.manifest.max_depth

    def path(self, key: str) -> Path:
        return _map_path(self.folder, key)

    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        content = {"depth_per_unit": self.manifest.depth_per_unit, "frames": self.manifest.frames}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def check(self, keys: Sequence[str]) -> None:
        listed = self.manifest.frames
        without = [key for key in keys if key not in listed]
        without += missing_files(self.folder, (f"{key}.png" for key in keys if key in listed))
        if without:
            raise UserError(
                f"teacher maps {self.folder}: {len(without)} of {len(keys)} frames have no map, "
                f"first {', '.join(without[:3])}; export the teacher on these frames"
            )

    def check_content(self, keys: Sequence[str]) -> None:
        listed = self.manifest.frames
        found = file_digests(self.folder, [f"{key}.png" for key in keys])
        wrong = [key for key, sha256 in zip(keys, found, strict=True) if sha256 != listed.get(key)]
        if wrong:
            raise UserError(
                f"teacher maps {self.folder}: {len(wrong)} of {len(keys)} maps do not match manifest.json, "
                f"first {', '.join(wrong[:3])}; export or import the teacher again"
            )

    def check_size(self, key: str, size: Size) -> None:
        path = self.path(key)
        _require_size(path, uint16_size(path, "teacher map"), size)

    def signature(self, key: str) -> int:
        """Return a number that changes with the file of a map; never 0."""
        path = self.path(key)
        try:
            return stat_signature(path)
        except FileNotFoundError:
            raise MissingFileError(f"teacher map {path}: no such file") from None

    def load(self, key: str, size: Size) -> np.ndarray:
        """Load the map of a frame as float32 [H, W] m; see `load_stored`."""
        return self.load_stored(key, size).to_meters()

    def load_stored(self, key: str, size: Size) -> StoredDepth:
        if key not in self.manifest.frames:
            raise UserError(f"teacher maps {self.folder}: no map for frame {key}")
        path = self.path(key)
        value = read_uint16(path, "teacher map")
        _require_size(path, value.shape, size)
        return StoredDepth(value, self.manifest.depth_per_unit)


def open_maps(folder: str | Path) -> TeacherMaps:
    """Open the maps of a folder. A process reads a manifest once, and again when the file has changed."""
    manifest = Path(folder) / MANIFEST
    return _open(folder, stat_signature(manifest)) if manifest.is_file() else TeacherMaps(folder)


@lru_cache(maxsize=16)
def _open(folder: str | Path, signature: int) -> TeacherMaps:
    return TeacherMaps(folder)


def _require_size(path: Path, found: Size, expected: Size) -> None:
    if found != expected:
        raise UserError(
            f"teacher map of the wrong size: {path} is {format_size(found)}, expected the frame's {format_size(expected)}"
        )


def _map_path(folder: Path, key: str) -> Path:
    return folder / f"{key}.png"


def _read_manifest(folder: Path) -> MapsManifest:
    if not folder.is_dir():
        raise UserError(f"teacher maps {folder}: no such folder; teacher.maps is a folder that `tiekd teacher export` wrote")
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(
            f"teacher maps {folder}: no manifest.json, so the export is unfinished or this is not a folder of teacher maps"
        )
    return parse_manifest(path.read_bytes(), str(path))


def is_manifest(content: bytes | None) -> bool:
    """Whether a file exists and is a manifest; a damaged one counts as none."""
    try:
        MapsManifest.model_validate_json(content or b"")
    except ValidationError:
        return False
    return True


def parse_manifest(content: bytes, name: str) -> MapsManifest:
    """Parse a manifest. Raises UserError, which names it, if it is none."""
    try:
        return MapsManifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise UserError(f"teacher maps {name}: not a manifest of format {MAPS_FORMAT}: {where}{first['msg']}") from None
