"""Data sets described by a split list: one row per frame with the paths of its image and its ground truth."""

import hashlib
import itertools
import logging
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from tiekd.config import DataConfig
from tiekd.data.cache.file_digests import file_digests
from tiekd.data.depth_files import compact, depth_header, read_depth, require_integers
from tiekd.data.frame_source import (
    Box,
    Frame,
    Split,
    TrainRegion,
    digest_of_frames,
    evenly_spaced,
    same_frames,
    signature_of_frame,
)
from tiekd.data.image_io import Size, StoredDepth, format_size, missing_files, read_rgb, rgb_size
from tiekd.errors import UserError
from tiekd.store.files import stat_signature

LOG = logging.getLogger(__name__)
MIN_VIEW_SHARE = 0.75  # of a frame; 0.92 for KITTI, 0.81 for KITTI-360
MAX_SEARCHED = 2000  # folders in which a missing file is looked for


@dataclass(frozen=True)
class Layout:
    """The folders of a data set on disk, and the part of a frame that is its canonical view."""

    root_holds: str  # expected content of data.root, for messages
    example: str  # a row of its lists, for messages
    depth_scale: float  # value in a depth PNG at 1 m
    image_folder: str = ""
    depth_folder: str = ""
    other_image_folders: tuple[str, ...] = ()  # tried in this order for a file that is not in the first; {split}: train, test
    other_depth_folders: tuple[str, ...] = ()
    view_size: Size | None = None  # at the bottom of the frame, horizontally centered; None: the whole frame
    train_region: TrainRegion | None = None  # part of the view that training uses; None: all of it

    def image_folders(self, split: Split) -> list[str]:
        """Return the folders that may hold an image, relative to the root, the usual one first."""
        return [folder.format(split=split) for folder in (self.image_folder, *self.other_image_folders)]

    def depth_folders(self, split: Split) -> list[str]:
        """Return the folders that may hold a depth map."""
        return [folder.format(split=split) for folder in (self.depth_folder, *self.other_depth_folders)]

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
        texts = ", ".join(sorted(file.name for file in root.glob("*.txt"))[:5])
        found = f"found {texts} there; " if texts else ""
        raise UserError(f"data.{split}_split {path}: no such file; {found}a list has rows such as '{layout.example}'")
    return root, path


def parse_list(path: Path, example: str) -> tuple[list[ListEntry], list[str]]:
    """Parse a split list; returns its valid rows and one message per invalid line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return [], [f"{path}: not a text file"]
    rows, problems = [], []
    for number, line in enumerate(lines, start=1):
        columns = _columns(line)
        problem = _row_problem(columns)
        if problem:
            problems.append(f"{path}, line {number}: {problem}, got {line.strip()!r}; a row looks like '{example}'")
        elif columns:
            image, depth, _ = columns
            rows.append(ListEntry(image.lstrip("/"), None if depth == "None" else depth.lstrip("/")))
    if not rows and not problems:
        problems.append(f"{path}: the list is empty; a row looks like '{example}'")
    return rows, problems


_COLUMN = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|(\S+))(?=\s|$)""")


def _columns(line: str) -> list[str]:
    """Divide a line at tabs if that gives three columns, otherwise at blanks; a column with blanks may stand in quotes."""
    tabbed = [column.strip() for column in line.split("\t") if column.strip()]
    if len(tabbed) == 3:
        return [found[1] or found[2] or found[3] if (found := _COLUMN.fullmatch(column)) else column for column in tabbed]
    return [first or second or plain for first, second, plain in _COLUMN.findall(line)]


def _row_problem(columns: list[str]) -> str | None:
    """Explain why a line is not a valid row; None for a valid row or a blank line."""
    if not columns:
        return None
    if len(columns) != 3:
        hint = "; put a path with blanks in quotes, or tabs between the columns" if len(columns) > 3 else ""
        return f"needed 3 columns (image, ground truth or None, focal length in px), found {len(columns)}{hint}"
    if not _is_focal_length(columns[2]):
        return "the third column is no focal length in px"
    return next((problem for path in columns[:2] if (problem := _path_problem(path))), None)


