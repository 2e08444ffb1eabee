"""A loss as a weighted sum of named terms."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tiekd.models.student import Prediction

AllSum = Callable[[Tensor], Tensor]  # sums a tensor over ranks, differentiably; the identity in one process


def single_process_sum(tensor: Tensor) -> Tensor:
    """The sum over ranks of a single process."""
    return tensor


class LossTerm(Protocol):
    """One term. Means are over the valid pixels of all ranks, so the number of ranks changes neither value nor gradient."""

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        """target [B, 1, H, W] m, valid [B, 1, H, W] bool. Returns a scalar; 0 where nothing is valid."""
        ...


class WeightedTerm(NamedTuple):
    weight: float
    term: LossTerm


class DistillLoss:
    """The weighted sum of terms against one depth target. Without `masked`, every pixel of the target is valid."""

    def __init__(self, terms: dict[str, WeightedTerm], min_depth: float, max_depth: float, masked: bool = True):
        self.terms, self.min_depth, self.max_depth, self.masked = terms, min_depth, max_depth, masked

    def __call__(self, prediction: Prediction, target: Tensor, all_sum: AllSum = single_process_sum) -> dict[str, Tensor]:
        """Each term, unweighted, under its name, and their weighted sum as "loss".

        target [B, 1, H, W] m; a pixel counts where min_depth < target <= max_depth. It receives no gradient.
        """
        target = target.detach()
        in_range = (target > self.min_depth) & (target <= self.max_depth)
        valid = in_range if self.masked else torch.ones_like(in_range)
        target = target.masked_fill(~valid, 0)  # unmeasured pixels may hold NaN, which must not reach a gradient
        values = {name: term(prediction, target, valid, all_sum) for name, (_, term) in self.terms.items()}
        first, *others = (self.terms[name].weight * value for name, value in values.items())
        total = sum(others, start=first)
        return {**values, "loss": total}


def masked_mean(values: Tensor, mask: Tensor, all_sum: AllSum) -> Tensor:
    """Mean of `values` where `mask`, over all ranks; 0 where the mask is empty."""
    count = all_sum(mask.sum().to(values.dtype))
    total = all_sum(values.masked_fill(~mask, 0).sum())
    return total / count.clamp_min(1)
