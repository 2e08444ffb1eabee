import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tiekd.losses.combine import single_process_sum
from tiekd.losses.depth import LOG_EPS, BerHuTerm, MSETerm, SITerm, SSIMTerm, ssim_map
from tiekd.models.prediction import Prediction


def value(part, pred: torch.Tensor, target: torch.Tensor, valid=None) -> torch.Tensor:
    valid = torch.ones_like(target, dtype=torch.bool) if valid is None else valid
    return part(Prediction(pred), target, valid, single_process_sum)


@pytest.fixture
def some_valid(target) -> torch.Tensor:
    return torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < 0.4


# -- scale-invariant and squared error ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean_weight", [0.0, 0.15, 1.0])
def test_si_is_its_formula_over_valid_pixels(prediction, target, some_valid, mean_weight):
    pred, gt, mask = (t.detach().numpy() for t in (prediction.depth, target, some_valid))
    error = (np.log(pred + LOG_EPS) - np.log(gt + LOG_EPS))[mask]
    expected = math.sqrt(error.var(ddof=1) + mean_weight * error.mean() ** 2)
    assert value(SITerm(mean_weight), prediction.depth, target, some_valid).item() == pytest.approx(expected, rel=1e-12)


def test_mse_is_the_mean_square_over_valid_pixels(prediction, target, some_valid):
    pred, gt, mask = (t.detach().numpy() for t in (prediction.depth, target, some_valid))
    expected = ((pred - gt) ** 2)[mask].mean()
    assert value(MSETerm(), prediction.depth, target, some_valid).item() == pytest.approx(expected, rel=1e-12)


def test_berhu_is_its_formula_with_a_threshold_for_each_image(prediction, target, some_valid):
    costs = []
    for pred, gt, mask in zip(*(t.detach().numpy() for t in (prediction.depth, target, some_valid)), strict=True):
        error = np.abs(pred - gt)[mask]
        c = error.max() / 5
        costs.append(np.where(error <= c, error, (error**2 + c**2) / (2 * c)))
    assert len({cost.max() for cost in costs}) == 2
    expected = np.concatenate(costs).mean()
    assert value(BerHuTerm(), prediction.depth, target, some_valid).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.0])
def test_without_the_mean_a_global_scale_costs_nothing(prediction, target, scale):
    part = SITerm(mean_weight=0.0)
    once, scaled = (value(part, s * prediction.depth, target) for s in (1.0, scale))
    assert scaled.item() == pytest.approx(once.item(), abs=1e-3)  # LOG_EPS, 1e-3 m beside depths of metres


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.0])
@pytest.mark.parametrize("mean_weight", [0.15, 1.0])
def test_a_global_scale_costs_its_logarithm_times_the_root_of_the_means_weight(target, scale, mean_weight):
    cost = value(SITerm(mean_weight), scale * target, target).item()
    assert cost == pytest.approx(math.sqrt(mean_weight) * abs(math.log(scale)), abs=1e-3)


def test_a_vanishing_prediction_has_a_finite_cost_and_slope(target):
    depth = torch.zeros_like(target, requires_grad=True)
    cost = value(SITerm(0.15), depth, target)
    cost.backward()
    assert cost.isfinite()
    assert depth.grad.isfinite().all()


# -- SSIM -----------------------------------------------------------------------------------------------------------------


def slow_ssim(a: np.ndarray, b: np.ndarray, data_range: float) -> np.ndarray:
    """Wang et al. 2004, window by window."""
    steps = np.arange(11) - 5
    window = np.exp(-(steps[:, None] ** 2 + steps[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    out = np.empty((a.shape[0] - 10, a.shape[1] - 10))
    for i, j in np.ndindex(out.shape):
        x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy, cov = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum(), (window * (x - mx) * (y - my)).sum()
        out[i, j] = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return out


@pytest.mark.parametrize("data_range", [1.0, 10.0, 80.0])
def test_ssim_is_its_formula_window_by_window(prediction, target, data_range):
    similarity = ssim_map(prediction.depth, target, data_range).detach().numpy()
    for index in range(2):
        expected = slow_ssim(prediction.depth[index, 0].detach().numpy(), target[index, 0].numpy(), data_range)
        np.testing.assert_allclose(similarity[index, 0], expected, rtol=1e-9)


def test_only_windows_that_lie_on_valid_pixels_count(prediction, target):
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[0, 0, 4, 6] = valid[1, 0, 19, 23] = False
    cost = value(SSIMTerm(10.0), prediction.depth, target.masked_fill(~valid, 0.0), valid).item()
    kept = []
    for index in range(2):
        whole = np.lib.stride_tricks.sliding_window_view(valid[index, 0].numpy(), (11, 11)).all((2, 3))
        kept.append(slow_ssim(prediction.depth[index, 0].detach().numpy(), target[index, 0].numpy(), 10.0)[whole])
    assert cost == pytest.approx(1 - np.concatenate(kept).mean(), rel=1e-9)


def test_opposite_structure_costs_more_than_none(target):
    mean = target.mean(dim=(2, 3), keepdim=True)
    flat, mirrored = (value(SSIMTerm(10.0), pred, target) for pred in (mean.expand_as(target), 2 * mean - target))
    assert mirrored > flat


def test_ssim_keeps_its_precision_in_float32_far_from_the_camera():
    generator = torch.Generator().manual_seed(0)
    a, b = (75 + 0.05 * torch.randn(1, 1, 24, 24, generator=generator, dtype=torch.float64) for _ in range(2))
    exact, rough = ssim_map(a, b, 1.0), ssim_map(a.float(), b.float(), 1.0)
    # The inputs alone carry 4e-6 m of rounding, next to a spread of 0.05 m.
    torch.testing.assert_close(rough.double(), exact, rtol=0, atol=1e-3)


# -- slopes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [SITerm(0.15), MSETerm(), SSIMTerm(10.0)], ids=lambda part: type(part).__name__)
def test_the_gradient_is_the_slope(part):
    generator = torch.Generator().manual_seed(0)
    pred, target = (1 + 5 * torch.rand(1, 1, 12, 13, generator=generator, dtype=torch.float64) for _ in range(2))
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[0, 0, 11, 0] = False
    assert torch.autograd.gradcheck(
        lambda depth: part(Prediction(depth), target, valid, single_process_sum), pred.requires_grad_()
    )


def test_the_gradient_of_berhu_is_its_slope_at_a_constant_threshold():
    generator = torch.Generator().manual_seed(0)
    pred, target = (1 + 5 * torch.rand(1, 1, 5, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    farthest = torch.full((1, 1, 1, 6), 30.0, dtype=torch.float64)  # sets the threshold, and is not moved
    valid = torch.ones(1, 1, 6, 6, dtype=torch.bool)

    def cost(depth: torch.Tensor) -> torch.Tensor:
        return value(BerHuTerm(), torch.cat([depth, farthest], dim=2), torch.cat([target, farthest / 30], dim=2), valid)

    assert torch.autograd.gradcheck(cost, (target + 3 * (pred - target)).requires_grad_())


def test_the_mse_is_pytorchs(prediction, target):
    torch.testing.assert_close(value(MSETerm(), prediction.depth, target), F.mse_loss(prediction.depth, target))
