"""What a launch says before its runs begin."""

import pytest

from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.distill.remarks import remarks

BASE = {
    "data": {
        "dataset": "synthetic-indoor",
        "train_frames": 8,
        "test_frames": 4,
        "frame_size": [64, 96],
        "train_crop": [48, 64],
    },
    "student": {"name": "tiny"},
    "teacher": {"name": "t", "maps": "maps"},
}


def config_of(changes):
    return build(with_values(BASE, changes))


FREE = [
    {"loss.name": "ssi_mae"},
    {"loss.parts": {"gradient": {}, "ranking": {}, "smoothness": {}}},
    {"loss.parts": {"gradient": {}, "mse": {"weight": 0}}},
    {"loss.parts": {"si": {"target": "ground_truth"}, "normal": {}}, "loss.si_mean_weight": 0.0},
]


@pytest.mark.parametrize("changes", FREE, ids=str)
def test_a_loss_that_no_scale_changes_is_told(changes):
    found = remarks([config_of(changes)])
    assert found.startswith("no loss fixes the scale of the depth (")
    assert "evaluate with an alignment such as none+median" in found
    assert remarks([config_of(changes | {"evaluation.also": ["none+median"]})]) == ""


@pytest.mark.parametrize(
    "changes",
    [{"loss.name": "si"}, {"loss.parts": {"si": {}, "ssi_mae": {}}}, {"loss.parts": {"ssi_mae": {}, "mse": {"weight": 0.01}}}],
    ids=str,
)
def test_one_part_that_fixes_the_scale_is_enough(changes):
    assert remarks([config_of(changes)]) == ""


def test_runs_of_a_launch_are_counted():
    found = remarks(config_of(changes) for changes in ({"loss.name": "si"}, FREE[0], FREE[0] | {"seed": 1}))
    assert found.startswith("no loss fixes the scale of the depth in 2 of 3 runs (ssi_mae); ")
