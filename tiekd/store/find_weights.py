"""Where the weights of a trained network lie: in a file, in a run's folder, or in a run of a store."""

import atexit
import shutil
import tempfile
from pathlib import Path

from tiekd.errors import UserError
from tiekd.store.run_store import RunRecord, RunStore, run_at

FILE = "student.safetensors"
HUB_FILE = "model.safetensors"


def find_weights(name: str, store: str | None = None) -> Path:
    """What a person names: a run (see `find_run`), a file, or the folder of a model as the Hugging Face hub holds it."""
    if record := find_run(name, store):
        return stored_weights(record.store, record.run_id)
    path = Path(name)
    if not path.is_dir():
        return existing(path)
    return existing(path / HUB_FILE if (path / HUB_FILE).is_file() else path / FILE)


def existing(path: Path) -> Path:
    """The same path. Raises UserError where there is no file."""
    if not path.is_file():
        raise UserError(f"weights {path}: no such file")
    return path


def find_run(name: str, store: str | None = None) -> RunRecord | None:
    """The run that a person names by its folder, URI or weights; with a store by its id or the beginning of it.

    None where weights are named that lie in no store.
    """
    if store is None:
        path = Path(name)
        folder = path.parent if path.name == FILE else path
        if (folder / "status.json").is_file() and folder.resolve().parent.name == "runs":
            return RunStore(folder.resolve().parents[1]).run(folder.resolve().name)
        return run_at(name)
    runs = RunStore(store)
    found = [record for record in runs.runs() if record.run_id.startswith(name)]
    if len(found) != 1:
        first = ", ".join(record.run_id for record in found[:3])
        which = f"{len(found)} runs begin with {name!r}, first {first}" if found else f"has no run {name!r}"
        raise UserError(f"store {store}: {which}; needed a run id or an unambiguous beginning of one")
    return found[0]


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
