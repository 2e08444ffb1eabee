"""Slopes of the depth: multi-scale gradient matching, and smoothness where the image is smooth.

B: batch; H, W: pixels.
"""

import torch
from torch import Tensor

from tiekd.config import RunConfig
from tiekd.data.transforms import IMAGE_STD
from tiekd.losses.combine import AllSum, WeightedTerm, masked_mean, measured
from tiekd.losses.depth import LOG_EPS
from tiekd.models.prediction import Prediction

SCALES = 4


class GradientTerm:
    """Multi-scale gradient matching (MegaDepth, Li and Snavely 2018, https://arxiv.org/abs/1804.00607).

    sum_k (1 / n_k) sum_i |dx R_i^k| + |dy R_i^k| with R = log(pred + eps) - log(target + eps). Scale k = 0 .. 3 takes every
    2^k-th row and column, as MiDaS does (https://arxiv.org/abs/1907.01341), and n_k counts its valid pixels of all
    ranks. A difference counts where both of its pixels are valid, so sparse ground truth has few of them.
    """

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        valid = measured(target, valid)
        error = torch.log(prediction.depth + LOG_EPS) - torch.log(target.masked_fill(~valid, 1.0) + LOG_EPS)
        total = error.new_zeros(())
        for step in (2**k for k in range(SCALES)):
            part, known = error[..., ::step, ::step], valid[..., ::step, ::step]
            slopes = _differences(part, known, dim=2) + _differences(part, known, dim=3)
            total = total + all_sum(slopes) / all_sum(known.sum().to(error.dtype)).clamp_min(1)
        return total


class SmoothnessTerm:
    """Edge-aware smoothness (Godard et al. 2017, https://arxiv.org/abs/1609.03677): sum of both directions' means.

    |dx d| exp(-|dx I|) with the inverse depth d, divided by its mean over the image (Godard et al. 2019,
    https://arxiv.org/abs/1806.01260), and |dx I| the mean over the channels of an image on 0 .. 1. The target is the
    normalized image, every pixel counts.
    """

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        inverse = 1 / (prediction.depth + LOG_EPS)
        inverse = inverse / inverse.mean(dim=(2, 3), keepdim=True)
        image = [channel * (std / 255) for channel, std in zip(target.split(1, dim=1), IMAGE_STD, strict=True)]
        total = inverse.new_zeros(())
        for dim in (2, 3):
            edges = torch.cat([channel.diff(dim=dim).abs() for channel in image], dim=1).mean(dim=1, keepdim=True)
            cost = inverse.diff(dim=dim).abs() * torch.exp(-edges)
            total = total + masked_mean(cost, torch.ones_like(cost, dtype=torch.bool), all_sum)
        return total


def _differences(maps: Tensor, valid: Tensor, dim: int) -> Tensor:
    """Sum of |difference| between neighbors along a dimension that are both valid: [B, 1, H, W] twice to a scalar."""
    n_pairs = maps.shape[dim] - 1
    both = valid.narrow(dim, 0, n_pairs) & valid.narrow(dim, 1, n_pairs)
    return maps.diff(dim=dim).abs().masked_fill(~both, 0).sum()


def gradient(config: RunConfig) -> dict[str, WeightedTerm]:
    """Multi-scale gradient matching."""
    return {"gradient": WeightedTerm(1.0, GradientTerm())}


def smoothness(config: RunConfig) -> dict[str, WeightedTerm]:
    """Edge-aware smoothness."""
    return {"smoothness": WeightedTerm(1.0, SmoothnessTerm())}
