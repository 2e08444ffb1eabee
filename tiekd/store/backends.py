"""Storage backends: whole files by name in a folder or in a bucket of an object store."""

import contextlib
import errno
import os
import tempfile
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from tiekd.errors import DamagedFileError, StoreError, UserError, is_unicode, os_error_reason
from tiekd.store.files import (
    create_atomically,
    delete_partial_files,
    is_nonempty_folder,
    nearest_existing,
    write_atomically,
)
from tiekd.store.object_store import ObjectStoreBackend

DAMAGE = {errno.EACCES, errno.EIO, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ENXIO, errno.EPERM}


class StorageBackend(Protocol):
    """Files by name; names contain "/". Every operation raises StoreError if the storage cannot be read or written."""

    uri: str
    root: str  # path of the folder, or bucket and prefix

    def check_writable(self) -> None:
        """Raise UserError if nothing can be written. Leaves no file behind."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file: a reader finds the old content, the new content, or no file, even after a crash."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Write a whole small file unless it exists; returns whether it has been written. Of two writers, one succeeds."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist. DamagedFileError: only this file is unreadable."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        ...

    def list_folders(self, name: str) -> list[str]:
        """Return the sorted names of the subfolders of a folder; empty if the folder does not exist."""
        ...

    def list_files(self, name: str) -> dict[str, float]:
        """Return when each file in a folder was last written, in seconds by the clock of the storage; empty without folder."""
        ...

    def delete_partial_files(self, name: str) -> None:
        """Delete the partial files that killed processes have left in a folder."""
        ...


def open_backend(uri: str, must_exist: bool = False) -> StorageBackend:
    """Open the storage at a folder or URI. With `must_exist`, an empty folder is an error and not a new store.

    Raises UserError if `uri` is invalid, or if its bucket does not exist or does not respond.
    """
    if not uri.strip() or "\0" in uri:
        raise UserError(f"store {uri!r}: expected a folder or a URI")
    if not is_unicode(uri):  # which neither pyarrow nor a config can hold
        raise UserError(f"store {uri!a}: expected a name in UTF-8")
    if "://" not in uri:
        return FolderBackend(uri, Path(uri).expanduser().absolute(), must_exist)
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise UserError(f"store {uri}: not a URI: {error}") from None
    if parts.scheme == "file":
        return FolderBackend(uri, Path(unquote(parts.path)), must_exist)
    return ObjectStoreBackend(uri, check=not must_exist)


class FolderBackend:
    """A folder on a local or shared disk, created by the first write.

    A folder that had files and is now empty or missing is an unmounted disk. Nothing is written then, because that would start
    a second store below the mount point.
    """

    def __init__(self, uri: str, path: Path, must_exist: bool = False):
        self.uri, self.root = uri, str(path)
        self._path = path
        nearest = nearest_existing(path)
        if not nearest.is_dir():
            raise UserError(f"store {uri}: {nearest} is a file; a store is a folder or a URI")
        try:
            self._has_files = must_exist or is_nonempty_folder(path)
        except OSError as error:
            raise UserError(f"store {uri}: cannot be read: {os_error_reason(error)}") from None

    def _check_still_there(self) -> None:
        """Raise StoreError if the folder had files and is now empty or missing."""
        try:
            there = not self._has_files or is_nonempty_folder(self._path)
        except OSError as error:
            raise StoreError(f"cannot read store {self.uri}: {os_error_reason(error)}") from error
        if not there:
            now = "empty" if self._path.is_dir() else "gone"
            raise StoreError(f"store {self.uri} has disappeared: its folder is {now}; is its disk mounted?")

    def check_writable(self) -> None:
        created = [folder for folder in (self._path, *self._path.parents) if not folder.exists()]
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._path).close()
        except OSError as error:
            raise UserError(f"store {self.uri}: not writable: {os_error_reason(error)}") from None
        finally:
            for folder in created:
                with contextlib.suppress(OSError):  # another process already writes to it
                    folder.rmdir()

    def write(self, name: str, content: bytes) -> None:
        self._check_still_there()
        try:
            write_atomically(self._path / name, content)
        except OSError as error:
            raise StoreError(f"cannot write {name} in store {self.uri}: {os_error_reason(error)}") from error
        self._has_files = True

    def create(self, name: str, content: bytes) -> bool:
        self._check_still_there()
        try:
            created = create_atomically(self._path / name, content)
        except OSError as error:
            raise StoreError(f"cannot write {name} in store {self.uri}: {os_error_reason(error)}") from error
        self._has_files = True
        return created

    def read(self, name: str) -> bytes | None:
        try:
            with open(f"{self.root}/{name}", "rb", buffering=0) as file:  # building a Path takes as long as a small read
                return file.read()
        except FileNotFoundError:
            self._check_still_there()
            return None
        except OSError as error:
            raise self._error(f"cannot read {name}", error) from error

    def delete(self, name: str) -> None:
        try:
            (self._path / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot delete {name} in store {self.uri}: {os_error_reason(error)}") from error

    def list_folders(self, name: str) -> list[str]:
        try:
            return sorted(entry.name for entry in (self._path / name).iterdir() if entry.is_dir())
        except FileNotFoundError:
            self._check_still_there()
            return []
        except OSError as error:
            raise self._error(f"cannot list {name}", error) from error

    def list_files(self, name: str) -> dict[str, float]:
        found: dict[str, float] = {}
        try:
            with os.scandir(self._path / name) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                        if entry.is_file() and not entry.name.startswith("."):  # a partial file
                            found[entry.name] = entry.stat().st_mtime
        except FileNotFoundError:
            self._check_still_there()
        except OSError as error:
            raise self._error(f"cannot list {name}", error) from error
        return found

    def _error(self, what: str, error: OSError) -> StoreError:
        """A DamagedFileError if only this file cannot be read. Any other failure, of a network or a process, may pass."""
        self._check_still_there()
        kind = DamagedFileError if error.errno in DAMAGE else StoreError
        return kind(f"{what} in store {self.uri}: {os_error_reason(error)}")

    def delete_partial_files(self, name: str) -> None:
        delete_partial_files(self._path / name)
