"""Data sets described by a split list: one row per frame with the paths of its image and its ground truth."""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from tiekd.config import DataConfig
from tiekd.data.frame_source import Box, Frame, Split, TrainRegion, evenly_spaced
from tiekd.data.image_io import (
    MissingFileError,
    Size,
    StoredDepth,
    format_size,
    missing_files,
    read_rgb,
    read_uint16,
    rgb_size,
    uint16_size,
)
from tiekd.errors import UserError
from tiekd.store.files import stat_signature

MIN_VIEW_SHARE = 0.75  # of a frame; 0.92 for KITTI, 0.81 for KITTI-360


@dataclass(frozen=True)
class Layout:
    """The folders of a data set on disk, and the part of a frame that is its canonical view."""

    root_holds: str  # expected content of data.root, for messages
    example: str  # a row of its lists, for messages
    depth_scale: float  # value in a depth PNG at 1 m
    image_folder: str = ""
    depth_folder: str = ""
    view_size: Size | None = None  # at the bottom of the frame, horizontally centered; None: the whole frame
    train_region: TrainRegion | None = None  # part of the view that training uses; None: all of it

    def view(self, frame_size: Size) -> Box:
        """Return the canonical view of a frame."""
        if self.view_size is None:
            return Box(0, 0, *frame_size)
        height, width = self.view_size
        if frame_size[0] < height or frame_size[1] < width:
            raise UserError(f"frame of {format_size(frame_size)} px; at least {format_size(self.view_size)} is needed")
        if height * width < MIN_VIEW_SHARE * frame_size[0] * frame_size[1]:
            raise UserError(
                f"frame of {format_size(frame_size)} px; the view of {format_size(self.view_size)} would leave out more than "
                f"{1 - MIN_VIEW_SHARE:.0%} of it, so it is not a frame of this data set"
            )
        return Box(frame_size[0] - height, (frame_size[1] - width) // 2, height, width)


@dataclass(frozen=True)
class ListEntry:
    """One row of a split list. Its third column, a focal length in px, is checked and not used."""

    image: str
    depth: str | None

    @property
    def key(self) -> str:
        return str(PurePosixPath(self.image).with_suffix(""))


def _find_list(config: DataConfig, split: Split, layout: Layout) -> tuple[Path, Path]:
    """Return the root folder of the data set and the file of a split list. Raises UserError if one is missing."""
    name = config.train_split if split == "train" else config.test_split
    if config.root is None:
        raise UserError(f"data.root is needed for {config.dataset}: {layout.root_holds}")
    root = Path(config.root)
    if not root.is_dir():
        raise UserError(f"data.root {config.root}: no such folder; for {config.dataset} it holds {layout.root_holds}")
    if name is None:
        raise UserError(f"data.{split}_split is needed for {config.dataset}: a list of frames in {config.root}")
    path = root / name
    if not path.is_file():
        raise UserError(f"data.{split}_split {path}: no such file; a list has rows such as '{layout.example}'")
    return root, path


def parse_list(path: Path, example: str) -> tuple[list[ListEntry], list[str]]:
    """Parse a split list; returns its valid rows and one message per invalid line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return [], [f"{path}: not a text file"]
    rows, problems = [], []
    for number, line in enumerate(lines, start=1):
        columns = line.split()
        problem = _row_problem(columns)
        if problem:
            problems.append(f"{path}, line {number}: {problem}, got {line.strip()!r}; a row looks like '{example}'")
        elif columns:
            image, depth, _ = columns
            rows.append(ListEntry(image.lstrip("/"), None if depth == "None" else depth.lstrip("/")))
    if not rows and not problems:
        problems.append(f"{path}: the list is empty; a row looks like '{example}'")
    return rows, problems


def _row_problem(columns: list[str]) -> str | None:
    """Explain why a line is not a valid row; None for a valid row or a blank line."""
    if not columns:
        return None
    if len(columns) != 3:
        return f"needed 3 columns (image, ground truth or None, focal length in px), found {len(columns)}"
    if not _is_focal_length(columns[2]):
        return "the third column is no focal length in px"
    if any(not path.strip("/") or ".." in PurePosixPath(path).parts for path in columns[:2]):
        return "a path must name a file below its folder"
    return None


def _is_focal_length(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


class ListedFrames:
    """The frames of a split list; a `FrameSource`."""

    def __init__(self, root: Path, name: str, rows: list[ListEntry], layout: Layout):
        self.name, self._root, self._rows, self._layout = name, root, rows, layout
        self.keys = [row.key for row in rows]
        self.n_without_ground_truth = sum(row.depth is None for row in rows)
        self.train_region = layout.train_region

    def __len__(self) -> int:
        return len(self._rows)

    def group(self, index: int) -> str:
        """Return the drive (KITTI: the folder with `_drive_` in its name) or the folder of the scene."""
        parents = PurePosixPath(self.keys[index]).parts[:-1]
        return next((part for part in parents if "_drive_" in part), "/".join(parents))

    def has_ground_truth(self, index: int) -> bool:
        return self._rows[index].depth is not None

    def load(self, index: int) -> Frame:
        row = self._rows[index]
        image = read_rgb(self._image_path(row))
        height, width = image.shape[:2]
        path = self._depth_path(row)
        depth = np.zeros((height, width), np.uint16) if path is None else read_uint16(path, "depth map")
        view = self._checked_view(row, (height, width), depth.shape)
        stored = StoredDepth(view.crop(depth), 1 / self._layout.depth_scale)
        return Frame(view.crop(image), stored, (height, width), (view.top, view.left))

    def size(self, index: int) -> Size:
        _, view = self._read_headers(index)
        return view.height, view.width

    def frame_size(self, index: int) -> Size:
        size, _ = self._read_headers(index)
        return size

    def _read_headers(self, index: int) -> tuple[Size, Box]:
        """Size of the frame, and its canonical view."""
        row = self._rows[index]
        path, size = self._depth_path(row), rgb_size(self._image_path(row))
        return size, self._checked_view(row, size, uint16_size(path, "depth map") if path else size)

    def files(self, index: int) -> list[Path]:
        row = self._rows[index]
        paths = self._image_path(row), self._depth_path(row)
        return [path for path in paths if path]

    def signature(self, index: int) -> int:
        try:
            return stat_signature(*self.files(index))
        except FileNotFoundError as error:
            raise MissingFileError(f"frame {self.keys[index]}: {error.filename}: no such file") from None

    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        rows = "".join(f"{row.image} {row.depth}\n" for row in self._rows)
        return hashlib.sha256(rows.encode()).hexdigest()

    def missing(self) -> tuple[list[str], list[str]]:
        """Return the images and the depth maps of the list that do not exist, relative to the root."""
        images = (self._relative(self._layout.image_folder, row.image) for row in self._rows)
        depths = (self._relative(self._layout.depth_folder, row.depth) for row in self._rows if row.depth)
        return missing_files(self._root, images), missing_files(self._root, depths)

    def check(self) -> None:
        counts = (len(self), len(self) - self.n_without_ground_truth)
        for what, missing, total in zip(("images", "depth maps"), self.missing(), counts, strict=True):
            if missing:
                raise UserError(
                    f"{self.name}: {len(missing)} of {total} {what} are missing in {self._root}, first {', '.join(missing[:3])}"
                )
        for index in evenly_spaced(len(self)):
            self._read_headers(index)

    @staticmethod
    def _relative(folder: str, path: str) -> str:
        return f"{folder}/{path}" if folder else path

    def _image_path(self, row: ListEntry) -> Path:
        return self._root / self._layout.image_folder / row.image

    def _depth_path(self, row: ListEntry) -> Path | None:
        return self._root / self._layout.depth_folder / row.depth if row.depth else None

    def _checked_view(self, row: ListEntry, image_size: Size, depth_size: Size) -> Box:
        if image_size != depth_size:
            raise UserError(
                f"{self._depth_path(row)}: depth map of {format_size(depth_size)} px "
                f"for an image of {format_size(image_size)} px"
            )
        try:
            return self._layout.view(image_size)
        except UserError as error:
            raise UserError(f"{self._image_path(row)}: {error}") from None


def scan_split_list(config: DataConfig, split: Split, layout: Layout) -> tuple[ListedFrames, list[str]]:
    """Open the frames of the valid rows of a split list, at most as many as the config asks for.

    Returns them with one message per invalid line. A process reads a list once, and again when the file has changed.
    """
    root, path = _find_list(config, split, layout)
    limit = config.train_frames if split == "train" else config.test_frames
    return _read(root, path, limit, layout, stat_signature(path))


@lru_cache(maxsize=16)
def _read(root: Path, path: Path, limit: int | None, layout: Layout, signature: int) -> tuple[ListedFrames, list[str]]:
    rows, problems = parse_list(path, layout.example)
    return ListedFrames(root, str(path), rows[:limit], layout), problems


def open_list(config: DataConfig, split: Split, layout: Layout) -> ListedFrames:
    """Open the frames of a split list. Raises UserError for an invalid line."""
    frames, problems = scan_split_list(config, split, layout)
    if problems:
        raise UserError(problems[0] + (f" (and {len(problems) - 1} more such lines)" if len(problems) > 1 else ""))
    return frames
