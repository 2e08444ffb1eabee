"""Where the weights of a trained network lie: in a file, in a run's folder, or in a run of a store."""

import atexit
import shutil
import tempfile
from pathlib import Path

from tiekd.errors import UserError
from tiekd.store import RunStore, run_at

FILE = "student.safetensors"


def find_weights(name: str, store: str | None = None) -> Path:
    """What a person names: a file or a run's folder or URI; with a store, one of its runs by its id or the beginning of it."""
    if store is None:
        if record := run_at(name):
            return stored_weights(record.store, record.run_id)
        path = Path(name)
        return path / FILE if path.is_dir() else path
    runs = RunStore(store)
    found = [record.run_id for record in runs.runs() if record.run_id.startswith(name)]
    if len(found) != 1:
        which = f"{len(found)} runs begin with {name!r}, first {', '.join(found[:3])}" if found else f"has no run {name!r}"
        raise UserError(f"store {store}: {which}; needed a run id or an unambiguous beginning of one")
    return stored_weights(runs, found[0])


def stored_weights(store: RunStore, run_id: str) -> Path:
    """The weights of a run; from an object store a copy, which is deleted when the process ends."""
    if store.local:
        return Path(store.filesystem[1]) / "runs" / run_id / FILE
    content = store.run(run_id).read_file(FILE)
    if content is None:
        raise UserError(f"store {store.uri}: run {run_id} has no {FILE}: it is not finished")
    folder = tempfile.mkdtemp(prefix="tiekd-")
    atexit.register(shutil.rmtree, folder)
    copy = Path(folder, FILE)
    copy.write_bytes(content)
    return copy
