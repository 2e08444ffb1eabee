"""Data set `folder`: any RGB-D folder, whose frames are found by patterns (`data.folder`).

An image and its depth map are paired by their wildcards. The split is given by folders, by groups, or by a share of the groups
or of the time.
"""

import hashlib
import os
import re
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from tiekd.config import DataConfig, FolderConfig
from tiekd.data.cache.file_digests import SETTLING_TIME, file_digests
from tiekd.data.depth_files import compact, depth_header, read_depth
from tiekd.data.frame_source import (
    SPLITS,
    Frame,
    Split,
    TrainRegion,
    digest_of_frames,
    evenly_spaced,
    signature_of_frame,
)
from tiekd.data.image_io import Size, StoredDepth, format_size, missing_files, read_rgb, rgb_size
from tiekd.errors import UserError

MAX_STRETCH = 1.05  # of a frame's sides against each other, when it is brought to data.frame_size
_WILDCARD = re.compile(r"\*\*/|\*\*|\*")
_REGEX = {"**/": "((?:[^/]+/)*)", "**": "(.*)", "*": "([^/]*)"}
Wildcards = tuple[str, ...]


class Entry(NamedTuple):
    """The files of a frame, relative to the root."""

    image: str
    depth: str | None
    mask: str | None

    @property
    def key(self) -> str:
        return str(PurePosixPath(self.image).with_suffix(""))


class FolderFrames:
    """The frames of one split of a folder; a `FrameSource`."""

    train_region: TrainRegion | None = None

    def __init__(self, root: Path, entries: tuple[Entry, ...], groups: tuple[str, ...], config: FolderConfig, size: Size):
        self._root, self._entries, self._groups, self._config, self._size = root, entries, groups, config, size
        self.keys = [entry.key for entry in entries]
        self.n_without_ground_truth = sum(entry.depth is None for entry in entries)

    def __len__(self) -> int:
        return len(self._entries)

    def group(self, index: int) -> str:
        return self._groups[index]

    def has_ground_truth(self, index: int) -> bool:
        return self._entries[index].depth is not None

    def load(self, index: int) -> Frame:
        """Load a frame, brought to data.frame_size: the image smoothly, depth from the nearest pixel."""
        entry = self._entries[index]
        image = read_rgb(self._root / entry.image)
        self._check_shape(entry, (image.shape[0], image.shape[1]))
        if image.shape[:2] != self._size:
            image = np.asarray(Image.fromarray(image).resize(self._size[::-1], Image.Resampling.BILINEAR))
        depth = self._load_depth(entry) if entry.depth else StoredDepth(np.zeros(self._size, np.uint16))
        return Frame(image, depth, self._size, (0, 0))

    def _load_depth(self, entry: Entry) -> StoredDepth:
        path = self._root / str(entry.depth)
        values = compact(read_depth(path, self._config.array))
        if self._config.rotate_bits:
            if values.dtype != np.uint16:
                raise UserError(f"depth map {path}: data.folder.rotate_bits needs 16-bit integers, found {values.dtype}")
            shift = self._config.rotate_bits
            values = (values >> shift) | (values << (16 - shift))
        valid = np.isfinite(values) & (values > 0) & ~np.isin(values, self._config.invalid)
        if entry.mask:
            mask = read_depth(self._root / entry.mask)
            if mask.shape != values.shape:
                sizes = format_size((mask.shape[0], mask.shape[1])), format_size((values.shape[0], values.shape[1]))
                raise UserError(f"mask {self._root / entry.mask}: {sizes[0]} px for a depth map of {sizes[1]} px")
            valid &= mask != 0
        return StoredDepth(_nearest(np.where(valid, values, 0), self._size), 1 / self._config.depth_scale)

    def _check_shape(self, entry: Entry, found: Size) -> None:
        """Raise UserError if bringing a frame to data.frame_size would distort it."""
        stretch = (found[0] / found[1]) / (self._size[0] / self._size[1])
        if not 1 / MAX_STRETCH <= stretch <= MAX_STRETCH:
            raise UserError(
                f"image {self._root / entry.image}: {format_size(found)} px cannot be brought to data.frame_size "
                f"{format_size(self._size)} without distortion; needed the same ratio of height to width"
            )

    def size(self, index: int) -> Size:
        return self.frame_size(index)

    def frame_size(self, index: int) -> Size:
        entry = self._entries[index]
        self._check_shape(entry, rgb_size(self._root / entry.image))
        if entry.depth:
            self._check_shape(entry, depth_header(self._root / entry.depth, self._config.array).size)
        return self._size

    def files(self, index: int) -> list[Path]:
        return [self._root / name for name in self._entries[index] if name]

    def signature(self, index: int) -> int:
        return signature_of_frame(self.keys[index], self.files(index))

    def list_digest(self) -> str:
        return hashlib.sha256(repr((self._size, self._entries)).encode()).hexdigest()

    def digest(self) -> str:
        names = [name for entry in self._entries for name in entry if name]
        found = iter(file_digests(self._root, names))
        return digest_of_frames(self.keys, [[next(found) for name in entry if name] for entry in self._entries])

    def check(self) -> None:
        if absent := missing_files(self._root, (name for entry in self._entries for name in entry if name)):
            raise UserError(f"{self._root}: {len(absent)} files have disappeared, first {absent[0]}")
        for index in evenly_spaced(len(self)):
            self.frame_size(index)


