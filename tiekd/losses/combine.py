"""A loss as a weighted sum of named terms."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tiekd.models.prediction import Prediction

AllSum = Callable[[Tensor], Tensor]  # differentiable sum over ranks; the identity in one process


def single_process_sum(tensor: Tensor) -> Tensor:
    """The `AllSum` of a single process."""
    return tensor


class LossTerm(Protocol):
    """One term: a mean over the valid pixels of all ranks, so the number of ranks changes neither value nor gradient."""

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        """target [B, 1, H, W] m, valid [B, 1, H, W] bool. Returns a scalar, 0 if no pixel is valid."""
        ...


class WeightedTerm(NamedTuple):
    weight: float
    term: LossTerm


class DistillLoss(NamedTuple):
    """The terms of a loss and the range of valid targets; `tiekd.distill.loop.evaluate_loss` evaluates it."""

    terms: Mapping[str, WeightedTerm]
    min_depth: float  # m
    max_depth: float  # m
    masked: bool = True  # if False, every pixel of the target is valid

    def mask(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mask the pixels outside min_depth < target <= max_depth: the target without gradient, and bool, of one shape.

        Masked targets become 0, since unmeasured pixels may hold NaN, which must not reach a gradient.
        """
        target = target.detach()
        in_range = (target > self.min_depth) & (target <= self.max_depth)
        valid = in_range if self.masked else torch.ones_like(in_range)
        return target.masked_fill(~valid, 0), valid


def masked_mean(values: Tensor, mask: Tensor, all_sum: AllSum) -> Tensor:
    """Mean of `values` where `mask`, over all ranks; 0 if the mask is empty."""
    count = all_sum(mask.sum().to(values.dtype))
    total = all_sum(values.masked_fill(~mask, 0).sum())
    return total / count.clamp_min(1)
