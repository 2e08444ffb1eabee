"""Gradient matching and smoothness against plain transcriptions of their formulas."""

import numpy as np
import pytest
import torch

from tiekd.losses.combine import single_process_sum
from tiekd.losses.depth import LOG_EPS
from tiekd.losses.gradient import GradientTerm, SmoothnessTerm
from tiekd.models.prediction import Prediction


def value(term, depth, target, valid) -> torch.Tensor:
    return term(Prediction(depth), target, valid, single_process_sum)


def slow_gradient(pred: np.ndarray, target: np.ndarray, valid: np.ndarray) -> float:
    """Pixel by pixel over images [B, H, W]."""
    total = 0.0
    for step in (1, 2, 4, 8):
        p, t, known = (maps[:, ::step, ::step] for maps in (pred, target, valid))
        residual = {i: np.log(p[i] + LOG_EPS) - np.log(t[i] + LOG_EPS) for i in np.ndindex(p.shape) if known[i]}
        slopes = 0.0
        for (b, i, j), here in residual.items():
            slopes += abs(residual.get((b, i + 1, j), here) - here) + abs(residual.get((b, i, j + 1), here) - here)
        total += slopes / max(len(residual), 1)
    return total


@pytest.mark.parametrize("share", [1.0, 0.5, 0.05], ids=["dense", "half", "sparse"])
def test_gradient_matching_is_its_formula_between_valid_neighbors(prediction, target, share):
    valid = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < share
    expected = slow_gradient(*(maps.detach().numpy()[:, 0] for maps in (prediction.depth, target, valid)))
    found = value(GradientTerm(), prediction.depth, target.masked_fill(~valid, 0.0), valid)
    assert found.item() == pytest.approx(expected, rel=1e-10)


def test_a_scale_of_the_depth_costs_nothing(target):
    valid = torch.ones_like(target, dtype=torch.bool)
    assert value(GradientTerm(), 2 * target, target, valid).item() == pytest.approx(0, abs=5e-3)  # LOG_EPS beside metres


def test_an_isolated_pixel_has_no_slope(prediction, target):
    valid = torch.zeros_like(target, dtype=torch.bool)
    valid[0, 0, 3, 5] = True
    assert value(GradientTerm(), prediction.depth, target, valid) == 0


def test_smoothness_is_its_formula(prediction):
    image = torch.randn(2, 3, 20, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    depth = prediction.depth.detach().numpy()[:, 0]
    inverse = 1 / (depth + LOG_EPS)
    inverse /= inverse.mean(axis=(1, 2), keepdims=True)
    pixels = image.numpy() * np.array([58.395, 57.12, 57.375])[:, None, None] / 255
    expected = 0.0
    for axis in (1, 2):
        edges = np.abs(np.diff(pixels, axis=axis + 1)).mean(axis=1)
        expected += (np.abs(np.diff(inverse, axis=axis)) * np.exp(-edges)).mean()
    found = value(SmoothnessTerm(), prediction.depth, image, torch.ones_like(image, dtype=torch.bool))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_a_step_costs_less_at_an_edge_of_the_image():
    depth = torch.full((1, 1, 8, 8), 2.0, dtype=torch.float64)
    depth[..., 4:] = 4.0
    flat, edge = torch.zeros(1, 3, 8, 8, dtype=torch.float64), torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    edge[..., 4:] = 2.0
    costs = [value(SmoothnessTerm(), depth, image, torch.ones_like(image, dtype=torch.bool)) for image in (flat, edge)]
    assert costs[1] < 0.7 * costs[0]


def test_the_gradients_are_the_slopes(target):
    depth = (target[:1, :, :9, :9] * 1.1 + 0.1 * target[:1, :, :9, :9].sin()).requires_grad_()
    valid = torch.rand(depth.shape, generator=torch.Generator().manual_seed(0)) < 0.8
    image = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = torch.ones_like(image, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda d: value(GradientTerm(), d, target[:1, :, :9, :9], valid), depth)
    assert torch.autograd.gradcheck(lambda d: value(SmoothnessTerm(), d, image, whole), depth)
