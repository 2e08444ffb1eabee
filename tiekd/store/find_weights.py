"""Find the weights of a trained network: a file, a run's folder, or a run of a store."""

import atexit
import contextlib
from pathlib import Path

from tiekd.errors import UserError
from tiekd.store.run_store import RunRecord, RunStore, open_run
from tiekd.store.temporary import temporary_folder

WEIGHTS_FILE = "student.safetensors"
HUB_WEIGHTS_FILE = "model.safetensors"


def find_weights(name: str, store: str | None = None) -> Path:
    """Return the weights file of a run (see `find_run`), a file, or a model folder in the Hugging Face hub's layout."""
    if record := find_run(name, store):
        return fetch_weights(record.store, record.run_id)
    path = Path(name)
    if path.is_dir():
        path /= HUB_WEIGHTS_FILE if (path / HUB_WEIGHTS_FILE).is_file() else WEIGHTS_FILE
    check_weights_file(path)
    return path


def check_weights_file(path: Path) -> None:
    """Raise UserError if the file does not exist."""
    if not path.is_file():
        raise UserError(f"weights {path}: no such file")


def find_run(name: str, store: str | None = None) -> RunRecord | None:
    """Find a run by its folder, URI or weights file, or with `store` by its id or a unique prefix of it.

    Returns None for weights outside a store.
    """
    if store is None:
        path = Path(name)
        folder = path.parent if path.name == WEIGHTS_FILE else path
        if (folder / "status.json").is_file() and folder.resolve().parent.name == "runs":
            return RunStore(folder.resolve().parents[1]).run(folder.resolve().name)
        return open_run(name)
    found = [record for record in RunStore(store).runs() if record.run_id.startswith(name)]
    if len(found) != 1:
        first = ", ".join(record.run_id for record in found[:3])
        which = f"{len(found)} runs begin with {name!r}, first {first}" if found else f"has no run {name!r}"
        raise UserError(f"store {store}: {which}; needed a run id or a unique prefix of one")
    return found[0]


def fetch_weights(store: RunStore, run_id: str) -> Path:
    """Return a local file with a run's weights. From an object store it is a copy, deleted when the process exits."""
    if store.local:
        return Path(store.root) / "runs" / run_id / WEIGHTS_FILE
    content = store.run(run_id).read_file(WEIGHTS_FILE)
    if content is None:
        raise UserError(f"store {store.uri}: run {run_id} has no {WEIGHTS_FILE}: it is not finished")
    until_exit = contextlib.ExitStack()
    copy = until_exit.enter_context(temporary_folder()) / WEIGHTS_FILE
    atexit.register(until_exit.close)
    copy.write_bytes(content)
    return copy
