"""Where a store lies: a folder, or a bucket of an object store. Whole files by name, and nothing of what they hold."""

import contextlib
import re
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from tiekd.errors import StoreError, UserError
from tiekd.store.files import holds_anything, write_atomically
from tiekd.store.object_store import describe_endpoint, open_objects

SINGLE = 5 * 2**20  # bytes that go up in one request


class Place(Protocol):
    """Files by name, with "/" in it. Every operation raises StoreError where the place cannot be read or written."""

    uri: str
    filesystem: fs.FileSystem
    root: str  # in the filesystem

    def check_writable(self) -> None:
        """Raise a `UserError` now rather than after hours; leaves no file behind."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole: a reader finds the old content, the new, or none, whatever happens meanwhile."""
        ...

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        ...

    def folders(self, name: str) -> list[str]:
        """The names of the folders in a folder, sorted; none where there is no such folder."""
        ...


def open_place(uri: str, begun: bool = False) -> Place:
    """The place that a folder's name or a URI means. Of one that has `begun` it is known that something was written to it.

    Raises UserError for a URI that is none, and for a bucket that is not there or does not answer.
    """
    if "://" not in uri:
        return Folder(uri, Path(uri).expanduser().absolute(), begun)
    parts = urlsplit(uri)
    return Folder(uri, Path(unquote(parts.path)), begun) if parts.scheme == "file" else Bucket(uri, begun)


