"""The run store: what was computed, on any filesystem that pyarrow knows; the only truth about runs.

    STORE/runs/<run_id>/   config.yaml  status.json  epochs.parquet  images.parquet  summary.json  provenance.json
                           student.safetensors  checkpoint/state.pt  error.txt
    STORE/studies/<name>/  study.json

Every write is atomic: a reader finds the whole old file, the whole new file, or none. A run is done exactly when its status
says so, and the status is written last.
"""

import io
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyarrow import fs

from tiekd.config import RunConfig, build
from tiekd.errors import StoreError, UserError
from tiekd.files import write_atomically

_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same loader in C, where PyYAML was built with it

State = Literal["done", "failed", "diverged", "constant", "running", "missing"]
STATES: tuple[str, ...] = get_args(State)
FINISHED = ("done", "diverged", "constant")  # computing again would give the same; "failed" may not


@dataclass(frozen=True)
class Status:
    """Where a run stands. `cause` says why it is not done, in one line; times are seconds since 1970."""

    state: State
    cause: str = ""
    epoch: int = 0  # epochs finished
    epochs: int = 0  # epochs asked for
    device_seconds: float = 0.0  # spent so far, over all workers and interruptions
    host: str = ""
    started: float = 0.0
    updated: float = field(default_factory=time.time)


class RunStore:
    """The runs and studies beneath one folder or URI (`s3://bucket/prefix`, `gs://...`)."""

    def __init__(self, uri: str | Path):
        self.uri = str(uri)
        try:
            if "://" in self.uri:
                self._fs, root = fs.FileSystem.from_uri(self.uri)
            else:
                self._fs, root = fs.LocalFileSystem(), str(Path(self.uri).expanduser().absolute())
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"store {self.uri}: not a folder or a URI that pyarrow reads: {error}") from None
        self._root = root.rstrip("/")
        if self.local:
            self._refuse_file()

    @property
    def local(self) -> bool:
        return isinstance(self._fs, fs.LocalFileSystem)

    @property
    def filesystem(self) -> tuple[fs.FileSystem, str]:
        """The pyarrow filesystem and the store's path in it."""
        return self._fs, self._root

    def check_writable(self) -> None:
        """Raise a `UserError` now rather than after hours; leaves nothing behind."""
        created = self._missing_folders()
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            self.write_bytes(probe, b"")
            self._fs.delete_file(self._path(probe))
        except (StoreError, OSError) as error:
            raise UserError(f"store {self.uri}: not writable: {_first_line(error)}") from None
        finally:
            for folder in created:
                if Path(folder).is_dir() and not any(Path(folder).iterdir()):
                    Path(folder).rmdir()

    def _refuse_file(self) -> None:
        """Raise a `UserError` where a file lies in the store's way."""
        place = Path(self._root)
        found = next(folder for folder in (place, *place.parents) if folder.exists())
        if not found.is_dir():
            raise UserError(f"store {self.uri}: {found} is a file; a store is a folder or a URI")

    def _missing_folders(self) -> list[str]:
        if not self.local:
            return []
        folder, missing = Path(self._root), []
        while not folder.exists():
            missing.append(str(folder))
            folder = folder.parent
        return missing

    # -- files ------------------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write one file atomically: a rename on a local disk, a single upload on an object store."""
        path = self._path(name)
        try:
            if self.local:
                write_atomically(Path(path), content)
            else:
                with self._fs.open_output_stream(path) as stream:
                    stream.write(content)
        except OSError as error:
            raise StoreError(f"cannot write {name} in store {self.uri}: {error}") from error

    def read_bytes(self, name: str) -> bytes | None:
        """A file's content, or None where there is none."""
        try:
            with self._fs.open_input_stream(self._path(name)) as stream:
                return stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {name} in store {self.uri}: {error}") from error

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        if self._fs.get_file_info(self._path(name)).type != fs.FileType.NotFound:
            self._fs.delete_file(self._path(name))

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

    def read_json(self, name: str) -> Any | None:
        content = self.read_bytes(name)
        try:
            return None if content is None else json.loads(content)
        except ValueError as error:
            raise StoreError(f"{name} in store {self.uri} is damaged: {error}") from None

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), buffer, compression="zstd")
        self.write_bytes(name, buffer.getvalue())

    def read_table(self, name: str, columns: list[str] | None = None) -> pd.DataFrame | None:
        content = self.read_bytes(name)
        return None if content is None else pq.read_table(pa.BufferReader(content), columns=columns).to_pandas()

    def _folders(self, parent: str) -> list[str]:
        found = self._fs.get_file_info(fs.FileSelector(self._path(parent), allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    # -- runs and studies -------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> "RunRecord":
        return RunRecord(self, run_id)

    def runs(self) -> Iterator["RunRecord"]:
        return (RunRecord(self, run_id) for run_id in self._folders("runs"))

    def studies(self) -> list[str]:
        return self._folders("studies")

    def write_study(self, name: str, study: dict) -> None:
        """A study as launched: its document under "study", its cells under "cells" (run_id, config document, factors)."""
        self.write_json(f"studies/{name}/study.json", study)

    def read_study(self, name: str) -> dict | None:
        return self.read_json(f"studies/{name}/study.json")


class RunRecord:
    """One run's files."""

    def __init__(self, store: RunStore, run_id: str):
        self.store, self.run_id = store, run_id
        self.folder = f"runs/{run_id}"

    def status(self) -> Status:
        value = self.store.read_json(f"{self.folder}/status.json")
        return Status(**value) if value else Status("missing")

    def write_status(self, status: Status) -> None:
        self.store.write_json(f"{self.folder}/status.json", asdict(status))

    def config(self) -> RunConfig | None:
        content = self.store.read_bytes(f"{self.folder}/config.yaml")
        return None if content is None else build(yaml.load(content, _SafeLoader), source=f"{self.folder}/config.yaml")

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

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        self.store.write_table(f"{self.folder}/{name}", table)

    def read_table(self, name: str, columns: list[str] | None = None) -> pd.DataFrame | None:
        return self.store.read_table(f"{self.folder}/{name}", columns)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
