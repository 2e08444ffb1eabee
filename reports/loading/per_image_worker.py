"""The images of many runs are read by a process of their own, while this one reads the rest: Python itself uses one core.

python -m reports.loading.per_image_worker STORE [IMAGES.parquet] < run ids, one JSON text a line > groups, as an Arrow stream
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from reports.loading.per_image import read_images
from tiekd.errors import StoreError
from tiekd.store.run_store import RunStore

MANY = 750  # runs whose images take as long to read as such a process takes to begin

_LOST = b"unreadable"  # metadata of the stream: runs that cannot be read, with the reason


class Here:
    """Reads the images of the runs that it took once their groups are asked for."""

    def __init__(self, store: RunStore, path: Path | None):
        self._store, self._path, self._run_ids = store, path, list[str]()

    def take(self, run_id: str) -> None:
        self._run_ids.append(run_id)

    def found(self) -> tuple[pa.Table, dict[str, str]]:
        return read_images(self._store, self._run_ids, self._path)


class Apart:
    """Has another process read the images of each run as soon as it is taken. Raises StoreError if that one fails."""

    def __init__(self, store: RunStore, path: Path | None):
        words = [sys.executable, "-P", "-m", "reports.loading.per_image_worker", store.uri, *([str(path)] if path else [])]
        pipe = subprocess.PIPE
        # Ids of 50,000 runs fit the pipe: this process need not wait for the other one.
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, pipesize=2**20)

    def take(self, run_id: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended: `found` tells why
            self._process.stdin.write(f"{json.dumps(run_id)}\n".encode())

    def found(self) -> tuple[pa.Table, dict[str, str]]:
        told, complaint = self._process.communicate()
        if self._process.returncode:
            last = (complaint.decode(errors="replace").splitlines() or ["no reason given"])[-1]
            raise StoreError(f"the images of the runs were not read: {last}")
        groups = pa.ipc.open_stream(told).read_all()
        return groups, json.loads(groups.schema.metadata[_LOST])

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def reader_of_images(store: RunStore, n_runs: int, path: Path | None) -> Iterator[Here | Apart]:
    """What reads the images of n_runs runs, see `reports.loading.per_image.read_images`."""
    if n_runs < MANY:
        yield Here(store, path)
        return
    apart = Apart(store, path)
    try:
        yield apart
    finally:
        apart.end()


def main() -> None:
    store, *path = sys.argv[1:]
    run_ids = map(json.loads, sys.stdin)
    groups, lost = read_images(RunStore(store, must_exist=True), run_ids, Path(path[0]) if path else None)
    groups = groups.replace_schema_metadata({_LOST: json.dumps(lost)})
    with pa.ipc.new_stream(sys.stdout.buffer, groups.schema) as stream:
        stream.write_table(groups)


if __name__ == "__main__":
    main()
