"""The programs of examples/ run, in an empty folder, in the order in which they read each other's results."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

ORDER = ("distill_a_run.py", "own_loss.py", "own_data_set.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


def test_all_are_run() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_example_runs(folder: Path, name: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "examples" / name]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
