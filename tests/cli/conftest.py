"""Runs, data and command lines that the tests of several commands share."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiekd.data.synthetic import synthesize

GROUND_TRUTH = {"name": "si", "target": "ground_truth"}


@pytest.fixture(params=["run", "ablate"])
def words(request, as_yaml, in_folder) -> Callable[[dict], tuple]:
    """The command that computes one document: by itself, or as a study of one cell."""

    def make(document: dict, *options: object) -> tuple:
        content = document if request.param == "run" else {"name": "demo", "base": document}
        return request.param, as_yaml(in_folder / "file.yaml", content), *options

    return make


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    """Rendered frames as a KITTI folder; not to be written to."""
    root = tmp_path_factory.mktemp("written") / "kitti"
    synthesize(root, "kitti", train_frames=4, test_frames=2)
    return root


@pytest.fixture
def kitti(written, in_folder, tiny) -> dict[str, Any]:
    """A run on a copy of those in the working folder."""
    shutil.copytree(written, in_folder / "kitti")
    return {**tiny, "data": {"dataset": "kitti", "root": "kitti"}, "teacher": None, "loss": GROUND_TRUTH}


@pytest.fixture(scope="module")
def ran(tmp_path_factory, tiekd, tiny, as_yaml) -> dict[str, Any]:
    """Two runs of one store by `tiekd run --json`: what each printed, by loss; and the store."""
    folder = tmp_path_factory.mktemp("ran")
    config = as_yaml(folder / "config.yaml", tiny)
    found = {"store": folder / "store", "config": config}
    for loss in ("si", "mse"):
        outcome = tiekd("run", config, "--store", folder / "store", "--set", f"loss.name={loss}", "--json")
        assert (outcome.code, outcome.err) == (0, "")
        found[loss] = json.loads(outcome.out)
    return found
