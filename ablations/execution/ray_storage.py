"""Storage for Ray Tune's own state: the folder `studies/<name>/ray` of the run store.

The state is disposable and deleted at each launch; only the run store says what is done.
"""

import contextlib
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from tiekd.errors import StoreError, os_error_reason
from tiekd.store.files import is_nonempty_folder
from tiekd.store.object_store import open_object_store
from tiekd.store.run_store import RunStore
from tiekd.store.temporary import temporary_folder

LOG = "ray-tune.log"
LOGGERS = ("ray.tune", "ray.train")  # Tune accesses its storage through code of Train


class _NoRecreateHandler(fs.FSSpecHandler):
    """A local filesystem that creates folders only while the store exists, so that a vanished store is not recreated."""

    def __init__(self, root: str):
        super().__init__(LocalFileSystem())
        self._root = root

    def create_dir(self, path: str, recursive: bool) -> None:
        if not is_nonempty_folder(Path(self._root)):
            raise FileNotFoundError(f"{self._root} has disappeared")
        super().create_dir(path, recursive)


def ray_storage(name: str, store: RunStore) -> tuple[str, fs.FileSystem]:
    """Return the folder for Tune's experiments of a study, and its filesystem. Deletes what an earlier launch left there.

    On an object store, Ray retries less than runs do (`fail_fast=True`): its state is not needed.
    """
    _, root = store.filesystem
    folder = f"{root}/studies/{name}"
    store.delete_partial_files(f"studies/{name}")
    if store.local:
        _delete(Path(folder, "ray"), store)
        return folder, fs.PyFileSystem(_NoRecreateHandler(root))
    filesystem, _ = open_object_store(store.uri, fail_fast=True)
    try:
        filesystem.delete_dir(f"{folder}/ray")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StoreError(f"cannot delete studies/{name}/ray in store {store.uri}: {os_error_reason(error)}") from error
    return folder, filesystem


def _delete(folder: Path, store: RunStore) -> None:
    """Delete what an earlier launch, or anybody else, has left. Ray must find nothing there: its files are pickles."""
    try:
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot delete {folder} in store {store.uri}: {os_error_reason(error)}") from error


@contextlib.contextmanager
def tune_log(name: str, store: RunStore) -> Iterator[None]:
    """Redirect Ray Tune's messages to `studies/<name>/ray-tune.log`: useful for debugging, but noise on the screen.

    The file is outside the store until the block ends, so that logging works on a full disk and with an object store.
    """
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    with temporary_folder() as folder:
        file = folder / LOG
        handler = logging.FileHandler(file)
        for logger in loggers:
            logger.handlers, logger.propagate = [handler], False
        try:
            yield
        finally:
            for logger, (handlers, propagate) in zip(loggers, before, strict=True):
                logger.handlers, logger.propagate = handlers, propagate
            handler.close()
            if not isinstance(sys.exception(), StoreError):
                with contextlib.suppress(StoreError):
                    store.write_bytes(f"studies/{name}/{LOG}", file.read_bytes())
