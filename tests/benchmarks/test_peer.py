"""Both programs of `benchmarks/peer.py` get the same frames, without loss."""

import importlib
from types import ModuleType

import numpy as np
import pytest
import yaml
from PIL import Image
from support.paths import ROOT

from tiekd.config import build
from tiekd.data import open_frames


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("peer")


def test_the_exported_frames_are_those_of_the_source_in_both_layouts(peer, tmp_path):
    data = {"dataset": "synthetic-indoor", "train_frames": 3, "test_frames": 2, "frame_size": peer.SIZE, "train_crop": [64, 64]}
    source = build({"data": data, "loss": {"name": "si", "target": "ground_truth"}})
    described = yaml.safe_load(peer.export_frames(source, tmp_path / "data").read_text())
    exported = peer.exported_config(tmp_path / "data")
    for split, count in (("train", 3), ("test", 2)):
        theirs, ours = open_frames(source.data, split), open_frames(exported.data, split)
        assert len(ours) == count
        for index in range(count):
            frame, expected = ours.load(index), theirs.load(index)
            assert np.array_equal(frame.image, expected.image)
            np.testing.assert_allclose(frame.depth_gt, expected.depth_gt, rtol=0, atol=0.5 / peer.DEPTH_SCALE + 1e-6)
            stored = np.asarray(Image.open(tmp_path / "data/depth" / split / f"{index:06d}.png"))
            np.testing.assert_allclose(stored / described["depth_scale"], frame.depth_gt, rtol=1e-6)
    assert described["train"] == described["val"] == "images/train"  # no test frame is seen before it is scored


def test_the_epochs_fit_into_the_time(peer):
    assert peer.SHORT == (1, 2)
    assert peer.epochs_within(90, [21.5, 27.1]) == 13
    assert peer.epochs_within(90, [10.7, 14.7]) == 20
    assert peer.epochs_within(5, [10.7, 14.7]) == 1


def test_the_paired_test_compares_equal_seeds(peer):
    about = {"epochs": 3, "cpu_seconds": 9.0, "parameters": 10, "rmse": 1.0, "delta1": 0.5}
    rows = [about | {"tool": "theirs", "output": "raw", "seed": seed, "abs_rel": 0.3 + seed / 100} for seed in range(3)]
    rows += [about | {"tool": "ours", "output": "raw", "seed": seed, "abs_rel": 0.2 + seed / 100} for seed in range(3)]
    assert "| -0.1000 -0.1000 -0.1000 | 0.2500 |" in peer.table(rows)
