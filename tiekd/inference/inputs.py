"""The images that a person names: files, folders of them, and the frames of videos."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tiekd.data.image_io import MissingFile, read_photo
from tiekd.errors import UserError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")  # what is taken from a folder
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


class InputImage(NamedTuple):
    name: str  # of what is made of it, without suffix; may name folders
    image: np.ndarray  # uint8 [H, W, 3], RGB


class InputFile(NamedTuple):
    """A file with one image or, if it is a video, many."""

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(paths: Iterable[Path]) -> list[InputFile]:
    """The files that are meant: each by its own name; of a folder all images below it, by their paths in it.

    Raises UserError for what is not there, for a folder without images, and where two files have one name.
    """
    sources = [source for path in paths for source in (_below(path) if path.is_dir() else [_file(path)])]
    names = Counter(source.name for source in sources)
    name, count = names.most_common(1)[0]
    if count > 1:
        same = ", ".join(str(source.path) for source in sources if source.name == name)
        raise UserError(
            f"{count} images would be written as {name!r}: {same}; give them in separate commands, each its own --out"
        )
    return sources


def _file(path: Path) -> InputFile:
    if not path.is_file():
        raise MissingFile(f"{path}: no such file or folder")
    return InputFile(path, path.stem)


def _below(folder: Path) -> list[InputFile]:
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not files:
        raise UserError(f"{folder}: no image in this folder; known by their suffixes: {', '.join(IMAGE_SUFFIXES)}")
    return [InputFile(path, path.relative_to(folder).with_suffix("").as_posix()) for path in files]


def read_inputs(sources: Iterable[InputFile], every: int, failed: Callable[[str], None]) -> Iterator[InputImage]:
    """The images in order, of a video every so manieth frame; what cannot be read is told to `failed` and left out."""
    for source in sources:
        try:
            if source.is_video:
                yield from _frames(source, every)
            else:
                yield InputImage(source.name, read_photo(source.path))
        except UserError as error:
            failed(str(error))


def count_inputs(sources: Iterable[InputFile], every: int) -> int | None:
    """How many images they hold, None where a video does not tell; for a progress bar."""
    count = 0
    for source in sources:
        frames = _frame_count(source.path) if source.is_video else 1
        if not frames:
            return None
        count += -(-frames // every) if source.is_video else 1
    return count


def _av():
    try:
        import av
    except ImportError:
        raise UserError("videos need PyAV, the extra 'video': pip install 'tiekd[video]'") from None
    return av


def check_video_decoder(sources: Iterable[InputFile]) -> None:
    """Raise a `UserError` where there is a video, and nothing to read it with."""
    if any(source.is_video for source in sources):
        _av()


def _frame_count(path: Path) -> int:
    av = _av()
    try:
        with av.open(str(path)) as container:
            return container.streams.video[0].frames
    except (av.error.FFmpegError, IndexError):
        return 0  # told when it is read


def _frames(source: InputFile, every: int) -> Iterator[InputImage]:
    av = _av()
    try:
        with av.open(str(source.path)) as container:
            if not container.streams.video:
                raise UserError(f"video {source.path}: holds no pictures")
            for number, frame in enumerate(container.decode(container.streams.video[0])):
                if number % every == 0:
                    upright = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                    yield InputImage(f"{source.name}/{number:06d}", np.ascontiguousarray(upright))
    except av.error.FFmpegError as error:
        raise UserError(f"video {source.path}: cannot be read: {error}") from None
