"""Structure-guided ranking: which of two pixels is nearer, at edges above all.

B: images; H, W: pixels; N: pairs.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tiekd.config import RunConfig
from tiekd.losses.combine import AllSum, WeightedTerm, masked_mean, measured
from tiekd.losses.depth import LOG_EPS
from tiekd.losses.sampling import random_numbers, sample_pixels
from tiekd.models.prediction import Prediction

TOLERANCE = 0.03  # depths of a smaller ratio - 1 are equal
EDGE = 0.1  # of the largest slope of an image
NEAREST, FARTHEST = 2.0, 30.0  # px from the edge
RANDOM_PAIRS, EDGE_POINTS = 0.1, 0.05  # per pixel


class RankingTerm:
    """Structure-guided ranking loss (Xian et al. 2020, https://doi.org/10.1109/CVPR42600.2020.00069), mean over pairs.

    log(1 + exp(-l (p_i - p_j))) with l = 1 if the target's d_i / d_j >= 1.03 and l = -1 if it is <= 1 / 1.03; (p_i - p_j)^2 if
    it lies between. p is log(pred + eps): the published network predicts a score without a unit. Pairs: random ones, and
    (a, b), (b, c), (c, d) of four points on a line across an edge, two on each side, 2 to 30 px from it. Edges are those of
    the target, the published ones of the image and of object masks. Pixels are chosen by `tiekd.losses.sampling`. It is not 0
    for a perfect prediction.
    """

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        valid = measured(target, valid)
        first, second, counted = pairs(target, valid)
        log_target = _log(target, valid).flatten(1)
        score = torch.log(prediction.depth + LOG_EPS).flatten(1)
        difference = score.gather(1, first) - score.gather(1, second)
        ratio = log_target.gather(1, first) - log_target.gather(1, second)
        label = ratio.sign() * (ratio.abs() >= math.log1p(TOLERANCE))
        cost = torch.where(label == 0, difference.square(), F.softplus(-label * difference))
        return masked_mean(cost, counted, all_sum)


def pairs(target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Choose pairs of pixels of target [B, 1, H, W] m: two indices [B, N], and which pairs count, bool."""
    size = target[0].numel()
    n_random, n_edge = math.ceil(RANDOM_PAIRS * size), math.ceil(EDGE_POINTS * size)
    numbers = random_numbers(target, 2 * n_random + 5 * n_edge)
    known = valid.flatten(1)
    first, second = sample_pixels(numbers[:, : 2 * n_random], known).chunk(2, dim=1)
    line, on_line = _across_edges(_log(target, valid), valid, numbers[:, 2 * n_random :])
    counted = [known.any(dim=1, keepdim=True).expand_as(first), *(on_line[:, k] & on_line[:, k + 1] for k in range(3))]
    return (
        torch.cat([first, *(line[:, k] for k in range(3))], dim=1),
        torch.cat([second, *(line[:, k + 1] for k in range(3))], dim=1),
        torch.cat(counted, dim=1),
    )


def _log(target: Tensor, valid: Tensor) -> Tensor:
    return torch.log(target.masked_fill(~valid, 1.0))


def _across_edges(log_depth: Tensor, valid: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Four points on each of some lines across edges: indices of pixels [B, 4, N], and whether they are valid, bool."""
    height, width = log_depth.shape[-2:]
    slopes = F.pad(torch.cat([_sobel(log_depth), _sobel(log_depth.mT).mT], dim=1), (1, 1, 1, 1))
    invalid = F.max_pool2d(F.pad((~valid).to(log_depth.dtype), (1, 1, 1, 1), value=1.0), 3, stride=1)
    slopes = slopes.masked_fill(invalid > 0, 0)
    steepness = slopes.norm(dim=1).flatten(1)
    edges = (steepness > 0) & (steepness >= EDGE * steepness.amax(dim=1, keepdim=True))
    chosen, *distances = numbers.chunk(5, dim=1)
    point = sample_pixels(chosen, edges)
    x, y = (F.normalize(slopes, dim=1).flatten(2)).gather(2, point.unsqueeze(1).expand(-1, 2, -1)).unbind(1)
    far = NEAREST + (FARTHEST - NEAREST) / 2**32 * torch.stack(distances, dim=1).to(log_depth.dtype)
    near_side, far_side = (side.sort(dim=1).values for side in far.chunk(2, dim=1))
    offset = torch.cat([-near_side.flip(1), far_side], dim=1)  # [B, 4, N]
    row = (point // width).unsqueeze(1) + (offset * y.unsqueeze(1)).round().long()
    column = (point % width).unsqueeze(1) + (offset * x.unsqueeze(1)).round().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    known = valid.flatten(1).gather(1, index.flatten(1)).view_as(index)
    return index, inside & known & edges.any(dim=1).view(-1, 1, 1)


def _sobel(maps: Tensor) -> Tensor:
    """Slope along the rows: [B, 1, H, W] to [B, 1, H - 2, W - 2]."""
    across = maps[..., 2:] - maps[..., :-2]
    return across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]


def ranking(config: RunConfig) -> dict[str, WeightedTerm]:
    """The structure-guided ranking loss."""
    return {"ranking": WeightedTerm(1.0, RankingTerm())}
