"""The run store: what was computed, on any filesystem that pyarrow knows; the only truth about runs.

    STORE/runs/<run_id>/   config.yaml  attempt.json  status.json  epochs.parquet  images.parquet  summary.json
                           provenance.json  efficiency.json  student.safetensors  checkpoint/state.pt  error.txt
    STORE/studies/<name>/  study.json  findings.json
    STORE/efficiency/<device>/<network>.json

Every write is atomic: a reader finds the whole old file, the whole new file, or none. A run is done exactly when its status
says so, and the status is written last.
"""

import io
import json
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyarrow import fs

from tiekd.config import RunConfig, build
from tiekd.errors import StoreError, SupersededError
from tiekd.store.backends import Folder, open_place

if TYPE_CHECKING:
    import pandas as pd

_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same loader in C, where PyYAML was built with it

State = Literal["done", "failed", "diverged", "constant", "running", "missing"]
STATES: tuple[str, ...] = get_args(State)
Found = TypeVar("Found")
READERS = 32  # runs of an object store that are read at the same time
FOLDER_READERS = 4  # of a folder; more would only get in each other's way
AT_A_TIME = 4  # runs of a folder that one of them reads in a row: to hand one over takes a fifth as long as to read it
FINISHED = ("done", "diverged", "constant")  # computing again would give the same; "failed" may not


@dataclass(frozen=True)
class Status:
    """Where a run stands. `cause` says why it is not done, in one line; times are seconds since 1970."""

    state: State
    cause: str = ""
    epoch: int = 0  # epochs finished
    epochs: int = 0  # epochs asked for
    device_seconds: float = 0.0  # spent so far, over all workers and interruptions
    started: float = 0.0
    updated: float = field(default_factory=time.time)


_STATUS = [f.name for f in fields(Status)]  # older stores hold more


@dataclass(frozen=True)
class Attempt:
    """A beginning of a run: by the process `pid` on `host`, which works on it or waits for those that do."""

    id: str
    host: str
    pid: int

    @classmethod
    def here(cls) -> "Attempt":
        return cls(uuid.uuid4().hex, socket.gethostname(), os.getpid())

    @property
    def alive(self) -> bool | None:
        """Whether its process is there; None where only another machine could tell."""
        if self.host != socket.gethostname():
            return None
        try:
            os.kill(self.pid, 0)
        except OSError as error:
            return isinstance(error, PermissionError)
        return True


class RunStore:
    """The runs and studies beneath one folder or URI (`s3://bucket/prefix`, `gs://...`).

    Processes that a launch has started say that it has `begun`: a store that is empty for them has disappeared, and is not
    begun again. Raises UserError for a place that cannot be a store; every other method raises StoreError where the store
    cannot be read or written.
    """

    def __init__(self, uri: str | Path, begun: bool = False):
        self.uri = str(uri)
        self._place = open_place(self.uri, begun)

    @property
    def local(self) -> bool:
        return isinstance(self._place, Folder)

    @property
    def filesystem(self) -> tuple[fs.FileSystem, str]:
        """The pyarrow filesystem and the store's path in it."""
        return self._place.filesystem, self._place.root

    def check_writable(self) -> None:
        """Raise a `UserError` now rather than after hours; leaves no file behind."""
        self._place.check_writable()

    # -- files ------------------------------------------------------------------------------------------------------------

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write one file atomically: a rename on a disk, a completed upload on an object store."""
        self._place.write(name, content)

    def read_bytes(self, name: str) -> bytes | None:
        """A file's content, or None where there is none."""
        return self._place.read(name)

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        self._place.delete(name)

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

    def read_json(self, name: str) -> Any | None:
        content = self.read_bytes(name)
        try:
            return None if content is None else json.loads(content)
        except ValueError as error:
            raise StoreError(f"{name} in store {self.uri} is damaged: {error}") from None

    def write_table(self, name: str, table: "pd.DataFrame") -> None:
        """Write a Parquet file that is quick to read.

        What is all different gains nothing by a dictionary, numbers nothing by compression, one row group nothing by
        statistics; and to read pandas' and Arrow's own descriptions takes as long as to read two columns.
        """
        rows, buffer = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(), io.BytesIO()
        words = [field.name for field in rows.schema if not pa.types.is_primitive(field.type)]
        pq.write_table(
            rows,
            buffer,
            compression={name: "snappy" if name in words else "none" for name in rows.column_names},
            use_dictionary=[name for name in words if len(rows[name].unique()) < len(rows) / 2],
            write_statistics=False,
            store_schema=False,
        )
        self.write_bytes(name, buffer.getvalue())

    def read_arrow(self, name: str, columns: list[str] | None = None) -> pa.Table | None:
        """A table, of `columns` those that it has. Read on one thread: who reads many tables does so on several."""
        content = self.read_bytes(name)
        if content is None:
            return None
        file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)  # all of it is in memory
        return file.read(columns, use_threads=False)

    def read_table(self, name: str, columns: list[str] | None = None) -> "pd.DataFrame | None":
        found = self.read_arrow(name, columns)
        return None if found is None else found.to_pandas()

    # -- runs and studies -------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> "RunRecord":
        return RunRecord(self, run_id)

    def runs(self) -> Iterator["RunRecord"]:
        return (RunRecord(self, run_id) for run_id in self._place.folders("runs"))

    def read_each(self, read: Callable[["RunRecord"], Found], records: Iterable["RunRecord"]) -> list[Found]:
        """What `read` finds of each run, in their order, many at a time: an object store takes its time to answer."""
        return list(self.stream_each(read, records))

    def stream_each(self, read: Callable[["RunRecord"], Found], records: Iterable["RunRecord"]) -> Iterator[Found]:
        """The same one after the other: no more than a few that nobody has taken yet are held."""
        readers_at_once, at_a_time = (FOLDER_READERS, AT_A_TIME) if self.local else (READERS, 1)
        left = iter(records)
        with ThreadPoolExecutor(readers_at_once) as readers:
            ahead: deque[Future[list[Found]]] = deque()
            while some := list(islice(left, at_a_time)):
                ahead.append(readers.submit(lambda some: [read(record) for record in some], some))
                if len(ahead) > 2 * readers_at_once:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()

    def folders(self, name: str) -> list[str]:
        """The names of the folders in a folder, sorted; none where there is no such folder."""
        return self._place.folders(name)

    def studies(self) -> list[str]:
        return self.folders("studies")

    def write_study(self, name: str, study: dict) -> None:
        """A study as launched: its document under "study", its cells under "cells" (run_id, config document, factors), the
        words of each command that launched it under "commands".
        """
        self.write_json(f"studies/{name}/study.json", study)

    def read_study(self, name: str) -> dict | None:
        return self.read_json(f"studies/{name}/study.json")


