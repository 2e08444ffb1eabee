"""Data sets described by a split list: one row per frame with the paths of its image and its ground truth."""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from tiekd.config import DataConfig
from tiekd.data.frame_source import Box, Frame, Split, spread
from tiekd.data.image_io import (
    MissingFile,
    Size,
    StoredDepth,
    missing_files,
    pixels,
    read_rgb,
    read_uint16,
    rgb_size,
    uint16_size,
)
from tiekd.errors import UserError
from tiekd.store.files import stat_signature


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk, and which part of a frame is its canonical view."""

    root_holds: str  # what a person should find in data.root
    example: str  # a row of its lists
    depth_scale: float  # value of a depth PNG at 1 m
    image_folder: str = ""
    depth_folder: str = ""
    view_size: Size | None = None  # the view lies at the bottom, centred across; None: the whole frame
    train_border: Box | None = None

    def view(self, frame_size: Size) -> Box:
        """The canonical view of a frame."""
        if self.view_size is None:
            return Box(0, 0, *frame_size)
        height, width = self.view_size
        if frame_size[0] < height or frame_size[1] < width:
            raise UserError(f"frame of {pixels(frame_size)} px; at least {pixels(self.view_size)} is needed")
        return Box(frame_size[0] - height, (frame_size[1] - width) // 2, height, width)


@dataclass(frozen=True)
class Row:
    """One row of a split list; its focal length (third column, px) is checked, but nothing reads it."""

    image: str
    depth: str | None

    @property
    def key(self) -> str:
        return str(PurePosixPath(self.image).with_suffix(""))


def list_path(config: DataConfig, split: Split, layout: Layout) -> Path:
    """The file of a split list, or a `UserError`."""
    name = config.train_split if split == "train" else config.test_split
    if config.root is None:
        raise UserError(f"data.root is needed for {config.dataset}: {layout.root_holds}")
    if not Path(config.root).is_dir():
        raise UserError(f"data.root {config.root}: no such folder; for {config.dataset} it holds {layout.root_holds}")
    if name is None:
        raise UserError(f"data.{split}_split is needed for {config.dataset}: a list of frames in {config.root}")
    path = Path(config.root) / name
    if not path.is_file():
        raise UserError(f"data.{split}_split {path}: no such file; a list has rows such as '{layout.example}'")
    return path


def scan_list(path: Path, example: str) -> tuple[list[Row], list[str]]:
    """The good rows of a split list, and one message for each line that is not one."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return [], [f"{path}: not a text file"]
    rows, problems = [], []
    for number, line in enumerate(lines, start=1):
        columns = line.split()
        problem = _problem_of(columns)
        if problem:
            problems.append(f"{path}, line {number}: {problem}, got {line.strip()!r}; a row looks like '{example}'")
        elif columns:
            image, depth, _ = columns
            rows.append(Row(image.lstrip("/"), None if depth == "None" else depth.lstrip("/")))
    if not rows and not problems:
        problems.append(f"{path}: the list is empty; a row looks like '{example}'")
    return rows, problems


