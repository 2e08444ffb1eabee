"""AdamW, and a learning rate that is a pure function of the step."""

import math

import torch

from tiekd.config import OptimConfig


def build_optimizer(student: torch.nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(student.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)


def one_cycle(step: int, steps: int, config: OptimConfig) -> float:
    """Learning rate of a step in 0 .. steps - 1: cosine up to `lr` over the warm-up, cosine down to the final rate.

    First: lr / div_factor; last: lr / div_factor / final_div_factor (Smith & Topin 2018).
    """
    first = config.lr / config.div_factor
    last = first / config.final_div_factor
    peak = config.warmup * (steps - 1)
    if step < peak:
        return _cosine(first, config.lr, step / peak)
    remaining = steps - 1 - peak
    return _cosine(config.lr, last, (step - peak) / remaining if remaining else 0.0)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
