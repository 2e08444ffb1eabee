"""Input images: files, folders of files, and frames of videos."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from tiekd.data.image_io import MissingFileError, Size, read_rgb
from tiekd.errors import UserError, os_error_reason, shorten

MAX_NAME = 230  # bytes of an output file's name without suffix, of which file systems keep 255
OUTPUT_SUFFIXES = ("_depth.png", "_colour.png", "_entropy.png")  # of files that may be mistaken for input
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")  # read from folders
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


class InputImage(NamedTuple):
    name: str  # of the output files, without suffix; may contain folders
    pixels: np.ndarray  # uint8 [H, W, 3], RGB

    @property
    def size(self) -> Size:
        height, width, _ = self.pixels.shape
        return height, width


class InputFile(NamedTuple):
    """An image file or a video file."""

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(paths: Iterable[Path], out: Path) -> list[InputFile]:
    """List the input files: a file by its own name, and all images below a folder by their relative paths.

    Links to folders are followed. Raises UserError for a missing file, a folder without images, and files whose output in `out`
    could not be written, or would replace that of another one or an input.
    """
    files = [file for path in paths for file in (_images_below(path) if path.is_dir() else [_single_file(path)])]
    (common, count), *_ = Counter(_as_on_any_disk(file.name) for file in files).most_common(1)
    if count > 1:
        same = [file for file in files if _as_on_any_disk(file.name) == common]
        raise UserError(
            f"{count} images would be written as {same[0].name!r}: {', '.join(str(file.path) for file in same)}; give them in "
            "separate commands, each with its own --out"
        )
    given, folder = {os.path.realpath(file.path) for file in files}, os.path.realpath(out)
    for file in files:
        if len(os.fsencode(os.path.basename(file.name))) > MAX_NAME:
            raise UserError(f"{shorten(str(file.path))}: needed a name of at most {MAX_NAME} bytes without suffix; rename it")
        if replaced := next((suffix for suffix in OUTPUT_SUFFIXES if f"{folder}/{file.name}{suffix}" in given), None):
            raise UserError(f"{out}/{file.name}{replaced}: is among the images, and would be replaced; choose another --out")
    return files


def _as_on_any_disk(name: str) -> str:
    """The name without what some file systems ignore: capitals, and how accented letters are put together."""
    return unicodedata.normalize("NFC", name).casefold()


def _single_file(path: Path) -> InputFile:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file or folder")
    return InputFile(path, path.stem)


def _images_below(folder: Path) -> list[InputFile]:
    try:
        files = sorted(_files_below(folder))
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be listed: {os_error_reason(error)}") from None
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")]
    if not images:
        raise UserError(f"{folder}: no image in this folder; valid suffixes: {', '.join(IMAGE_SUFFIXES)}")
    return [InputFile(path, path.relative_to(folder).with_suffix("").as_posix()) for path in images]


def _files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files below a folder, also through links to folders. above: the real paths of the folders that led here."""
    real = folder.resolve()
    if real in above:  # a link in a circle
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files_below(path, (*above, real))
        else:
            yield path


def read_inputs(files: Iterable[InputFile], every: int, on_error: Callable[[str], None]) -> Iterator[InputImage]:
    """Read images in order; of a video every `every`-th frame. Unreadable files are skipped and reported to `on_error`."""
    for file in files:
        try:
            if file.is_video:
                yield from _read_video(file, every)
            else:
                yield InputImage(file.name, read_rgb(file.path))
        except UserError as error:
            on_error(str(error))


def count_inputs(files: Iterable[InputFile], every: int) -> int | None:
    """Count the images of `read_inputs` for a progress bar; None if a video does not state its number of frames."""
    count = 0
    for file in files:
        n_frames = _count_frames(file.path) if file.is_video else 1
        if not n_frames:
            return None
        count += -(-n_frames // every) if file.is_video else 1
    return count


def check_video_decoder(files: Iterable[InputFile]) -> None:
    """Raise UserError if a file is a video and PyAV is not installed."""
    if any(file.is_video for file in files):
        _import_av()


def _import_av() -> ModuleType:
    try:
        import av
    except ImportError:
        raise UserError("videos need PyAV, the extra 'video': pip install 'tiekd[video]'") from None
    return av


def _count_frames(path: Path) -> int:
    av = _import_av()
    try:
        with av.open(str(path)) as container:
            return container.streams.video[0].frames
    except (av.error.FFmpegError, IndexError):
        return 0  # reported when it is read


def _read_video(file: InputFile, every: int) -> Iterator[InputImage]:
    av = _import_av()
    try:
        with av.open(str(file.path)) as container:
            if not container.streams.video:
                raise UserError(f"video {file.path}: has no video stream")
            for number, frame in enumerate(container.decode(container.streams.video[0])):
                if number % every == 0:
                    upright = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                    yield InputImage(f"{file.name}/{number:06d}", np.ascontiguousarray(upright))
    except av.error.FFmpegError as error:
        raise UserError(f"video {file.path}: cannot be read: {error}") from None
