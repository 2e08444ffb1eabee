"""The ranking loss against a plain transcription, and its pairs."""

import math

import pytest
import torch

from tiekd.losses.combine import single_process_sum
from tiekd.losses.depth import LOG_EPS
from tiekd.losses.ranking import RankingTerm, pairs
from tiekd.models.prediction import Prediction


def value(depth, target, valid) -> torch.Tensor:
    return RankingTerm()(Prediction(depth), target, valid, single_process_sum)


@pytest.mark.parametrize("share", [1.0, 0.6], ids=["dense", "sparse"])
def test_the_loss_is_its_formula_over_its_pairs(prediction, target, share):
    valid = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < share
    sparse = target.masked_fill(~valid, 0.0)
    costs, labels = [], set()
    first, second, counted = (chosen.tolist() for chosen in pairs(sparse, valid))
    for image in range(2):
        scores = (prediction.depth[image].detach().flatten() + LOG_EPS).log().tolist()
        depths = target[image].flatten().tolist()
        for i, j, counts in zip(first[image], second[image], counted[image], strict=True):
            if not counts:
                continue
            ratio, difference = depths[i] / depths[j], scores[i] - scores[j]
            label = 1 if ratio >= 1.03 else -1 if ratio <= 1 / 1.03 else 0
            labels.add(label)
            costs.append(math.log(1 + math.exp(-label * difference)) if label else difference**2)
    assert labels == {-1, 0, 1}
    assert value(prediction.depth, sparse, valid).item() == pytest.approx(sum(costs) / len(costs), rel=1e-9)


def test_pairs_are_of_valid_pixels_alone(target):
    valid = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    first, second, counted = pairs(target.masked_fill(~valid, 0.0), valid)
    for chosen in (first, second):
        assert valid.flatten(1).gather(1, chosen)[counted].all()


def test_points_lie_on_both_sides_of_an_edge():
    depth = torch.full((1, 1, 64, 96), 2.0)
    depth[..., 48:] = 5.0
    first, second, counted = pairs(depth, torch.ones_like(depth, dtype=torch.bool))
    at_edge = torch.arange(first.shape[1]) >= math.ceil(0.1 * depth.numel())  # after the random ones
    columns = [chosen[0, at_edge] % 96 for chosen in (first, second)]
    n_points = int(at_edge.sum()) // 3
    crossing = slice(n_points, 2 * n_points)
    left, right = (column[crossing] for column in columns)
    assert ((left < 48) & (right >= 48)).all()
    assert ((right - left) >= 4).all()
    assert counted[0, at_edge].float().mean() > 0.9


def test_a_reversed_order_costs_more_and_a_clearer_one_less(target):
    valid = torch.ones_like(target, dtype=torch.bool)
    clearer, right, wrong = (value(depth, target, valid) for depth in (target**2, target, 1 / target))
    assert clearer < right < wrong


def test_the_gradient_is_the_slope(target):
    part = target[:, :, ::3, ::3].clone()
    depth = part + 0.3 * torch.rand(part.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    valid = torch.ones_like(part, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda d: value(d, part, valid), depth.requires_grad_())
