"""The value of a run's loss."""

from torch import Tensor

from tiekd.config import RunConfig
from tiekd.distill.loop import evaluate_loss
from tiekd.losses import build_loss


def total_loss(config: RunConfig, prediction, target: Tensor) -> Tensor:
    """The weighted sum of the terms of a config's loss; target [B, 1, H, W] m, of every part."""
    loss = build_loss(config)
    return evaluate_loss(loss, prediction, dict.fromkeys(loss.targets, target))["loss"]
