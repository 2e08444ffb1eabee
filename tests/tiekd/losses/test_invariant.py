"""Scale-and-shift-invariant errors, of whole images and of their cells, against plain transcriptions."""

import math

import numpy as np
import pytest
import torch

from tiekd.losses.combine import single_process_sum
from tiekd.losses.depth import LOG_EPS
from tiekd.losses.invariant import ENOUGH, LocalNormalizationTerm, ScaleAndShiftInvariantTerm
from tiekd.models.prediction import Prediction

TERMS = {
    "mae": ScaleAndShiftInvariantTerm(),
    "trimmed": ScaleAndShiftInvariantTerm(trim=0.2),
    "log": ScaleAndShiftInvariantTerm(log=True),
    "local": LocalNormalizationTerm(),
}


def value(term, depth, target, valid) -> torch.Tensor:
    return term(Prediction(depth), target, valid, single_process_sum)


def normalized(values: np.ndarray) -> np.ndarray:
    centered = values - np.median(values)
    return centered / np.abs(centered).mean()


def slow(name: str, pred: np.ndarray, target: np.ndarray, valid: np.ndarray) -> float:
    """Image by image, [B, H, W] each."""
    if name == "local":
        levels = []
        for n in (1, 2, 4):
            errors = []
            for p, t, known in zip(pred, target, valid, strict=True):
                rows = [np.array_split(rows, n, axis=1) for maps in (p, t, known) for rows in np.array_split(maps, n, axis=0)]
                for cells_p, cells_t, cells_known in zip(rows[:n], rows[n : 2 * n], rows[2 * n :], strict=True):
                    for a, b, inside in zip(cells_p, cells_t, cells_known, strict=True):
                        if inside.sum() >= ENOUGH:
                            errors.append(np.abs(normalized(a[inside]) - normalized(b[inside])))
            levels.append(np.concatenate(errors).mean())
        return float(np.mean(levels))
    costs = []
    for p, t, known in zip(pred, target, valid, strict=True):
        if known.sum() < ENOUGH:
            continue
        a, b = (np.log(m[known] + LOG_EPS) if name == "log" else m[known] for m in (p, t))
        error = np.sort(np.abs(normalized(a) - normalized(b)))
        costs.append(error[: math.floor(0.8 * len(error))].sum() / (2 * len(error)) if name == "trimmed" else error.mean() / 2)
    return float(np.mean(costs))


@pytest.mark.parametrize("share", [1.0, 0.3], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", TERMS)
def test_an_error_is_its_formula(prediction, target, name, share):
    valid = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < share
    expected = slow(name, *(maps.detach().numpy()[:, 0] for maps in (prediction.depth, target, valid)))
    found = value(TERMS[name], prediction.depth, target.masked_fill(~valid, 0.0), valid)
    assert found.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", TERMS)
def test_a_scale_and_a_shift_cost_nothing(target, name):
    moved = 2 * target**1.5 if name == "log" else 3 * target + 1
    valid = torch.ones_like(target, dtype=torch.bool)
    # Of the logarithm both are powers and factors of the depth; LOG_EPS is 1e-3 beside metres.
    assert value(TERMS[name], moved, target, valid).item() == pytest.approx(0, abs=1e-3 if name == "log" else 1e-12)


@pytest.mark.parametrize("name", TERMS)
def test_an_image_with_too_few_valid_pixels_does_not_count(prediction, target, name):
    valid = torch.ones_like(target, dtype=torch.bool)
    alone = value(TERMS[name], prediction.depth[:1], target[:1], valid[:1])
    valid[1] = False
    valid[1, 0, 0, : ENOUGH - 1] = True
    torch.testing.assert_close(value(TERMS[name], prediction.depth, target, valid), alone)


def test_outliers_do_not_move_the_trimmed_error(prediction, target):
    valid = torch.ones_like(target, dtype=torch.bool)
    costs = {}
    for far in (30.0, 60.0):
        depth = prediction.depth.detach().clone()
        depth[:, :, :2] = far  # a tenth of the pixels; the scale of the prediction moves, the order of errors does not
        costs[far] = [value(TERMS[name], depth, target, valid) for name in ("mae", "trimmed")]
    assert all(trimmed < 0.6 * mae for mae, trimmed in costs.values())


@pytest.mark.parametrize("name", TERMS)
def test_a_constant_prediction_has_a_finite_cost_and_slope(target, name):
    depth = torch.full_like(target, 3.0, requires_grad=True)
    cost = value(TERMS[name], depth, target, torch.ones_like(target, dtype=torch.bool))
    cost.backward()
    assert cost.isfinite()
    assert depth.grad.isfinite().all()


@pytest.mark.parametrize("name", TERMS)
def test_the_gradient_is_the_slope(name):
    generator = torch.Generator().manual_seed(0)
    depth, target = (1 + 5 * torch.rand(1, 1, 7, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    valid = torch.rand(target.shape, generator=generator) < 0.9
    assert torch.autograd.gradcheck(lambda d: value(TERMS[name], d, target, valid), depth.requires_grad_())
