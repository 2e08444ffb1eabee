"""AdamW, and its learning rate and momentum as pure functions of the step."""

import math

import torch
from torch import nn

from tiekd.config import OptimConfig


def build_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, grouped by learning rate and weight decay. A group has its `lr_factor`."""
    undecayed = set() if config.decay_norms else _norms_and_position_biases(network)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            factor = 1.0 if name.startswith("encoder.") else config.lr_factor
            groups.setdefault((factor, 0.0 if name in undecayed else config.weight_decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": members, "lr_factor": factor, "weight_decay": decay} for (factor, decay), members in groups.items()],
        lr=config.lr,
        betas=config.betas,
        fused=True,  # needs parameter, gradient and moments in one memory layout, so the weights stay contiguous
    )


def _norms_and_position_biases(network: nn.Module) -> set[str]:
    """The names of layer norms' parameters and of relative position biases."""
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.LayerNorm)]
    biases = {name for name, _ in network.named_parameters() if "relative_position_bias" in name}
    return biases | {f"{name}.{parameter}" for name in norms for parameter in ("weight", "bias")}


def apply_schedule(optimizer: torch.optim.Optimizer, step: int, steps: int, config: OptimConfig) -> float:
    """Set the learning rate and momentum of a step in 0 .. steps - 1. Returns the encoder's learning rate."""
    lr, beta = learning_rate(step, steps, config), momentum(step, steps, config)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
        group["betas"] = (beta, config.betas[1])
    return lr


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Learning rate of a step in 0 .. steps - 1; the first is lr / div_factor, the last that / final_div_factor.

    `one_cycle` (Smith & Topin 2018, https://arxiv.org/abs/1708.07120): up to `lr` along a cosine during the warm-up, then down
    along another, with the phases of PyTorch's OneCycleLR. `cosine` (Loshchilov & Hutter 2017,
    https://arxiv.org/abs/1608.03983): down from `lr` over all steps, times a factor that rises linearly to 1 during the warm-up
    as in mmcv, so that the peak is below `lr`.
    """
    first = config.lr / config.div_factor
    last = first / config.final_div_factor
    if config.schedule == "cosine":
        warmed_up = min(step / (config.warmup * steps), 1) if config.warmup else 1
        return _cosine(config.lr, last, step / steps) * (warmed_up + (1 - warmed_up) / config.div_factor)
    rising, progress = _phase(step, steps, config.warmup)
    return _cosine(first, config.lr, progress) if rising else _cosine(config.lr, last, progress)


def momentum(step: int, steps: int, config: OptimConfig) -> float:
    """AdamW's first beta at a step: constant, or with `momentum_cycle` from its first value to its second and back."""
    if config.momentum_cycle is None:
        return config.betas[0]
    rising, progress = _phase(step, steps, config.warmup)
    ends, peak = config.momentum_cycle
    return _cosine(ends, peak, progress) if rising else _cosine(peak, ends, progress)


def _phase(step: int, steps: int, warmup: float) -> tuple[bool, float]:
    """Whether a step is before the peak of the cycle, and its progress, 0 .. 1, in that phase."""
    peak = max(warmup * steps - 1, 0)
    if step < peak:
        return True, step / peak
    remaining = steps - 1 - peak
    return False, (step - peak) / remaining if remaining else 0.0


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
