"""Depth maps from other programs: predictions to evaluate, or the maps of a teacher.

There is one file per frame, a 16-bit PNG (m = value / depth_scale) or a .npy of floats [H, W] m, of the frame's canonical view
or of the whole frame. Its name is the first of these that exists, .npy before .png:

    <key>              the image's path without suffix, as our own maps are named
    <released name>    its parts joined by "_", as the released TIE-KD code names them (released_layout.py)
    <stem>             its last part

Names shared by several frames are ignored.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from pkgutil import resolve_name

import numpy as np

from tiekd.config.specs import DATASETS
from tiekd.data.depth_range import N_MAPS, check_units
from tiekd.data.frame_source import Box, Frame, FrameSource, evenly_spaced
from tiekd.data.image_io import Size, format_size, missing_files, read_uint16, uint16_size
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.data.teacher_maps.released_layout import released_name
from tiekd.errors import UserError

SUFFIXES = (".npy", ".png")
WHAT = "depth map"


class ExternalMaps:
    """The maps of a list of frames, each from the first folder that has one."""

    def __init__(self, folders: Sequence[Path], dataset: str, keys: Iterable[str], depth_scale: float | None = None):
        """Find the map of each of `keys`. Raises UserError if one is missing.

        depth_scale: value in a PNG at 1 m; None for that of the folder's manifest, or else of the data set's ground truth.
        """
        if depth_scale is not None and not 0 < depth_scale < math.inf:
            raise UserError(f"--depth-scale: the value in a PNG at 1 m must be above 0, got {depth_scale}")
        names = _possible_names(dataset, list(dict.fromkeys(keys)))
        self._maps: dict[str, tuple[Path, float | None]] = {}
        for folder in folders:
            scale = depth_scale or _scale_of(folder, dataset)
            self._maps = {key: (path, scale) for key, path in _find_maps(folder, names).items()} | self._maps
        _require_all(folders, names, self._maps)
        if depth_scale is not None and all(path.suffix == ".npy" for path, _ in self._maps.values()):
            raise UserError(f"--depth-scale {depth_scale:g}: is only used for PNGs, and all maps are .npy files, which hold m")
        self._folders = ", ".join(map(str, folders))

    def check_sizes(self, source: FrameSource) -> None:
        """Raise UserError unless the maps of a sample of a source's frames have a size that `load` accepts."""
        for index in evenly_spaced(len(source)):
            if source.keys[index] in self._maps:
                path, scale = self._maps[source.keys[index]]
                _require_size(path, _size(path, scale), source.size(index), source.frame_size(index))

    def check_units(self, source: FrameSource, max_depth: float) -> None:
        """Raise UserError unless the maps of some of a source's frames can be in m, for data up to `max_depth`."""
        indices = [index for index in range(len(source)) if source.keys[index] in self._maps]
        sample = (indices[place] for place in evenly_spaced(len(indices), N_MAPS))
        maps = (self.load(source.keys[index], source.load(index)) for index in sample)
        check_units(maps, max_depth, f"{WHAT}s {self._folders}", "; the scale of a PNG is --depth-scale")

    def load(self, key: str, frame: Frame) -> np.ndarray:
        """Load the depth of a frame's view, float32 [H, W] m. Raises UserError if it is not finite everywhere."""
        path, scale = self._maps[key]
        depth = _read(path, scale)
        _require_size(path, depth.shape, frame.size, frame.frame_size)
        if depth.shape != frame.size:
            depth = Box(*frame.origin, *frame.size).crop(depth)
        unusable = depth.size - np.isfinite(depth).sum()
        if unusable:
            raise UserError(f"{WHAT} {path}: {unusable} of {depth.size} depths are not finite; needed m at every pixel")
        return np.ascontiguousarray(depth)


def _possible_names(dataset: str, keys: list[str]) -> dict[str, list[str]]:
    """The file names that the map of each key may have, in order of preference."""
    kinds = [keys, [released_name(dataset, key) for key in keys], [PurePosixPath(key).name for key in keys]]
    counts = [Counter(kind) for kind in kinds]
    names: dict[str, list[str]] = {}
    for key, *candidates in zip(keys, *kinds, strict=True):
        unique = [name for name, count in zip(candidates, counts, strict=True) if count[name] == 1]
        names[key] = [f"{name}{suffix}" for name in dict.fromkeys(unique) for suffix in SUFFIXES]
    return names


def _find_maps(folder: Path, names: dict[str, list[str]]) -> dict[str, Path]:
    """The maps in a folder, by key."""
    if not folder.is_dir():
        raise UserError(f"depth maps {folder}: no such folder; needed one with a 16-bit PNG or .npy for each frame")
    absent = set(missing_files(folder, (name for candidates in names.values() for name in candidates)))
    first = {key: next((n for n in candidates if n not in absent), None) for key, candidates in names.items()}
    return {key: folder / name for key, name in first.items() if name}


def _require_all(folders: Sequence[Path], names: dict[str, list[str]], found: dict[str, tuple]) -> None:
    missing = [key for key in names if key not in found]
    if missing:
        looked_for = " or ".join(name for name in names[missing[0]] if name.endswith(".png"))
        raise UserError(
            f"depth maps {', '.join(map(str, folders))}: {len(missing)} of {len(names)} frames have no map, "
            f"first {', '.join(missing[:3])}; looked for {looked_for} (or .npy)"
        )


def _scale_of(folder: Path, dataset: str) -> float | None:
    """The value at 1 m of the PNGs in a folder, if the folder or the data set states it."""
    if (folder / "manifest.json").is_file():
        return 1 / TeacherMaps(folder).manifest.depth_per_unit
    spec = DATASETS[dataset]
    return resolve_name(str(spec.layout)).depth_scale if spec.frames is None else None


def _read(path: Path, scale: float | None) -> np.ndarray:
    """float32 [H, W] m."""
    if path.suffix == ".npy":
        return np.array(_map_npy(path), np.float32)
    return (read_uint16(path, WHAT) / _require_scale(scale, path)).astype(np.float32)


def _size(path: Path, scale: float | None) -> Size:
    """Height and width from the header. Raises UserError if the file cannot be read as depth."""
    if path.suffix == ".npy":
        height, width = _map_npy(path).shape
        return height, width
    _require_scale(scale, path)
    return uint16_size(path, WHAT)


def _require_scale(scale: float | None, path: Path) -> float:
    if scale is None:
        raise UserError(f"{WHAT} {path}: --depth-scale is needed, the value in a PNG at 1 m, e.g. 256; the data set has none")
    return scale


def _map_npy(path: Path) -> np.ndarray:
    """Map a .npy of floats [H, W] into memory."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{WHAT} {path}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
        found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise UserError(f"{WHAT} {path}: needed floats [H, W] in m, found {found}")
    return array


def _require_size(path: Path, found: Size, view: Size, whole: Size) -> None:
    if found not in (view, whole):
        expected = format_size(view) + (f" (the view) or {format_size(whole)} (the whole frame)" if whole != view else "")
        raise UserError(f"{WHAT} of the wrong size: {path} is {format_size(found)}, expected {expected}")