def _nearest(values: np.ndarray, size: Size) -> np.ndarray:
    """Bring a depth map [H, W] to a size; each new pixel has the value of the nearest old one, so none are mixed."""
    if values.shape == size:
        return values
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(np.int64), old - 1)
        for new, old in zip(size, values.shape, strict=True)
    )
    return values[rows[:, None], columns]


def folder_frames(config: DataConfig, split: Split) -> FolderFrames:
    """Open the frames of one split, at most as many as the config asks for; the same object while they are the same files.

    Raises UserError if there are none, or if the folder does not exist.
    """
    folder, size = config.folder, config.frame_size
    assert folder is not None  # as the config checks
    assert size is not None
    if config.root is None or not Path(config.root).is_dir():
        raise UserError(f"data.root {config.root}: no such folder")
    root = Path(config.root)
    limit = config.train_frames if split == "train" else config.test_frames
    return _open(root, list_files(root), folder, split, limit, size)


@lru_cache(maxsize=16)
def _open(
    root: Path, names: tuple[str, ...], folder: FolderConfig, split: Split, limit: int | None, size: Size
) -> FolderFrames:
    entries, groups = zip(*_of_split(root, names, folder, split)[:limit], strict=True)
    return FolderFrames(root, entries, groups, folder, size)


def _of_split(root: Path, names: Sequence[str], folder: FolderConfig, split: Split) -> list[tuple[Entry, str]]:
    """Return the frames of a split with their groups, in order."""
    place = folder.splits[SPLITS.index(split)]
    entries = find_entries(names, folder, place)
    repeated = [key for key, count in Counter(entry.key for entry in entries).items() if count > 1]
    if repeated:
        raise UserError(
            f"data.root {root}: {len(repeated)} images differ from another one only in their suffix, first {repeated[0]}; "
            "narrow data.folder.images"
        )
    grouped = list(zip(entries, group_names(entries, folder), strict=True))
    chosen = grouped if "{split}" in folder.images else _choose(grouped, folder, split)
    if not chosen:
        what = folder.images.replace("{split}", place)
        found = f"{len(entries)} images match, and the split leaves none" if entries else "no image matches"
        raise UserError(f"data.root {root}: {found} for {split} ({what}); `tiekd data check {root}` tells what is there")
    return chosen


def find_entries(names: Sequence[str], folder: FolderConfig, place: str) -> list[Entry]:
    """Find the images among the files of a folder, and their depth maps and masks; `place` replaces {split}.

    In natural order: frame 10 comes after 9.
    """
    images, depths, masks = (
        _matches(names, pattern.replace("{split}", place)) if pattern else {}
        for pattern in (folder.images, folder.depths, folder.masks)
    )
    depth_of, mask_of = _Pairing(depths, folder), _Pairing(masks, folder)
    entries = [Entry(name, depth_of(wildcards), mask_of(wildcards)) for name, wildcards in images.items()]
    return sorted(entries, key=lambda entry: _natural(entry.image))


def list_files(root: Path) -> tuple[str, ...]:
    """Return the files below a folder, relative to it, without hidden ones. Links are followed, each folder once.

    A process lists a folder once, and again when it or a folder below has changed.
    """
    known, names = _listed.get(root, ({}, ()))
    if known and known == {folder: _state(folder) for folder in known}:
        return names
    started = time.time_ns()
    names, folders = _walk(root)
    states = {folder: _state(folder) for folder in folders}
    if all(max(state[:2]) < started - SETTLING_TIME for state in states.values()):  # else it may change unseen
        _listed[root] = states, names
    return names


_listed: dict[Path, tuple[dict[str, tuple[int, int, int]], tuple[str, ...]]] = {}  # states of the folders, and the files


def _state(folder: str) -> tuple[int, int, int]:
    """Times of modification and of change in ns, and the inode; zeros if there is no such folder."""
    try:
        found = os.stat(folder)
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _walk(root: Path) -> tuple[tuple[str, ...], list[str]]:
    """The files below a folder, relative to it, and all folders that were listed."""
    found, listed, seen = [], [], set()
    for parent, folders, files in os.walk(root, followlinks=True):
        place = os.path.realpath(parent)
        if place in seen:  # a link to a folder above would lead round for ever
            folders.clear()
            continue
        seen.add(place)
        listed.append(parent)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = "" if parent == str(root) else f"{os.path.relpath(parent, root)}/"
        found += [f"{below}{name}" for name in files if not name.startswith(".")]
    return tuple(found), listed


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key in which numbers count by value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _matches(names: Sequence[str], pattern: str) -> dict[str, Wildcards]:
    """The names that a pattern matches, with what its wildcards stand for."""
    regex, end = "", 0
    for wildcard in _WILDCARD.finditer(pattern):
        regex += re.escape(pattern[end : wildcard.start()]) + _REGEX[wildcard[0]]
        end = wildcard.end()
    compiled = re.compile(regex + re.escape(pattern[end:]))
    found = ((name, compiled.fullmatch(name)) for name in names)
    return {name: match.groups() for name, match in found if match}


