"""Temporary folders that do not stay behind, even after a kill."""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "tiekd-"
LOCK = ".tiekd-lock"  # a file in each folder, locked by the process that uses it


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Create a folder in `parent` (default: the system's) and delete it at the end of the block.

    Also deletes the folders in `parent` that killed processes have left. Raises OSError if the folder cannot be written.
    """
    parent = parent or Path(tempfile.gettempdir())
    _delete_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def short_link(folder: Path) -> Iterator[Path]:
    """Create a symbolic link in /tmp to a temporary folder, for paths that must be short."""
    parent = Path("/tmp")
    _delete_abandoned(parent)
    link = Path(tempfile.mktemp(prefix=PREFIX, dir=parent))  # of a link: symlink_to fails if the name exists
    link.symlink_to(folder)
    try:
        yield link
    finally:
        link.unlink(missing_ok=True)


def _delete_abandoned(parent: Path) -> None:
    """Delete the temporary folders, and the links to them, whose process is gone."""
    for path in filter(_is_abandoned, parent.glob(f"{PREFIX}*")):
        with contextlib.suppress(OSError):  # of another user, or deleted meanwhile
            if path.is_symlink():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(path: Path) -> bool:
    try:
        with (path / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises OSError while its process lives
    except OSError:
        return path.is_symlink() and not path.exists()
    return True
