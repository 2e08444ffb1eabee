"""A loss as a weighted sum of named terms."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tiekd.models.prediction import Prediction

IMAGE = "image"  # the part of a batch that is no depth
AllSum = Callable[[Tensor], Tensor]  # differentiable sum over ranks; the identity in one process


def single_process_sum(tensor: Tensor) -> Tensor:
    """The `AllSum` of a single process."""
    return tensor


class LossTerm(Protocol):
    """One term: a mean over the valid pixels of all ranks, so the number of ranks changes neither value nor gradient."""

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        """target [B, 1, H, W] m, or the image [B, 3, H, W], normalized; valid, bool, of its shape.

        Returns a scalar, 0 if no pixel is valid.
        """
        ...


class WeightedTerm(NamedTuple):
    weight: float
    term: LossTerm
    target: str = "depth_teacher"  # the part of a batch that the prediction is compared with; `build_loss` sets it


class DistillLoss(NamedTuple):
    """The terms of a loss and the range of valid targets; `tiekd.distill.loop.evaluate_loss` evaluates it."""

    terms: Mapping[str, WeightedTerm]
    min_depth: float  # m
    max_depth: float  # m
    masked: bool = True  # if False, every pixel of the target is valid

    @property
    def targets(self) -> list[str]:
        """The parts of a batch that the prediction is compared with."""
        return sorted({weighted.target for weighted in self.terms.values()})

    def mask(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mask the pixels outside min_depth < target <= max_depth: the target without gradient, and bool, of one shape.

        Masked targets become 0, since unmeasured pixels may hold NaN, which must not reach a gradient.
        """
        target = target.detach()
        in_range = (target > self.min_depth) & (target <= self.max_depth)
        valid = in_range if self.masked else torch.ones_like(in_range)
        return target.masked_fill(~valid, 0), valid


def measured(target: Tensor, valid: Tensor) -> Tensor:
    """The valid pixels whose target has a logarithm: 0 has none, and is valid only where nothing is masked."""
    return valid & (target > 0)


def masked_mean(values: Tensor, mask: Tensor, all_sum: AllSum) -> Tensor:
    """Mean of `values` where `mask`, over all ranks; 0 if the mask is empty."""
    count = all_sum(mask.sum().to(values.dtype))
    total = all_sum(values.masked_fill(~mask, 0).sum())
    return total / count.clamp_min(1)
