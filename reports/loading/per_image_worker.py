"""Read per-image rows in a worker process while this one reads the other files: Python code uses one core per process.

A plain process and not a `ProcessPoolExecutor`, whose worker waits for tasks forever once its caller has been killed.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pyarrow as pa

from reports.loading.per_image import RUNS_AT_ONCE, read_images
from tiekd.errors import StoreError, error_line
from tiekd.store.run_store import RunStore

MANY_RUNS = 750  # reading the images of this many runs takes as long as starting a process


class ImageReader(NamedTuple):
    """Reads the images of the runs passed to `add`; `result`, called once at the end, returns what `read_images` does."""

    add: Callable[[str], None]
    result: Callable[[], tuple[pa.Table, dict[str, str]]]


@contextmanager
def open_image_reader(store: RunStore, n_runs: int, path: Path | None) -> Iterator[ImageReader]:
    """A reader of the images of n_runs runs, in a worker process from MANY_RUNS on; see `read_images`."""
    if n_runs < MANY_RUNS:
        run_ids = list[str]()
        yield ImageReader(run_ids.append, lambda: read_images(store, run_ids, path))
        return
    context = get_context("spawn")  # a forked process would inherit locks held by other threads
    ours, theirs = context.Pipe()
    worker = context.Process(target=_read_received, args=(theirs, store.uri, path))
    with _hidden_main():
        worker.start()
    theirs.close()

    batch: list[str] = []  # each message makes the threads that read runs wait for Python's lock

    def send() -> None:
        with suppress(ConnectionError):  # the worker has failed: `result` raises its error
            ours.send(batch)
        batch.clear()

    def add(run_id: str) -> None:
        batch.append(run_id)
        if len(batch) == RUNS_AT_ONCE:
            send()

    def result() -> tuple[pa.Table, dict[str, str]]:
        if batch:
            send()
        send()  # an empty batch is the last one
        try:
            answer = ours.recv()
        except (EOFError, ConnectionError):
            answer = "the process that reads them was killed"
        if isinstance(answer, str):
            raise StoreError(f"could not read the images of the runs: {answer}")
        return answer

    try:
        with ours:
            yield ImageReader(add, result)
    finally:
        worker.join()


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Keeps processes started in this context from importing __main__, which would run a script without a guard again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _read_received(connection: Connection, uri: str, path: Path | None) -> None:
    """Read the images of the runs whose ids are received up to an empty batch, and send the result, or the error as text."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the caller, which then closes the connection
    answer: tuple[pa.Table, dict[str, str]] | str
    try:
        answer = read_images(RunStore(uri, must_exist=True), chain.from_iterable(iter(connection.recv, [])), path)
    except Exception as error:  # EOFError: the caller has failed or was killed
        answer = error_line(error)
    with suppress(ConnectionError):
        connection.send(answer)
