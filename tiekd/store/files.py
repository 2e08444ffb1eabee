"""Atomic writes and checks of files on a local disk."""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import uuid
from pathlib import Path
from typing import Any

from tiekd.errors import UserError

PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}")  # names of partial files
MAX_PARTIAL = 50  # characters of a file's name that its partial file keeps, so that its name fits if the file's does
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}  # of a file system without hard links
MAX_NAME = 150  # characters; file systems keep 255 bytes, of which suffixes and temporary names take some
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # on Windows


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file through a rename, so that a reader finds the old content, the new content, or no file.

    Creates the parent folders. A killed process leaves its partial file, without a lock; see `delete_partial_files`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name[:MAX_PARTIAL]}.{uuid.uuid4().hex}")
    try:
        with partial.open("wb") as stream:
            with contextlib.suppress(OSError):  # the filesystem has no locks
                fcntl.flock(stream, fcntl.LOCK_EX)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
            partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror, str(path)) from None  # such as a full disk, which names no file
        raise


def create_atomically(path: Path, content: bytes) -> bool:
    """Write a file unless it exists; returns whether it has been written. Of several processes, one succeeds.

    A reader finds the whole file or none, where the file system has hard links. Creates the parent folders.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        partial.write_bytes(content)
        try:
            os.link(partial, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with path.open("xb") as stream:  # a reader may find it empty for a moment
                stream.write(content)
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    return True


def json_text(value: Any, **options: Any) -> str:
    """Format plain values as valid JSON, which has no NaN and no infinity: numbers that are not finite become null.

    options: of `json.dumps`.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def delete_partial_files(folder: Path) -> None:
    """Delete the partial files that killed processes have left in a folder; those being written are locked, and stay."""
    for path in folder.glob(".*"):
        if PARTIAL.fullmatch(path.name):
            with contextlib.suppress(OSError), path.open("rb+") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises OSError while it is written
                path.unlink()


def safe_name(text: str, length: int = MAX_NAME) -> str:
    """Turn a text into a name that every file system keeps: ASCII, not reserved, at most `length` characters.

    A text that is changed gets a digest, so that different texts have different names.
    """
    name = re.sub(r"[^A-Za-z0-9.,=+_ -]", "_", text)
    if (
        name == text
        and len(name) <= length
        and name[:1] not in ("", ".", " ", "-")
        and name[-1] not in ". "
        and not RESERVED.match(name)
    ):
        return name
    name = f"_{name}" if RESERVED.match(name) else name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name[: length - len(digest) - 1].strip('. -') or '_'}-{digest}"


def stat_signature(*paths: Path) -> int:
    """Hash the modification times, sizes and inodes of files; never 0. It changes when a file is edited or replaced.

    Raises OSError if a file is missing.
    """
    found = (path.stat() for path in paths)
    return hash(tuple((s.st_mtime_ns, s.st_size, s.st_ino, s.st_dev) for s in found)) or 1


def is_nonempty_folder(folder: Path) -> bool:
    """Return whether a folder exists and has entries. Raises OSError if it cannot be listed."""
    try:
        return any(folder.iterdir())
    except FileNotFoundError:
        return False


def nearest_existing(path: Path) -> Path:
    """Return the path itself if it exists, otherwise its nearest existing parent."""
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


def check_output_folder(folder: Path, what: str) -> None:
    """Raise UserError unless files can be written to a folder, which may not exist yet. `what` names it in the message."""
    nearest = nearest_existing(folder)
    if not nearest.is_dir():
        raise UserError(f"{what} {folder}: {nearest} is a file; needed a folder")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"{what} {folder}: {nearest} is not writable")
