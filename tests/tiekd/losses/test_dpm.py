import math

import pytest
import torch
from torch.nn import functional as F

from tiekd.bins import DepthBins, target_dpm
from tiekd.losses.combine import single_process_sum
from tiekd.losses.dpm import DPMTerm
from tiekd.models.prediction import Prediction

BINS = DepthBins(16, 1e-3, 10.0)


def divergence(prediction: Prediction, target, valid=None, sigma=0.5, temperature=1.0) -> torch.Tensor:
    valid = torch.ones_like(target, dtype=torch.bool) if valid is None else valid
    return DPMTerm(BINS, sigma, temperature)(prediction, target, valid, single_process_sum)


@pytest.mark.parametrize("sigma", [0.15, 0.5, 2.0])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 10.0])
def test_l_dpm_is_the_mean_kl_divergence_over_valid_pixels(prediction, target, sigma, temperature):
    valid = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    log_p = torch.log_softmax(prediction.dpm_logits, dim=1)
    kl = F.kl_div(log_p, target_dpm(target, BINS, sigma, temperature), reduction="none").sum(1, keepdim=True)
    torch.testing.assert_close(divergence(prediction, target, valid, sigma, temperature), kl[valid].mean())


def test_it_vanishes_where_the_student_has_the_teachers_map_up_to_a_constant(target):
    q = target_dpm(target, BINS, sigma=0.5)
    logits = q.clamp_min(1e-300).log() + 3.0  # a softmax forgets constants
    assert divergence(Prediction(target, logits), target).item() == pytest.approx(0, abs=1e-12)


def test_a_student_that_spreads_evenly_is_off_by_what_the_teacher_knows(target):
    q = target_dpm(target, BINS, sigma=0.5)
    entropy = -torch.xlogy(q, q).sum(1).mean().item()
    uniform = Prediction(target, torch.zeros(2, 16, *target.shape[-2:], dtype=torch.float64))
    assert divergence(uniform, target).item() == pytest.approx(math.log(16) - entropy)


def test_it_is_never_far_below_zero_in_float32(target):
    target = target.float()
    exact = target_dpm(target, BINS, sigma=0.5).clamp_min(1e-30).log()
    # A difference of two entropies of at most ln 16, each to float32's unit.
    assert divergence(Prediction(target, exact), target).item() == pytest.approx(0, abs=1e-6)


def test_logits_of_any_size_have_a_finite_divergence(target):
    logits = torch.full((2, 16, *target.shape[-2:]), -1e4)
    logits[:, 3] = 1e4
    logits.requires_grad_()
    value = divergence(Prediction(target.float(), logits), target.float())
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_the_gradient_is_the_slope():
    generator = torch.Generator().manual_seed(0)
    target = 10 * torch.rand(1, 1, 3, 4, generator=generator, dtype=torch.float64)
    logits = torch.randn(1, 16, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    valid = target < 8
    assert 0 < valid.sum() < valid.numel()
    assert torch.autograd.gradcheck(lambda z: divergence(Prediction(target, z), target, valid), logits)


def test_the_gradient_is_the_students_map_less_the_teachers(prediction, target):
    (gradient,) = torch.autograd.grad(divergence(prediction, target), prediction.dpm_logits)
    difference = torch.softmax(prediction.dpm_logits, dim=1) - target_dpm(target, BINS, sigma=0.5)
    torch.testing.assert_close(gradient, difference / target.numel())
