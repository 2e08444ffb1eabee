"""Files on a local disk."""

import os
import uuid
from pathlib import Path

from tiekd.errors import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole, through a rename: whoever looks finds the old content, the new, or none. Makes its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def stamp(*paths: Path) -> int:
    """A number that differs once one of the files is edited or replaced; never 0. Raises OSError where one is not there."""
    found = (path.stat() for path in paths)
    return hash(tuple((s.st_mtime_ns, s.st_size, s.st_ino, s.st_dev) for s in found)) or 1


def holds_anything(folder: Path) -> bool:
    """Whether a folder is there and not empty. Raises OSError where it cannot be listed."""
    try:
        return any(folder.iterdir())
    except FileNotFoundError:
        return False


def nearest_folder(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    place = folder.absolute()
    return next(parent for parent in (place, *place.parents) if parent.exists())


def check_folder(folder: Path, what: str) -> None:
    """Raise a `UserError` unless files can be written to a folder, which need not be there yet. `what` it is, for messages."""
    nearest = nearest_folder(folder)
    if not nearest.is_dir():
        raise UserError(f"{what} {folder}: {nearest} is a file; needed a folder")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"{what} {folder}: {nearest} is not writable")
