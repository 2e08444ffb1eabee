"""No pickle is read from a store or from data: the files of somebody else must not run code."""

import ast
import contextlib
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from support.paths import ROOT
from support.runs import compute

from tiekd.config import build
from tiekd.store.run_store import RunStore

PACKAGES = ("tiekd", "ablations", "search_spaces", "reports")
READERS = {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}


class Payload:
    """Unpickling it creates a folder."""

    def __init__(self, folder: Path):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture
def owned(tmp_path) -> Path:
    """The folder that a pickle creates if it is read."""
    return tmp_path / "owned"


@pytest.fixture
def finished(tmp_path, tiny) -> tuple[RunStore, str]:
    """A store with a finished run."""
    store = RunStore(tmp_path / "store")
    config = build(tiny | {"optim": tiny["optim"] | {"epochs": 1}})
    return store, compute(config, store).run_id


def plant(file: Path, payload: Payload) -> None:
    """Replace a file by a pickle in the format in which a library might read it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix in (".pt", ".safetensors"):
        torch.save(payload, file)
    elif file.suffix == ".npy":
        np.save(file, np.array([payload], dtype=object), allow_pickle=True)
    elif file.suffix == ".parquet":
        serialized = pickle.dumps(payload)
        field = pa.field(
            "abs_rel",
            pa.binary(),
            metadata={"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": serialized},
        )
        pq.write_table(pa.table([pa.array([serialized])], schema=pa.schema([field])), file)
    elif file.suffix == ".yaml":
        file.write_text(f"!!python/object/apply:os.mkdir [{payload.folder}]\n")
    else:
        file.write_bytes(pickle.dumps(payload))


def test_planted_files_would_run(owned, tmp_path):
    """The files that the other tests plant are dangerous to a careless reader."""
    for name, read in (
        ("state.pt", lambda path: torch.load(path, weights_only=False)),
        ("map.npy", lambda path: np.load(path, allow_pickle=True)),
        ("tuner.pkl", lambda path: pickle.loads(path.read_bytes())),
        ("config.yaml", lambda path: yaml.load(path.read_text(), yaml.UnsafeLoader)),
    ):
        plant(tmp_path / name, Payload(owned))
        read(tmp_path / name)
        owned.rmdir()


@pytest.mark.parametrize(
    ("names", "commands"),
    [
        (["checkpoint/state.pt"], ["run"]),
        (["student.safetensors", "epochs.parquet", "images.parquet"], ["report", "predict"]),
        (["config.yaml"], ["status", "report", "predict"]),
    ],
)
def test_pickles_among_the_files_of_a_run_are_not_read(finished, owned, tiekd, tiny, as_yaml, tmp_path, names, commands):
    store, run_id = finished
    folder = tmp_path / "store" / "runs" / run_id
    for name in names:
        plant(folder / name, Payload(owned))
    if commands == ["run"]:  # a run that goes on
        (folder / "status.json").unlink()
    image = next(Path(tiny["teacher"]["maps"]).rglob("*.png"))
    words = {
        "status": [store.uri],
        "report": [store.uri, "--out", tmp_path / "report"],
        "predict": [folder, image, "--out", tmp_path / "predicted"],
        "run": [as_yaml(tmp_path / "run.yaml", tiny), "--set", "optim.epochs=1", "--store", store.uri],
    }
    for command in commands:
        with contextlib.suppress(Exception):  # other tests look at the message
            tiekd(command, *words[command])
        assert not owned.exists()


def test_no_module_calls_a_function_that_unpickles():
    found = []
    for file in (file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                found += [f"{file.relative_to(ROOT)}:{node.lineno}" for _ in range(_unpickles(node))]
    assert found == []


def _unpickles(call: ast.Call) -> bool:
    called, options = ast.unparse(call.func), {option.arg: ast.unparse(option.value) for option in call.keywords}
    module, _, name = called.rpartition(".")
    if called == "torch.load":
        return options.get("weights_only") != "True"
    if (name == "restore" and module.endswith("Tuner")) or name == "read_pickle":
        return True
    return options.get("allow_pickle") == "True" or (module in READERS and name in ("load", "loads", "Unpickler"))