class _Pairing:
    """Finds the file that belongs to an image, by the wildcards of both patterns."""

    def __init__(self, files: dict[str, Wildcards], folder: FolderConfig):
        self._folder = folder
        self._by_name = {wildcards: name for name, wildcards in files.items()}
        self._beside: defaultdict[Wildcards, list[str]] = defaultdict(list)
        self._times: defaultdict[Wildcards, list[tuple[float, str]]] = defaultdict(list)
        for name, wildcards in files.items():
            self._beside[wildcards[:-1]].append(name)
            if folder.pair_by == "time":
                self._times[wildcards[:-1]].append((_seconds(wildcards[-1]), name))
        for times in self._times.values():
            times.sort()
        self._n_wildcards = len(next(iter(self._by_name), ()))

    def __call__(self, wildcards: Wildcards) -> str | None:
        if not self._by_name:
            return None
        wildcards = wildcards[: self._n_wildcards]
        if self._folder.pair_by == "name":
            return self._by_name.get(wildcards)
        if self._folder.pair_by == "folder":
            beside = self._beside.get(wildcards[:-1], [])
            return beside[0] if len(beside) == 1 else None
        return self._nearest(self._times.get(wildcards[:-1], []), _seconds(wildcards[-1]))

    def _nearest(self, times: list[tuple[float, str]], wanted: float) -> str | None:
        position = bisect_left(times, (wanted, ""))
        near = times[max(position - 1, 0) : position + 1]
        found = min(near, key=lambda item: abs(item[0] - wanted), default=None)
        return found[1] if found and abs(found[0] - wanted) <= self._folder.time_tolerance else None


def _seconds(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        raise UserError(f"data.folder.pair_by time: the last wildcard must be a time in s, got {name!r}") from None


def group_names(entries: Sequence[Entry], folder: FolderConfig) -> list[str]:
    """Return the group of each frame: of its path, and with group_frames a block of it. Frames are in order."""
    names = [_group(entry, folder) for entry in entries]
    if folder.group_frames is None:
        return names
    counts: defaultdict[str, int] = defaultdict(int)
    blocks = []
    for name in names:
        blocks.append(f"{name}/{counts[name] // folder.group_frames:05d}".lstrip("/"))
        counts[name] += 1
    return blocks


def _group(entry: Entry, folder: FolderConfig) -> str:
    if folder.group is None:
        return str(PurePosixPath(entry.image).parent).removeprefix(".")
    found = re.search(folder.group, entry.image)
    if found is None:
        raise UserError(f"data.folder.group {folder.group!r}: does not match the image {entry.image}")
    return next((part for part in found.groups() if part is not None), found[0])


def _choose(grouped: list[tuple[Entry, str]], folder: FolderConfig, split: Split) -> list[tuple[Entry, str]]:
    """Choose the frames of a split that no folder of its own holds."""
    if folder.test_groups:
        tested = {group for _, group in grouped if any(fnmatchcase(group, pattern) for pattern in folder.test_groups)}
        return [(entry, group) for entry, group in grouped if (group in tested) == (split == "test")]
    if folder.split_by == "time":
        return _by_time(grouped, folder, split)
    tested = _draw_groups(grouped, folder)
    return [(entry, group) for entry, group in grouped if (group in tested) == (split == "test")]


def _by_time(grouped: list[tuple[Entry, str]], folder: FolderConfig, split: Split) -> list[tuple[Entry, str]]:
    """The first frames of each folder for training, the last for the test, and none of the gap between them."""
    by_folder: defaultdict[str, list[tuple[Entry, str]]] = defaultdict(list)
    for entry, group in grouped:
        by_folder[str(PurePosixPath(entry.image).parent)].append((entry, group))
    chosen = []
    for frames in by_folder.values():
        n_test = round(folder.test_share * len(frames))
        n_train = len(frames) - n_test - round(folder.split_gap * len(frames))
        chosen += frames[:n_train] if split == "train" else frames[len(frames) - n_test :]
    return chosen


def _draw_groups(grouped: list[tuple[Entry, str]], folder: FolderConfig) -> set[str]:
    """Draw groups until they have the share of the frames that is tested on."""
    counts: defaultdict[str, int] = defaultdict(int)
    for _, group in grouped:
        counts[group] += 1
    names, tested, n_tested = list(counts), set(), 0
    for position in np.random.default_rng(folder.split_seed).permutation(len(names)):
        name = names[position]
        if n_tested + counts[name] / 2 <= folder.test_share * len(grouped):
            tested.add(name)
            n_tested += counts[name]
    return tested
