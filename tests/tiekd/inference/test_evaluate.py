import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tiekd.config import DataConfig, override
from tiekd.data import Frame, open_frames
from tiekd.data.image_io import StoredDepth
from tiekd.deploy.export_maps import trained_weights
from tiekd.distill.loop import DistillResult, summarize
from tiekd.inference.evaluate import (
    evaluate,
    is_constant,
    score_image,
)
from tiekd.metrics import AGREEMENT, METRICS, agreement_metrics, median_ratio
from tiekd.models.checkpoint import load_network
from tiekd.models.registry import build_network

KITTI = DataConfig(dataset="kitti", max_depth=80.0)
NYU = DataConfig(dataset="nyu", max_depth=10.0)
CPU = torch.device("cpu")


# -- an image -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "protocol", "data", "view"),
    [
        ("kitti_0", "adabins-kb-garg", KITTI, (slice(23, 375), slice(13, 1229))),
        ("nyu_0", "nyu-eigen", NYU, (slice(None), slice(None))),
    ],
)
def test_made_images_score_as_released(oracle, parity, frame_of, image, protocol, data, view):
    page = oracle("metrics")["images"][image]
    recipe = page["recipe"]
    size, cap = (recipe["H"], recipe["W"]), recipe["mx"]
    rng = np.random.default_rng(recipe["seed"])
    gt = (cap * 1.05 * rng.random(size)).astype(np.float32)
    keep, noise = rng.random(size) < recipe["keep_prob"], rng.standard_normal(size)
    teacher = np.clip(gt * np.exp(0.05 * rng.standard_normal(size)), 1e-3, cap).astype(np.float32)
    pred = np.clip(gt * np.exp(0.15 * noise), 1e-3, cap).astype(np.float32)
    frame = frame_of(np.where(keep, gt, 0)[view], size, (view[0].start or 0, view[1].start or 0))
    row = score_image(pred[view], frame, data, protocol)
    names = {"delta1": "a1", "delta2": "a2", "delta3": "a3", "log10": "log_10"}
    assert row["n_valid"] == page["n_valid"]
    agreement = agreement_metrics(pred[view], teacher[view], data.spec.agreement_first_row)
    expected = {name: page["metrics"][names.get(name, name)] for name in METRICS}
    expected |= {f"{name}_teacher": page["metrics"][f"{names.get(name, name)}_T"] for name in AGREEMENT}
    for name, value in expected.items():
        parity(f"metrics: {name}", abs((row | agreement)[name] - value) / value, 1e-6)


# -- a pass over a data set -----------------------------------------------------------------------------------------------


@dataclass
class MadeFrames:
    """Frames of given sizes, whose depth is 1 m + their index / 10, and nothing where `unmeasured`."""

    sizes: list[tuple[int, int]]
    unmeasured: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.keys = [f"scene/{index}" for index in range(len(self.sizes))]

    def __len__(self) -> int:
        return len(self.sizes)

    def group(self, index: int) -> str:
        return f"scene_{index // 2}"

    def load(self, index: int) -> Frame:
        size = self.sizes[index]
        depth = np.full(size, 0.0 if index in self.unmeasured else 1 + index / 10, np.float32)
        image = np.zeros((*size, 3), np.uint8) + np.arange(size[1], dtype=np.uint8)[:, None]
        return Frame(image, StoredDepth(depth), size, (0, 0))


def measured(row: dict) -> list[float]:
    """Numbers of a row that batches change by no more than the rounding of float32."""
    return [row[name] for name in ("n_valid", "abs_rel", "rmse", "depth_min", "depth_max")]


@pytest.fixture
def trained(teacher):
    """The trained teacher and its config, in the mode that training leaves it in."""
    student, config = load_network(trained_weights(teacher.config))
    return student.train(), config


def test_a_row_per_frame_in_order_whatever_the_sizes(trained):
    student, config = trained
    frames = MadeFrames([(32, 48), (32, 48), (48, 32), (32, 48)])
    rows = list(evaluate(student, config, frames, CPU, range(4)))
    assert [row["image"] for row in rows] == frames.keys
    assert [row["group"] for row in rows] == ["scene_0", "scene_0", "scene_1", "scene_1"]
    assert [row["n_valid"] for row in rows] == [32 * 48] * 4
    for index, row in enumerate(rows):
        (alone,) = evaluate(student, config, frames, CPU, [index])
        assert measured(row) == pytest.approx(measured(alone), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_size_leaves_the_metrics_alone(trained, batch_size):
    student, config = trained
    source = open_frames(config.data, "test")
    expected = list(evaluate(student, override(config, {"optim.batch_size": 4}), source, CPU, range(4)))
    rows = list(evaluate(student.train(), override(config, {"optim.batch_size": batch_size}), source, CPU, range(4)))
    for row, other in zip(rows, expected, strict=True):
        assert measured(row) == pytest.approx(measured(other), rel=1e-5)


def test_only_the_frames_of_a_share_are_scored(tiny):
    config = tiny()
    source = open_frames(config.data, "test")
    rows = list(evaluate(build_network(config), config, source, CPU, [3, 1]))
    assert [row["image"] for row in rows] == [source.keys[3], source.keys[1]]


def test_an_image_without_ground_truth_is_counted_and_not_averaged(tiny):
    config = tiny()
    student = build_network(config)
    source = MadeFrames([(32, 48)] * 3, unmeasured=(1,))
    rows = list(evaluate(student, config, source, CPU, range(3)))
    assert [row["n_valid"] for row in rows] == [32 * 48, 0, 32 * 48]
    assert all(math.isnan(rows[1][name]) for name in METRICS)
    told = summarize(config, DistillResult(student, rows, {}, constant=False, test=source))
    assert (told["n_images"], told["n_images_without_ground_truth"]) == (2, 1)


# -- constant predictions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranges", "constant"),
    [
        ([(5.0, 5.0), (5.0, 5.0)], True),
        ([(5.0, 5.0), (7.0, 7.0)], True),
        ([(5.0, 5.00004)], True),  # a dead network's rounding
        ([(5.0, 5.004)], False),  # a barely trained one
        ([(5.0, 5.0), (5.0, 5.1)], False),
        ([(math.nan, math.nan)], False),
    ],
)
def test_one_depth_all_over_every_image_is_constant(ranges, constant):
    assert is_constant([{"depth_min": low, "depth_max": high} for low, high in ranges]) == constant


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.5])
def test_the_median_ratio_is_the_scale_of_a_prediction(frame_of, scale):
    gt = np.linspace(1, 30, 12, dtype=np.float32).reshape(3, 4)
    row = score_image(gt * scale, frame_of(gt, (3, 4)), KITTI, "none")
    assert median_ratio([row, {"n_valid": 0, "median_ratio": math.nan}]) == pytest.approx(scale)