class Folder:
    """A folder of a local or a shared disk, made by the first write.

    Once something was written, a folder that is empty or gone is a disk that is no longer mounted: nothing is written then,
    lest a second store begin in its place.
    """

    def __init__(self, uri: str, path: Path, begun: bool = False):
        self.uri, self.root, self.filesystem = uri, str(path), fs.LocalFileSystem()
        self._path = path
        found = next(folder for folder in (path, *path.parents) if folder.exists())
        if not found.is_dir():
            raise UserError(f"store {uri}: {found} is a file; a store is a folder or a URI")
        try:
            self._begun = begun or holds_anything(path)
        except OSError as error:
            raise UserError(f"store {uri}: cannot be read: {reason(error)}") from None

    def _check_there(self) -> None:
        """Raise StoreError if what was begun has disappeared."""
        try:
            there = not self._begun or holds_anything(self._path)
        except OSError as error:
            raise StoreError(f"cannot read store {self.uri}: {reason(error)}") from error
        if not there:
            now = "empty" if self._path.is_dir() else "gone"
            raise StoreError(f"store {self.uri} has disappeared: its folder is {now}; is its disk mounted?")

    def check_writable(self) -> None:
        made = [folder for folder in (self._path, *self._path.parents) if not folder.exists()]
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._path).close()
        except OSError as error:
            raise UserError(f"store {self.uri}: not writable: {reason(error)}") from None
        finally:
            for folder in made:
                with contextlib.suppress(OSError):  # another process has begun to fill it
                    folder.rmdir()

    def write(self, name: str, content: bytes) -> None:
        self._check_there()
        try:
            write_atomically(self._path / name, content)
        except OSError as error:
            raise StoreError(f"cannot write {name} in store {self.uri}: {reason(error)}") from error
        self._begun = True

    def read(self, name: str) -> bytes | None:
        try:
            with open(f"{self.root}/{name}", "rb", buffering=0) as file:  # pathlib takes as long as to read a small file
                return file.read()
        except FileNotFoundError:
            self._check_there()
            return None
        except OSError as error:
            raise StoreError(f"cannot read {name} in store {self.uri}: {reason(error)}") from error

    def delete(self, name: str) -> None:
        try:
            (self._path / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot delete {name} in store {self.uri}: {reason(error)}") from error

    def folders(self, name: str) -> list[str]:
        try:
            return sorted(entry.name for entry in (self._path / name).iterdir() if entry.is_dir())
        except FileNotFoundError:
            self._check_there()
            return []
        except OSError as error:
            raise StoreError(f"cannot list {name} in store {self.uri}: {reason(error)}") from error


class Bucket:
    """A prefix of a bucket. An upload takes its object's place when it is complete, and leaves the old one until then."""

    def __init__(self, uri: str, begun: bool = False):
        self.uri = uri
        if not begun:
            self._check_answers()
        self.filesystem, self.root = open_objects(uri)
        self._in_one_request, _ = open_objects(uri, whole=True)

    def _check_answers(self) -> None:
        """Raise a `UserError` unless the bucket is there and may be listed."""
        filesystem, root = open_objects(self.uri, patient=False)
        try:
            # A prefix that holds nothing yet is listed as not found, like a missing bucket.
            found = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
            bucket = root.split("/")[0]
            if not found and filesystem.get_file_info(bucket).type == fs.FileType.NotFound:
                raise UserError(f"store {self.uri}: there is no bucket {bucket!r} at {describe_endpoint(self.uri)}")
        except OSError as error:
            raise UserError(self._refusal(error)) from None

    def _refusal(self, error: OSError) -> str:
        why = reason(error)
        hint = f"{describe_endpoint(self.uri)}, by AWS_ENDPOINT_URL" if "NETWORK_CONNECTION" in why else ""
        if "ACCESS_DENIED" in why or "HTTP status 403" in why or "INVALID_ACCESS_KEY_ID" in why or "SIGNATURE" in why:
            hint = "credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        return f"store {self.uri}: {why}" + (f" ({hint})" if hint else "")

    def check_writable(self) -> None:
        filesystem, root = open_objects(self.uri, patient=False, whole=True)
        probe = f"{root}/.probe-{uuid.uuid4().hex}"
        try:
            _upload(filesystem, probe, b"")
            filesystem.delete_file(probe)
        except OSError as error:
            raise UserError(self._refusal(error)) from None

    def write(self, name: str, content: bytes) -> None:
        filesystem = self._in_one_request if len(content) <= SINGLE else self.filesystem
        try:
            _upload(filesystem, f"{self.root}/{name}", content)
        except OSError as error:
            raise StoreError(f"cannot write {name} in store {self.uri}: {reason(error)}") from error

    def read(self, name: str) -> bytes | None:
        path = f"{self.root}/{name}"
        try:
            while True:
                with self.filesystem.open_input_file(path) as file:
                    content = file.read(file.size())  # in one request: without a size pyarrow reads it piece by piece
                    version = file.metadata()
                # Size and content are two requests. Of an object that was replaced in between the content is cut off, or
                # pyarrow fills it up with whatever lay in memory.
                with self.filesystem.open_input_file(path) as file:
                    if file.metadata() == version:
                        return content
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {name} in store {self.uri}: {reason(error)}") from error

    def delete(self, name: str) -> None:
        try:
            self.filesystem.delete_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"cannot delete {name} in store {self.uri}: {reason(error)}") from error

    def folders(self, name: str) -> list[str]:
        try:
            found = self.filesystem.get_file_info(fs.FileSelector(f"{self.root}/{name}", allow_not_found=True))
        except OSError as error:
            raise StoreError(f"cannot list {name} in store {self.uri}: {reason(error)}") from error
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)


def _upload(filesystem: fs.FileSystem, path: str, content: bytes) -> None:
    """One object, whole.

    pyarrow completes an upload whenever its stream is closed, also by an exception that left it half written. So the content
    is checked before the stream is opened, and the upload runs in a thread, where no signal's exception arises.
    """
    buffer = pa.py_buffer(content)

    def upload() -> None:
        with filesystem.open_output_stream(path) as stream:
            stream.write(buffer)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(upload).result()


def reason(error: OSError) -> str:
    """Why a file operation failed, in one line without the file's name and the request's."""
    text = error.strerror or str(error) or type(error).__name__
    if found := re.search(r"AWS Error .*", text, re.DOTALL):
        text = re.sub(r"\(Request ID: .*?\)", "", found[0])
    return " ".join(text.split())