def _path_problem(path: str) -> str | None:
    """Explain why a path cannot name a file below a folder; None if it can."""
    if not path.strip("/"):
        return f"the path {path!r} names no file"
    if path.endswith("/"):
        return f"the path {path!r} names a folder"
    if ".." in PurePosixPath(path).parts:
        return f"the path {path!r} leaves its folder"
    if "\\" in path:
        return f"the path {path!r} has backslashes; needed /"
    if "://" in path:
        return f"the path {path!r} is a URL; needed a file below the data set's folder"
    if not path.isprintable():
        return f"the path {path!r} has a control character"
    return None


def _is_focal_length(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


class ListedFrames:
    """The frames of a split list; a `FrameSource`."""

    def __init__(self, root: Path, name: str, rows: list[ListEntry], layout: Layout, split: Split):
        self.name, self._root, self._rows, self._layout, self._split = name, root, rows, layout, split
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
        image = read_rgb(self._image_path(index))
        height, width = image.shape[:2]
        path = self._depth_path(index)
        depth = np.zeros((height, width), np.uint16) if path is None else self._read_depth(path)
        view = self._checked_view(index, (height, width), depth.shape)
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
        path, size = self._depth_path(index), rgb_size(self._image_path(index))
        return size, self._checked_view(index, size, self._depth_size(path) if path else size)

    def _read_depth(self, path: Path) -> np.ndarray:
        values = read_depth(path)
        self._require_integers(path, values.dtype)
        return compact(values)

    def _depth_size(self, path: Path) -> Size:
        size, dtype = depth_header(path)
        self._require_integers(path, dtype)
        return size

    def _require_integers(self, path: Path, dtype: np.dtype) -> None:
        meaning = f"value / {self._layout.depth_scale:g} = m (data.dataset folder reads others, by data.folder.depth_scale)"
        require_integers(path, dtype, meaning)

    def files(self, index: int) -> list[Path]:
        paths = self._image_path(index), self._depth_path(index)
        return [path for path in paths if path]

    def signature(self, index: int) -> int:
        return signature_of_frame(self.keys[index], self.files(index))

    def list_digest(self) -> str:
        return self._list_digest

    @cached_property
    def _list_digest(self) -> str:
        rows = "".join(f"{row.image} {row.depth}\n" for row in self._rows)
        return hashlib.sha256(rows.encode()).hexdigest()

    def digest(self) -> str:
        images, depths = self._places
        found = iter(file_digests(self._root, [*images, *(depth for depth in depths if depth)]))
        files = [[image] for image in itertools.islice(found, len(images))]
        for digests, depth in zip(files, depths, strict=True):
            digests += [next(found)] if depth else []
        return digest_of_frames(self.keys, files)

    @cached_property
    def _places(self) -> tuple[list[str], list[str | None]]:
        """The image and the depth map of each row, relative to the root."""
        return self._locate()[0]

    def missing(self) -> tuple[list[str], list[str]]:
        """Look for the files of all rows again; returns the images and the depth maps that do not exist, below the root."""
        self._places, missing = self._locate()
        return missing

    def _locate(self) -> tuple[tuple[list[str], list[str | None]], tuple[list[str], list[str]]]:
        """Look for the files of all rows. Returns `_places`, and the images and the depth maps that do not exist."""
        images = [row.image for row in self._rows]
        depths = [row.depth for row in self._rows if row.depth]
        image_places, missing_images = _find_files(self._root, self._layout.image_folders(self._split), images)
        depth_places, missing_depths = _find_files(self._root, self._layout.depth_folders(self._split), depths)
        depth_of_rows = [depth_places[row.depth] if row.depth else None for row in self._rows]
        return ([image_places[image] for image in images], depth_of_rows), (missing_images, missing_depths)

    def place_hint(self, what: str, missing: str) -> str:
        """Say where a missing file ("images" or "depth maps") was looked for, and where it is."""
        of_images, layout = what == "images", self._layout
        return _place_hint(self._root, (layout.image_folders if of_images else layout.depth_folders)(self._split), missing)

    def check(self) -> None:
        if repeated := same_frames(self):
            LOG.warning(
                "%s: %d frames are listed more than once, first %s; each row counts", self.name, len(repeated), repeated[0]
            )
        counts = (len(self), len(self) - self.n_without_ground_truth)
        for what, missing, total in zip(("images", "depth maps"), self.missing(), counts, strict=True):
            if missing:
                raise UserError(
                    f"{self.name}: {len(missing)} of {total} {what} are missing in {self._root}, "
                    f"first {', '.join(missing[:3])}{self.place_hint(what, missing[0])}"
                )
        for index in evenly_spaced(len(self)):
            self._read_headers(index)

    def _image_path(self, index: int) -> Path:
        return self._root / self._places[0][index]

    def _depth_path(self, index: int) -> Path | None:
        place = self._places[1][index]
        return self._root / place if place else None

    def _checked_view(self, index: int, image_size: Size, depth_size: Size) -> Box:
        if image_size != depth_size:
            raise UserError(
                f"{self._depth_path(index)}: depth map of {format_size(depth_size)} px "
                f"for an image of {format_size(image_size)} px"
            )
        try:
            return self._layout.view(image_size)
        except UserError as error:
            raise UserError(f"{self._image_path(index)}: {error}") from None


def _find_files(root: Path, folders: Sequence[str], names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Find files, each in the first folder that has it; returns their places and those that are in none of the folders.

    Places are relative to the root; a missing file is placed in the first folder.
    """
    places = {name: _joined(folders[0], name) for name in names}
    missing = list(places)
    for folder in folders:
        candidates = {_joined(folder, name): name for name in missing}
        absent = set(missing_files(root, candidates))
        places |= {name: place for place, name in candidates.items() if place not in absent}
        missing = [name for place, name in candidates.items() if place in absent]
        if not missing:
            break
    return places, [places[name] for name in missing]


def _joined(folder: str, name: str) -> str:
    """Join paths as strings, since a data set has some 50,000 of them."""
    return f"{folder}/{name}" if folder else name


def _place_hint(root: Path, folders: Sequence[str], missing: str) -> str:
    """Say where a missing file was looked for, and where it is if that is at most two folders below the root."""
    name = PurePosixPath(missing).relative_to(folders[0])
    tried = f"; looked in {', '.join(folder or '.' for folder in folders)}" if len(folders) > 1 else ""
    for form in ("NFC", "NFD"):  # macOS divides letters such as ä; lists written there, or files unpacked there, differ
        if (other := unicodedata.normalize(form, missing)) != missing and (root / other).is_file():
            return f"{tried}; the file's name has other Unicode characters that look the same ({form})"
    for pattern in ("*", "*/*"):
        for folder in itertools.islice(root.glob(pattern), MAX_SEARCHED):
            if (folder / name).is_file():
                return f"{tried}; {name} is in {folder}: move or link {folder}/* to {root / folders[0]}"
    return tried


def scan_split_list(config: DataConfig, split: Split, layout: Layout) -> tuple[ListedFrames, list[str]]:
    """Open the frames of the valid rows of a split list, at most as many as the config asks for.

    Returns them with one message per invalid line. A process reads a list once, and again when the file has changed.
    """
    root, path = _find_list(config, split, layout)
    limit = config.train_frames if split == "train" else config.test_frames
    return _read(root, path, limit, layout, split, stat_signature(path))


@lru_cache(maxsize=16)
def _read(
    root: Path, path: Path, limit: int | None, layout: Layout, split: Split, signature: int
) -> tuple[ListedFrames, list[str]]:
    rows, problems = parse_list(path, layout.example)
    return ListedFrames(root, str(path), rows[:limit], layout, split), problems


def open_list(config: DataConfig, split: Split, layout: Layout) -> ListedFrames:
    """Open the frames of a split list. Raises UserError for an invalid line."""
    frames, problems = scan_split_list(config, split, layout)
    if problems:
        raise UserError(problems[0] + (f" (and {len(problems) - 1} more such lines)" if len(problems) > 1 else ""))
    return frames
