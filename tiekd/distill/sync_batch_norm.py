"""Batch norm over the pixels of all ranks, also on CPUs, which `torch.nn.SyncBatchNorm` does not support."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over ranks, on every rank. The loss of every rank depends on it, so its gradient is the sum of their gradients."""
    return _AllReduceSum.apply(tensor)


class _AllReduceSum(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _summed(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(tensor: Tensor) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def sync_batch_norms(network: nn.Module) -> None:
    """Replace every batch norm of a network in place by `SyncedBatchNorm`. Parameters, buffers and their names stay."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, SyncedBatchNorm(child))


class SyncedBatchNorm(nn.Module):
    """A batch norm whose mean and variance are those of all ranks' pixels.

    Takes over the tensors of the batch norm that it replaces, and the dropout and activation of timm's batch norms.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        assert norm.momentum is not None
        self.eps, self.momentum, self.training = norm.eps, norm.momentum, norm.training
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W]; B may differ between ranks."""
        if self.training:
            mean, variance = self._update_statistics(x.to(self.running_mean.dtype))  # bf16 is too coarse for sums
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalized = (x - _per_channel(mean)) * _per_channel(scale) + _per_channel(self.bias)
        return self.act(self.drop(normalized.to(x.dtype)))

    def _update_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of each channel over all ranks, [C]; updates the running ones (unbiased variance)."""
        sums = all_reduce_sum(F.pad(x.sum((0, 2, 3)), (0, 1), value=x.numel() / x.shape[1]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        # About the mean: the difference of mean square and squared mean cancels badly in float32.
        variance = all_reduce_sum((x - _per_channel(mean)).square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return mean, variance


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
