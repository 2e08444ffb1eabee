"""The run store, in a folder or on an object store; the only source of truth about runs.

    STORE/runs/<run_id>/   config.yaml  attempt.json  status.json  epochs.parquet  images.parquet  protocols.parquet
                           summary.json  provenance.json  efficiency.json  student.safetensors  checkpoint/state.pt  error.txt
    STORE/studies/<name>/  study.json  findings.json
    STORE/efficiency/<device>/<network>.json
    STORE/index/  of finished runs, in an object store; see `tiekd.store.finished_index`
    STORE/launches/, claims/  see `tiekd.store.claims`

Every write is atomic: a reader finds the whole old file, the whole new file, or no file. The status is written last: a run is
done exactly when its status says so.

A file can still be damaged, by a disk, a copy or an editor. `RunStore.read_as` is the one place where that is survived: the
file then counts as missing, a warning names it once, and `RunStore.damaged` keeps the reason.
"""

import io
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tiekd.config import RunConfig, build
from tiekd.config.documents import parse_mapping
from tiekd.errors import DamagedFileError, StoreError, SupersededError, UserError, error_line
from tiekd.store.backends import FolderBackend, open_backend
from tiekd.store.documents import (
    ANY,
    ATTEMPT,
    EPOCH_COLUMNS,
    FINDINGS,
    IMAGE_COLUMNS,
    PROVENANCE,
    STATUS,
    STUDY,
    SUMMARY,
    Findings,
    Metrics,
    Provenance,
    StudyDocument,
    Summary,
    conform,
)
from tiekd.store.finished_index import INDEX, Outcome, entry, read_entry
from tiekd.store.object_store import ObjectStoreBackend
from tiekd.store.run_status import Attempt, Status

if TYPE_CHECKING:
    import pandas as pd

_T = TypeVar("_T")
logger = logging.getLogger(__name__)
PREDICTIONS = "predictions.jpg"  # of a run: a few test frames with ground truth and prediction
MAX_REASON = 200  # characters of the reason why a file is damaged
MAX_KEY = 900  # bytes of a name below the store's prefix; object stores allow 1024 for both
OBJECT_STORE_THREADS = 32
FOLDER_THREADS = 4  # more threads would only wait for one another
FOLDER_BATCH = 4  # runs per task; handing one run to a thread takes a fifth of the time to read it