def run_at(uri: str) -> "RunRecord | None":
    """The run whose folder a URI names, such as `s3://bucket/prefix/runs/<run_id>`; None where it names none."""
    store, runs, run_id = uri.rstrip("/").rpartition("/runs/")
    return RunStore(store).run(run_id) if runs and "://" in store else None


class RunRecord:
    """One run's files. A process that works on the run holds its `attempt`."""

    def __init__(self, store: RunStore, run_id: str):
        self.store, self.run_id = store, run_id
        self.folder = f"runs/{run_id}"
        self.attempt: Attempt | None = None

    def status(self) -> Status:
        value = self.read_json("status.json")
        return Status(**{name: value[name] for name in _STATUS if name in value}) if value else Status("missing")

    def write_status(self, status: Status) -> None:
        self.write_json("status.json", asdict(status))

    def last_attempt(self) -> Attempt | None:
        """The latest beginning of the run; of several processes it is the one that goes on."""
        value = self.read_json("attempt.json")
        return Attempt(**value) if value else None

    def write_attempt(self, attempt: Attempt) -> None:
        """In a file of its own: a status that an earlier process was just writing would take the run back for it."""
        self.write_json("attempt.json", asdict(attempt))

    def own_status(self) -> Status:
        """The status, for a process that works on the run. Raises SupersededError when another has begun it since."""
        last = self.last_attempt()
        if last is not None and last != self.attempt:
            raise SupersededError(f"run {self.run_id}: taken over by process {last.pid} on {last.host}")
        return self.status()

    def config(self) -> RunConfig | None:
        document = self.document()
        return None if document is None else build(document, source=f"{self.folder}/config.yaml")

    def document(self) -> dict | None:
        """The config as it was written, unchecked."""
        content = self.store.read_bytes(f"{self.folder}/config.yaml")
        return None if content is None else yaml.load(content, _SafeLoader)

    def write_config(self, config: RunConfig) -> None:
        self.write_file("config.yaml", yaml.safe_dump(config.document(), sort_keys=False).encode())

    def write_file(self, name: str, content: bytes) -> None:
        self.store.write_bytes(f"{self.folder}/{name}", content)

    def read_file(self, name: str) -> bytes | None:
        return self.store.read_bytes(f"{self.folder}/{name}")

    def delete_file(self, name: str) -> None:
        self.store.delete(f"{self.folder}/{name}")

    def write_json(self, name: str, value: Any) -> None:
        self.store.write_json(f"{self.folder}/{name}", value)

    def read_json(self, name: str) -> Any | None:
        return self.store.read_json(f"{self.folder}/{name}")

    def write_table(self, name: str, table: "pd.DataFrame") -> None:
        self.store.write_table(f"{self.folder}/{name}", table)

    def read_arrow(self, name: str, columns: list[str] | None = None) -> pa.Table | None:
        return self.store.read_arrow(f"{self.folder}/{name}", columns)

    def read_table(self, name: str, columns: list[str] | None = None) -> "pd.DataFrame | None":
        return self.store.read_table(f"{self.folder}/{name}", columns)