def _problem_of(columns: list[str]) -> str | None:
    """What keeps a line from being a row; None for a row or a blank line."""
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
    """Frames that a split list names; a `FrameSource`."""

    def __init__(self, root: Path, name: str, rows: list[Row], layout: Layout):
        self.name, self._root, self._rows, self._layout = name, root, rows, layout
        self.keys = [row.key for row in rows]
        self.unlabelled = sum(row.depth is None for row in rows)
        self.train_border = layout.train_border

    def __len__(self) -> int:
        return len(self._rows)

    def group(self, index: int) -> str:
        """The drive (KITTI: the folder named so) or the scene's folder."""
        parents = PurePosixPath(self.keys[index]).parts[:-1]
        return next((part for part in parents if "_drive_" in part), "/".join(parents))

    def labelled(self, index: int) -> bool:
        return self._rows[index].depth is not None

    def load(self, index: int) -> Frame:
        row = self._rows[index]
        image = read_rgb(self._image_path(row))
        depth = np.zeros(image.shape[:2], np.uint16) if row.depth is None else read_uint16(self._depth_path(row), "depth map")
        view = self._checked_view(row, image.shape[:2], depth.shape)
        stored = StoredDepth(view.of(depth), 1 / self._layout.depth_scale)
        return Frame(view.of(image), stored, image.shape[:2], (view.top, view.left))

    def size(self, index: int) -> Size:
        view = self._survey(index)[1]
        return view.height, view.width

    def frame_size(self, index: int) -> Size:
        return self._survey(index)[0]

    def _survey(self, index: int) -> tuple[Size, Box]:
        row = self._rows[index]
        size = rgb_size(self._image_path(row))
        return size, self._checked_view(row, size, uint16_size(self._depth_path(row), "depth map") if row.depth else size)

    def files(self, index: int) -> list[Path]:
        row = self._rows[index]
        return [self._image_path(row), *([self._depth_path(row)] if row.depth else [])]

    def signature(self, index: int) -> int:
        try:
            return stat_signature(*self.files(index))
        except FileNotFoundError as error:
            raise MissingFile(f"frame {self.keys[index]}: {error.filename}: no such file") from None

    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        rows = "".join(f"{row.image} {row.depth}\n" for row in self._rows)
        return hashlib.sha256(rows.encode()).hexdigest()

    def missing(self) -> tuple[list[str], list[str]]:
        """The images and the depth maps that the list names and that are not there, relative to the root."""
        images = (self._relative(self._layout.image_folder, row.image) for row in self._rows)
        depths = (self._relative(self._layout.depth_folder, row.depth) for row in self._rows if row.depth)
        return missing_files(self._root, images), missing_files(self._root, depths)

    def check(self) -> None:
        counts = (len(self), len(self) - self.unlabelled)
        for what, missing, total in zip(("images", "depth maps"), self.missing(), counts, strict=True):
            if missing:
                raise UserError(
                    f"{self.name}: {len(missing)} of {total} {what} are missing in {self._root}, first {', '.join(missing[:3])}"
                )
        for index in spread(len(self)):
            self._survey(index)

    @staticmethod
    def _relative(folder: str, path: str) -> str:
        return f"{folder}/{path}" if folder else path

    def _image_path(self, row: Row) -> Path:
        return self._root / self._layout.image_folder / row.image

    def _depth_path(self, row: Row) -> Path:
        return self._root / self._layout.depth_folder / row.depth

    def _checked_view(self, row: Row, image_size: Size, depth_size: Size) -> Box:
        if image_size != depth_size:
            raise UserError(
                f"{self._depth_path(row)}: depth map of {pixels(depth_size)} px for an image of {pixels(image_size)} px"
            )
        try:
            return self._layout.view(image_size)
        except UserError as error:
            raise UserError(f"{self._image_path(row)}: {error}") from None


def scan(config: DataConfig, split: Split, layout: Layout) -> tuple[ListedFrames, list[str]]:
    """The frames of a split list's good rows, no more than the config asks for, and what is wrong with its other lines.

    A process reads a list once, and again when the file has changed.
    """
    path = list_path(config, split, layout)
    limit = config.train_frames if split == "train" else config.test_frames
    return _read(Path(config.root), path, limit, layout, stat_signature(path))


@lru_cache(maxsize=16)
def _read(root: Path, path: Path, limit: int | None, layout: Layout, list_stamp: int) -> tuple[ListedFrames, list[str]]:
    rows, problems = scan_list(path, layout.example)
    return ListedFrames(root, str(path), rows[:limit], layout), problems


def open_list(config: DataConfig, split: Split, layout: Layout) -> ListedFrames:
    """The frames of a split list; any line that is not a row is a `UserError`."""
    frames, problems = scan(config, split, layout)
    if problems:
        raise UserError(problems[0] + (f" (and {len(problems) - 1} more such lines)" if len(problems) > 1 else ""))
    return frames
