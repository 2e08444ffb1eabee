"""The programs of examples/ run, in an empty folder, in the order in which they read each other's results."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from support.paths import ROOT

pytestmark = pytest.mark.slow

ORDER = ("distill_a_run.py", "read_store.py", "own_loss.py", "own_data_set.py")
NOTEBOOK = "student_to_depth.ipynb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


def test_all_are_run() -> None:
    assert {path.name for path in (ROOT / "examples").iterdir()} == {*ORDER, NOTEBOOK}


@pytest.mark.parametrize("name", ORDER)
def test_example_runs(folder: Path, name: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "examples" / name]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout


def test_notebook_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `distill_a_run.py`, whose run it shows."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "examples" / NOTEBOOK, as_version=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Jupyter, about its own packages
        NotebookClient(notebook, timeout=240, resources={"metadata": {"path": folder}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
