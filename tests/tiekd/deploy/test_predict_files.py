"""Predictions of many files: what a killed command leaves, and what the next one makes of it."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tiekd.config import build
from tiekd.data.progress import in_this_process
from tiekd.deploy import predict_files
from tiekd.deploy.predict_files import BLOCK_FILES, PredictionTask, write_predictions
from tiekd.inference.inputs import find_inputs
from tiekd.inference.outputs import OutputOptions
from tiekd.models.checkpoint import load_network
from tiekd.models.registry import build_network

pytestmark = pytest.mark.slow


def write_photos(folder: Path, count: int) -> Path:
    """Images of two sizes in two folders, the first of which cannot be read."""
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (64 + number % 2, 96, 3), np.uint8)
        (folder / f"{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number % 2}/{number:03d}.png")
    (folder / "0/000.png").write_bytes(b"no image")
    return folder


# -- a real process --------------------------------------------------------------------------------------------------------


def test_a_prediction_that_is_killed_ends_like_one_that_was_not(network, tree, tmp_path):
    """With SIGKILL. tests/ablations/pool does so on a cluster."""
    photos = write_photos(tmp_path / "photos", 2 * BLOCK_FILES)
    command = [sys.executable, "-m", "tiekd", "predict", str(network), "photos", "--out"]
    with subprocess.Popen([*command, "killed"], cwd=tmp_path) as process:
        while not (parts := list(tmp_path.glob("killed/parts/*.json"))):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "killed/predictions.json").exists()
    names = [name for row in json.loads(parts[0].read_text())["images"] for name in row["files"]]
    made = {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in names}
    (tmp_path / f"killed/0/.002_depth.png.{'0' * 32}").write_bytes(b"partial")  # as a kill within a write leaves it
    again, whole = (
        subprocess.run([*command, out], cwd=tmp_path, capture_output=True, text=True) for out in ("killed", "whole")
    )
    assert (again.returncode, whole.returncode) == (1, 1)
    assert again.stderr == whole.stderr == f"tiekd: image {photos.name}/0/000.png: not an image file of a supported format\n"
    assert made == {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in names}  # finished blocks stay
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


# -- blocks of four images -------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Three blocks, the last of which is not full."""
    monkeypatch.setattr(predict_files, "BLOCK_FILES", 4)
    return write_photos(tmp_path / "photos", 10)


@pytest.fixture
def task(network, tmp_path) -> PredictionTask:
    loaded, config = load_network(network)
    return PredictionTask(loaded, config, "a", tmp_path / "out", batch_size=2)


def predicted(task: PredictionTask, photos: Path, stop_after: int | None = None) -> list[int]:
    """Predict, and return the numbers of the blocks that were predicted. stop_after: images; then the command ends."""
    numbers = []

    def pool(start, blocks):
        numbers.extend(block.number for block in blocks)
        for done, result in enumerate(in_this_process(start, blocks), 1):
            yield result
            if done == stop_after:
                raise KeyboardInterrupt

    try:
        write_predictions(task, find_inputs([photos], task.out), pool)
    except KeyboardInterrupt:
        assert not (task.out / "predictions.json").exists()
    return numbers


def test_only_unfinished_blocks_are_predicted(task, photos, tree, tmp_path):
    whole = replace(task, out=tmp_path / "whole")
    assert predicted(whole, photos) == [0, 1, 2]
    assert predicted(task, photos, stop_after=5) == [0, 1, 2]
    assert predicted(task, photos) == [1, 2]
    assert tree(task.out) == tree(whole.out)
    assert predicted(task, photos) == [0, 1, 2]  # nothing of a finished command is kept
    assert tree(task.out) == tree(whole.out)


@pytest.mark.parametrize(
    "changes",
    [{"weights": "b"}, {"options": OutputOptions(legend=True)}, {"batch_size": 1}, {"every": 2}],
    ids=lambda changes: next(iter(changes)),
)
def test_blocks_of_another_network_or_other_settings_are_predicted_again(task, photos, tree, tmp_path, changes):
    predicted(task, photos, stop_after=9)
    now, fresh = replace(task, **changes), replace(task, out=tmp_path / "fresh", **changes)
    assert predicted(now, photos) == [0, 1, 2]
    predicted(fresh, photos)
    assert tree(now.out) == tree(fresh.out)


def test_blocks_whose_files_have_changed_are_predicted_again(task, photos, tree, tmp_path):
    predicted(task, photos, stop_after=9)
    shutil.copy(photos / "0/002.png", photos / "1/003.png")  # of the second block
    assert predicted(task, photos, stop_after=5) == [1, 2]
    (photos / "0/000.png").unlink()  # of the first, so that all later ones move
    fresh = replace(task, out=tmp_path / "fresh")
    assert predicted(task, photos) == [0, 1, 2] == predicted(fresh, photos)
    assert tree(task.out) == tree(fresh.out)


def test_blocks_in_which_another_network_has_replaced_files_are_predicted_again(task, photos, tree, tmp_path):
    torch.manual_seed(1)
    other = replace(task, network=build_network(build(task.config.document())), weights="b")
    predicted(task, photos, stop_after=5)
    predicted(other, photos, stop_after=2)
    assert predicted(task, photos) == [0, 1, 2]
    fresh = replace(task, out=tmp_path / "fresh")
    predicted(fresh, photos)
    assert tree(task.out) == tree(fresh.out)
