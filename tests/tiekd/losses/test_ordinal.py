"""Losses over bins against plain transcriptions."""

import numpy as np
import pytest
import torch

from tiekd.bins import DepthBins
from tiekd.losses.combine import single_process_sum
from tiekd.losses.ordinal import CrossEntropyTerm, OrdinalTerm
from tiekd.models.dpm_head import DPMHead
from tiekd.models.prediction import Prediction

BINS = DepthBins(16, 1e-3, 10.0)


def value(term, logits, target, valid) -> torch.Tensor:
    return term(Prediction(target, logits), target, valid, single_process_sum)


def slow(logits: np.ndarray, target: np.ndarray, valid: np.ndarray, ordinal: bool) -> float:
    """Pixel by pixel: logits [B, K, H, W], target and valid [B, H, W]."""
    costs = []
    for b, i, j in zip(*np.nonzero(valid), strict=True):
        p = np.exp(logits[b, :, i, j])
        p /= p.sum()
        nearest = np.abs(BINS.centers.numpy().astype(float) - target[b, i, j]).argmin()
        if ordinal:
            above = [p[k + 1 :].sum() for k in range(len(p) - 1)]
            costs.append(-sum(np.log(a) if k < nearest else np.log(1 - a) for k, a in enumerate(above)))
        else:
            costs.append(-np.log(p[nearest]))
    return float(np.mean(costs))


@pytest.mark.parametrize("term", [CrossEntropyTerm(BINS), OrdinalTerm(BINS)], ids=["cross-entropy", "ordinal"])
def test_a_loss_is_its_formula(prediction, target, term):
    valid = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    arrays = prediction.dpm_logits.detach().numpy(), target.numpy()[:, 0], valid.numpy()[:, 0]
    expected = slow(*arrays, ordinal=isinstance(term, OrdinalTerm))
    assert value(term, prediction.dpm_logits, target, valid).item() == pytest.approx(expected, rel=1e-9)


def test_a_near_bin_costs_less_than_a_far_one_by_order_alone(target):
    valid = torch.ones_like(target, dtype=torch.bool)
    nearest = (target - BINS.centers.view(1, -1, 1, 1)).abs().argmin(dim=1, keepdim=True)
    costs = {}
    for offset in (1, 4):
        away = torch.where(nearest >= 8, nearest - offset, nearest + offset)
        logits = torch.zeros(2, 16, 20, 24, dtype=torch.float64).scatter(1, away, 5.0)
        costs[offset] = [value(term(BINS), logits, target, valid) for term in (CrossEntropyTerm, OrdinalTerm)]
    torch.testing.assert_close(costs[1][0], costs[4][0])
    assert costs[1][1] < costs[4][1]


@pytest.mark.parametrize("term", [CrossEntropyTerm(BINS), OrdinalTerm(BINS)], ids=["cross-entropy", "ordinal"])
def test_a_certain_mistake_has_a_finite_cost_and_slope(target, term):
    logits = torch.zeros(2, 16, 20, 24)
    logits[:, 0] = 300.0
    logits.requires_grad_()
    cost = value(term, logits, target.float(), torch.ones_like(target, dtype=torch.bool))
    cost.backward()
    assert cost.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("term", [CrossEntropyTerm(BINS), OrdinalTerm(BINS)], ids=["cross-entropy", "ordinal"])
def test_features_in_bf16_give_a_loss_in_float32(target, term):
    head = DPMHead(3, BINS)
    features = torch.randn(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    valid = torch.ones_like(target, dtype=torch.bool)
    costs = [term(head(x), target.float(), valid, single_process_sum) for x in (features, features.bfloat16())]
    assert costs[1].dtype == torch.float32
    torch.testing.assert_close(costs[1], costs[0], rtol=0.02, atol=0)


@pytest.mark.parametrize("term", [CrossEntropyTerm(BINS), OrdinalTerm(BINS)], ids=["cross-entropy", "ordinal"])
def test_the_gradient_is_the_slope(prediction, target, term):
    logits, part = prediction.dpm_logits[:1, :, :3, :4].detach().requires_grad_(), target[:1, :, :3, :4]
    valid = torch.ones_like(part, dtype=torch.bool)
    valid[0, 0, 1, 1] = False
    assert torch.autograd.gradcheck(lambda z: value(term, z, part, valid), logits)
