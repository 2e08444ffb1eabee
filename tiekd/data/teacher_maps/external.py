"""Depth maps from other programs: predictions to evaluate, or the maps of a teacher.

There is one file per frame, [H, W], of the frame's canonical view or of the whole frame, in a format of depth_files.py. Floats
are in m, of integers m = value / depth_scale. A map's name is the first of these that exists, with the first of SUFFIXES:

    <key>              the image's path without suffix, as our own maps are named
    <released name>    its parts joined by "_", as the released TIE-KD code names them (released_layout.py)
    <stem>             its last part

Names shared by several frames are ignored.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from pkgutil import resolve_name

import numpy as np

from tiekd.config.specs import DATASETS
from tiekd.data.depth_files import ARRAYS, WHAT, depth_header, read_depth, require_integers
from tiekd.data.depth_range import N_MAPS, check_ratio, check_units
from tiekd.data.frame_source import Box, Frame, FrameSource, evenly_spaced
from tiekd.data.image_io import Size, format_size, missing_files
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.data.teacher_maps.released_layout import released_name
from tiekd.errors import UserError
from tiekd.metrics import scale_ratio

SUFFIXES = (*ARRAYS, ".png", ".tif", ".tiff", ".pfm")


class ExternalMaps:
    """The maps of a list of frames, each from the first folder that has one."""

    def __init__(
        self,
        folders: Sequence[Path],
        dataset: str,
        keys: Iterable[str],
        depth_scale: float | None = None,
        relative: bool = False,
    ):
        """Find the map of each of `keys`. Raises UserError if one is missing.

        depth_scale: integer at 1 m; None for that of the folder's manifest, or else, in images, of the ground truth.
        relative: the maps have no unit, so their numbers are taken as they are.
        """
        if depth_scale is not None and not 0 < depth_scale < math.inf:
            raise UserError(f"--depth-scale: the integer at 1 m must be above 0, got {depth_scale}")
        names = _possible_names(dataset, list(dict.fromkeys(keys)))
        self._maps: dict[str, tuple[Path, float | None]] = {}
        for folder in folders:
            usual = 1.0 if relative else depth_scale or _scale_of(folder, dataset)
            of_arrays = 1.0 if relative else depth_scale
            found = _find_maps(folder, names).items()
            self._maps = {key: (path, of_arrays if path.suffix in ARRAYS else usual) for key, path in found} | self._maps
        _require_all(folders, names, self._maps)
        self._depth_scale, self._folders = depth_scale, ", ".join(map(str, folders))

    def check_headers(self, *sources: FrameSource) -> None:
        """Raise UserError unless the maps of a sample of each source's frames have a size and a type that `load` accepts."""
        types = set()
        for source, index in ((each, index) for each in sources for index in evenly_spaced(len(each))):
            if source.keys[index] not in self._maps:
                continue
            path, scale = self._maps[source.keys[index]]
            size, dtype = depth_header(path)
            types.add(dtype.kind)
            _require_unit(path, dtype, scale)
            _require_size(path, size, source.size(index), source.frame_size(index))
        if self._depth_scale is not None and types == {"f"}:
            raise UserError(f"--depth-scale {self._depth_scale:g}: is only used for integers, and all maps hold floats, in m")

    def check_units(self, source: FrameSource, max_depth: float) -> str:
        """Raise UserError unless the maps of some of a source's frames can be in m, for data up to `max_depth`.

        Returns remarks if they probably are not, by their medians or those of the ground truth, or if some are negative.
        """
        indices = [index for index in range(len(source)) if source.keys[index] in self._maps]
        sample = [indices[place] for place in evenly_spaced(len(indices), N_MAPS)]
        what, remedy = f"{WHAT}s {self._folders}", "; the scale of integers is --depth-scale"
        ratios, negative = [], []

        def maps() -> Iterator[np.ndarray]:
            for index in sample:
                frame = source.load(index)
                depth = self.load(source.keys[index], frame)
                negative.append(float(np.mean(depth < 0)))
                measured = (frame.depth_gt > 0) & (frame.depth_gt <= max_depth)
                ratios.append(scale_ratio(depth[measured], frame.depth_gt[measured]))
                yield depth

        remark = check_units(maps(), max_depth, what, remedy)
        finite = [ratio for ratio in ratios if math.isfinite(ratio)]
        if finite:
            remark = check_ratio(statistics.median(finite), what, remedy) or remark
        if share := statistics.fmean(negative or [0]):
            remark = f"{remark}; " if remark else f"{what}: "
            remark += f"{share:.2%} of the depths are negative, and count as the smallest"
        return remark

    def load(self, key: str, frame: Frame) -> np.ndarray:
        """Load the depth of a frame's view, float32 [H, W] m. Raises UserError if it is not finite everywhere."""
        path, scale = self._maps[key]
        depth = read_depth(path)
        _require_unit(path, depth.dtype, scale)
        depth = (depth if depth.dtype.kind == "f" else depth / scale).astype(np.float32)
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
        raise UserError(f"depth maps {folder}: no such folder; needed one with a map for each frame")
    absent = set(missing_files(folder, (name for candidates in names.values() for name in candidates)))
    first = {key: next((n for n in candidates if n not in absent), None) for key, candidates in names.items()}
    return {key: folder / name for key, name in first.items() if name}


def _require_all(folders: Sequence[Path], names: dict[str, list[str]], found: dict[str, tuple]) -> None:
    missing = [key for key in names if key not in found]
    if missing:
        looked_for = " or ".join(name for name in names[missing[0]] if name.endswith(".png"))
        raise UserError(
            f"depth maps {', '.join(map(str, folders))}: {len(missing)} of {len(names)} frames have no map, "
            f"first {', '.join(missing[:3])}; looked for {looked_for} (or {', '.join(sorted({*SUFFIXES} - {'.png'}))})"
        )


def _scale_of(folder: Path, dataset: str) -> float | None:
    """The value at 1 m of the PNGs in a folder, if the folder or the data set states it."""
    if (folder / "manifest.json").is_file():
        return 1 / TeacherMaps(folder).manifest.depth_per_unit
    spec = DATASETS[dataset]
    return resolve_name(str(spec.layout)).depth_scale if spec.frames is None else None


def _require_unit(path: Path, dtype: np.dtype, scale: float | None) -> None:
    """Raise UserError unless the values of a map are m, or integers with a scale."""
    if dtype.kind == "f":
        return
    require_integers(path, dtype, "or floats in m")
    if scale is None:
        raise UserError(f"{WHAT} {path}: --depth-scale is needed, the integer at 1 m, e.g. 256; nothing else states it")


def _require_size(path: Path, found: Size, view: Size, whole: Size) -> None:
    if found not in (view, whole):
        expected = format_size(view) + (f" (the view) or {format_size(whole)} (the whole frame)" if whole != view else "")
        raise UserError(f"{WHAT} of the wrong size: {path} is {format_size(found)}, expected {expected}")