class RunStore:
    """The runs and studies in a folder or below a URI (`s3://bucket/prefix`, `gs://...`).

    A process that joins a launch passes `must_exist`: if the store is empty for it, the store has disappeared, and a second one
    must not be started. Raises UserError for a location that cannot be a store. All methods but `check_writable` raise
    StoreError if the store cannot be read or written. `damaged` has the damaged files that were met so far, with the reasons.
    """

    def __init__(self, uri: str | Path, must_exist: bool = False):
        self.uri = str(uri)
        self.damaged: dict[str, str] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._backend = open_backend(self.uri, must_exist)

    @property
    def local(self) -> bool:
        """Whether the store is a folder."""
        return isinstance(self._backend, FolderBackend)

    @property
    def root(self) -> str:
        """The path of the folder, or the bucket and the prefix."""
        return self._backend.root

    def check_writable(self) -> None:
        """Raise UserError if nothing can be written. Leaves no file behind."""
        self._backend.check_writable()

    # -- files ------------------------------------------------------------------------------------------------------------

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write one file atomically: by a rename on a disk, by a completed upload on an object store."""
        self._backend.write(name, content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file atomically unless it exists; returns whether it has been written. Of two writers, one succeeds."""
        return self._backend.create(name, content)

    def read_bytes(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist. Raises DamagedFileError if it cannot be read."""
        return self._backend.read(name)

    def read_as(self, name: str, parse: Callable[[bytes], _T]) -> _T | None:
        """Read and parse a file; None if it does not exist or is damaged, which is recorded (see `mark_damaged`)."""
        try:
            content = self._backend.read(name)
            value = None if content is None else parse(content)
        except DamagedFileError as error:
            self.mark_damaged(name, str(error.__cause__ or error))
            return None
        except StoreError:
            raise
        except Exception as error:  # decoders raise errors of many types
            self.mark_damaged(name, str(error) if isinstance(error, ValueError) and str(error) else error_line(error))
            return None
        if self.damaged:
            self.damaged.pop(name, None)
        return value

    def mark_damaged(self, name: str, reason: str) -> None:
        """Record that a file is damaged and is treated as missing, with a warning the first time."""
        reason = " ".join(reason.split())[:MAX_REASON]
        if self.damaged.get(name) != reason:
            self.damaged[name] = reason
            logger.warning("store %s: %s is damaged and left out: %s", self.uri, name, reason)

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        self._backend.delete(name)

    def list_folders(self, name: str) -> list[str]:
        """Return the sorted names of the subfolders of a folder; empty if the folder does not exist."""
        try:
            return self._backend.list_folders(name)
        except DamagedFileError as error:
            self.mark_damaged(name, str(error.__cause__ or error))
            return []

    def list_files(self, name: str) -> dict[str, float]:
        """Return when each file in a folder was last written, in seconds by the clock of the storage; empty without folder."""
        return self._backend.list_files(name)

    def delete_partial_files(self, name: str) -> None:
        """Delete the partial files that killed processes have left in a folder."""
        self._backend.delete_partial_files(name)

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

    def read_json(self, name: str) -> Any | None:
        """Read JSON of any form; None if the file does not exist or is damaged."""
        return self.read_as(name, ANY.parse)

    def write_table(self, name: str, table: "pd.DataFrame") -> None:
        """Write a Parquet file that can be read quickly.

        It has no dictionary for columns of mostly distinct values, no compression of numbers and no statistics, since there is
        one row group. It has no metadata of pandas and Arrow, which would take as long to read as two columns.
        """
        rows, buffer = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(), io.BytesIO()
        text = [field.name for field in rows.schema if not pa.types.is_primitive(field.type)]
        pq.write_table(
            rows,
            buffer,
            compression={name: "snappy" if name in text else "none" for name in rows.column_names},
            use_dictionary=[name for name in text if len(rows[name].unique()) < len(rows) / 2],
            write_statistics=False,
            store_schema=False,
        )
        self.write_bytes(name, buffer.getvalue())

    def read_arrow(
        self, name: str, columns: list[str] | None = None, check: Callable[[pa.Table], pa.Table] = lambda table: table
    ) -> pa.Table | None:
        """Read a table, or those of `columns` that it has, on one thread; callers read many tables on several threads.

        `check` returns the table that is wanted, or raises any error if the file is damaged.
        """

        def parse(content: bytes) -> pa.Table:
            file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)  # the content is in memory already
            return check(file.read(columns, use_threads=False))

        return self.read_as(name, parse)

    def read_table(self, name: str, columns: list[str] | None = None) -> "pd.DataFrame | None":
        found = self.read_arrow(name, columns)
        return None if found is None else found.to_pandas()

    # -- runs and studies -------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> "RunRecord":
        return RunRecord(self, run_id)

    def runs(self) -> Iterator["RunRecord"]:
        return (RunRecord(self, run_id) for run_id in self.list_folders("runs"))

    def load_index(self, run_ids: Collection[str] | None = None) -> None:
        """Let the status and metrics of runs come from the index, where many would be read from an object store.

        run_ids: those that have a folder, if they are known.
        """
        if isinstance(self._backend, ObjectStoreBackend):
            existing = set(self.list_folders("runs") if run_ids is None else run_ids)
            found = filter(None, map(read_entry, self._backend.list_below(INDEX)))
            self._outcomes = {run_id: outcome for run_id, outcome in found if run_id in existing}

    def outcome(self, run_id: str) -> Outcome | None:
        """Return the outcome of a finished run, if it was in the index when that was loaded."""
        return self._outcomes.get(run_id)

    def add_to_index(self, run_id: str, outcome: Outcome) -> None:
        """Add a finished run to the index; do nothing in a folder, where reading a file takes no longer than listing it."""
        name = entry(run_id, outcome)
        if not self.local and len(name) <= MAX_KEY:
            self.write_bytes(name, b"")

    def remove_from_index(self, run_id: str) -> None:
        """Remove a run that is about to start: its folder was deleted, or it is computed for the first time."""
        self._outcomes.pop(run_id, None)
        if not self.local:
            for name in self.list_files(f"{INDEX}/{run_id}"):
                self.delete(f"{INDEX}/{run_id}/{name}")

    def read_each(self, read: Callable[["RunRecord"], _T], records: Iterable["RunRecord"]) -> list[_T]:
        """Apply `read` to runs on several threads, because an object store has a high latency; results are in order."""
        return list(self.stream_each(read, records))

    def stream_each(self, read: Callable[["RunRecord"], _T], records: Iterable["RunRecord"]) -> Iterator[_T]:
        """Like `read_each`, as a generator; keeps a bounded number of results in flight."""
        n_threads, batch_size = (FOLDER_THREADS, FOLDER_BATCH) if self.local else (OBJECT_STORE_THREADS, 1)
        remaining = iter(records)
        with ThreadPoolExecutor(n_threads) as threads:
            in_flight: deque[Future[list[_T]]] = deque()
            while batch := list(islice(remaining, batch_size)):
                in_flight.append(threads.submit(lambda batch: [read(record) for record in batch], batch))
                if len(in_flight) > 2 * n_threads:
                    yield from in_flight.popleft().result()
            while in_flight:
                yield from in_flight.popleft().result()

    def studies(self) -> list[str]:
        return self.list_folders("studies")

    def check_study_name(self, name: str) -> None:
        """Raise UserError if a study of the store has this name in other capitals: some systems keep both in one folder."""
        if other := next((n for n in self.studies() if n != name and n.lower() == name.lower()), None):
            raise UserError(
                f"study {name}: store {self.uri} has a study {other}, whose folder is the same on some systems; "
                "use its name, or another one"
            )

    def write_study(self, name: str, study: Mapping[str, Any]) -> None:
        """Write a study: its document under "study", its cells (run_id, config document, factors) under "cells", and the argv
        of each command that launched it under "commands".
        """
        self.write_json(f"studies/{name}/study.json", study)

    def read_study(self, name: str) -> StudyDocument | None:
        return self.read_as(f"studies/{name}/study.json", STUDY.parse)

    def read_findings(self, name: str) -> Findings:
        """Return the results of a search; empty if there are none."""
        return self.read_as(f"studies/{name}/findings.json", FINDINGS.parse) or {}


def _parse_config(content: bytes) -> dict[str, Any]:
    """Parse a config that was written whole. Raises ValueError if its end is missing: what is left would still be YAML."""
    document = parse_mapping(content)
    if "store" not in (document.get("execution") or {}):
        raise ValueError("its end is missing")
    return document


def open_run(uri: str) -> "RunRecord | None":
    """Open a run by the URI of its folder, such as `s3://bucket/prefix/runs/<run_id>`; None for any other string."""
    store, runs, run_id = uri.rstrip("/").rpartition("/runs/")
    return RunStore(store).run(run_id) if runs and "://" in store else None


class RunRecord:
    """The files of one run. A process that computes the run sets `attempt`; `written` is the status that it wrote last."""

    def __init__(self, store: RunStore, run_id: str):
        self.store, self.run_id = store, run_id
        self.folder = f"runs/{run_id}"
        self.attempt: Attempt | None = None
        self.written: Status | None = None

    def start(self, config: RunConfig) -> None:
        """Record the run as running, for the processes that will compute it.

        Processes of an earlier attempt (a launch that was thought to be dead, or a concurrent one) stop at the end of their
        epoch.
        """
        now = time.time()
        self.store.remove_from_index(self.run_id)
        self.attempt = Attempt.current()
        self.write_config(config)
        self.write_attempt(self.attempt)
        running = replace(self.status(), state="running", cause="", epochs=config.optim.epochs)
        self.write_status(replace(running, started=now, updated=now))
        self.delete_file("error.txt")  # of an earlier attempt
        for folder in (self.folder, f"{self.folder}/checkpoint"):
            self.store.delete_partial_files(folder)

    def status(self) -> Status:
        """Return the status; with a damaged status.json the run is missing, and the cause says why."""
        if known := self.store.outcome(self.run_id):
            return known.status
        return self.read_as("status.json", STATUS.parse) or Status("missing", self.damage("status.json"))

    def damage(self, name: str) -> str:
        """Why a file of the run that was read is damaged; "" if it is not."""
        reason = self.store.damaged.get(f"{self.folder}/{name}")
        return f"{name} is damaged: {reason}" if reason else ""

    def write_status(self, status: Status) -> None:
        self.write_json("status.json", asdict(status))
        self.written = status

    def add_to_index(self, status: Status) -> None:
        """Add this run, which has finished, to the index of the store."""
        metrics = self.metrics() if status.state == "done" else {}
        self.store.add_to_index(self.run_id, Outcome(status, metrics))

    def last_attempt(self) -> Attempt | None:
        """Return the latest attempt, which owns the run."""
        return self.read_as("attempt.json", ATTEMPT.parse)

    def write_attempt(self, attempt: Attempt) -> None:
        """Take the run over. The attempt has its own file, because an earlier process may be writing the status now."""
        self.write_json("attempt.json", asdict(attempt))

    def check_attempt(self) -> None:
        """Raise SupersededError if another attempt has taken over the run."""
        last = self.last_attempt()
        if last is not None and last != self.attempt:
            raise SupersededError(f"run {self.run_id}: taken over by process {last.pid} on {last.host}")

    def own_status(self) -> Status:
        """Return the status for the process that owns the run. Raises SupersededError if another attempt has taken over."""
        self.check_attempt()
        return self.status()

    def config(self) -> RunConfig | None:
        return self.read_as("config.yaml", lambda content: build(_parse_config(content), source="config"))

    def document(self) -> dict | None:
        """Return the config as it was written, without validation."""
        return self.read_as("config.yaml", _parse_config)

    def summary(self) -> Summary | None:
        return self.read_as("summary.json", SUMMARY.parse)

    def metrics(self) -> Metrics:
        """Return the metrics of the run; empty if it has none."""
        if known := self.store.outcome(self.run_id):
            return known.metrics
        summary = self.summary()
        return summary["metrics"] if summary else {}

    def provenance(self) -> Provenance:
        return self.read_as("provenance.json", PROVENANCE.parse) or {}

    def epochs(self) -> pa.Table | None:
        """Return one row for each epoch: the columns of EPOCH_COLUMNS that were written, and the parts of the loss."""
        return self.read_arrow("epochs.parquet", check=lambda table: conform(table, EPOCH_COLUMNS, "part_"))

    def images(self) -> pa.Table | None:
        """Return one row for each test image: the columns of IMAGE_COLUMNS that were written."""
        return self.read_arrow("images.parquet", check=lambda table: conform(table, IMAGE_COLUMNS))

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

    def read_as(self, name: str, parse: Callable[[bytes], _T]) -> _T | None:
        return self.store.read_as(f"{self.folder}/{name}", parse)

    def read_json(self, name: str) -> Any | None:
        return self.store.read_json(f"{self.folder}/{name}")

    def write_table(self, name: str, table: "pd.DataFrame") -> None:
        self.store.write_table(f"{self.folder}/{name}", table)

    def read_arrow(
        self, name: str, columns: list[str] | None = None, check: Callable[[pa.Table], pa.Table] = lambda table: table
    ) -> pa.Table | None:
        return self.store.read_arrow(f"{self.folder}/{name}", columns, check)

    def read_table(self, name: str, columns: list[str] | None = None) -> "pd.DataFrame | None":
        return self.store.read_table(f"{self.folder}/{name}", columns)
