"""One run on several processes: each has its share of every batch, and their numbers add up to those of one process.

A loss is normalised by global counts, through a sum over ranks that is differentiable. So a rank's gradient is `world_size`
times its share of the loss's, and the mean over ranks that DistributedDataParallel takes is the gradient of one process.
"""

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from tiekd.distill.runtime import MetricRow, load_state, save_epoch
from tiekd.store.run_store import RunRecord


class DDPRuntime:
    """One rank of PyTorch's default process group. The first rank keeps the run's checkpoint in the run store."""

    def __init__(self, device: torch.device, threads: int, record: RunRecord):
        self.device, self.rank, self.world_size = device, dist.get_rank(), dist.get_world_size()
        torch.set_num_threads(threads)
        self._record = record

    def wrap(self, student: nn.Module) -> nn.Module:
        """DistributedDataParallel around the student, whose batch norms are synchronised in place."""
        if self.device.type == "cuda":
            convert_sync_batchnorm(student)
        else:
            sync_batch_norms(student)
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(student, device_ids=devices)

    def all_sum(self, tensor: Tensor) -> Tensor:
        return AllReduceSum.apply(tensor)

    def gather(self, rows: list[MetricRow]) -> list[MetricRow]:
        shares: list[list[MetricRow]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(shares, rows)
        return [row for share in shares for row in share]

    def resume(self) -> dict[str, Any] | None:
        return load_state(self._record)

    def report_step(self, step: int, steps: int) -> None:
        pass

    def report(self, epochs: list[MetricRow], state: dict[str, Any]) -> None:
        if self.rank == 0:
            save_epoch(self._record, epochs, state, self.world_size)
        dist.barrier()  # a rank that failed meanwhile would see its word overwritten

    def is_worker_loss(self, error: Exception) -> bool:
        """Errors of NCCL have a type of their own; those of gloo are known by the file that their message names.

        Whatever comes once there is no process group is of its loss: Ray Train takes it away when another rank has ended.
        """
        of_gloo = isinstance(error, RuntimeError) and "/gloo/" in str(error)
        return of_gloo or isinstance(error, dist.DistError) or not dist.is_initialized()


class AllReduceSum(Function):
    """The sum over ranks, on every rank. Every rank's loss depends on it, and so its gradient is the sum of theirs."""

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
    """Replace every batch norm within a network, in place, by one over all ranks; parameters, buffers and their names stay."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, SyncedBatchNorm(child))


class SyncedBatchNorm(nn.Module):
    """A batch norm whose moments are those of all ranks' pixels. On CPUs, too, which PyTorch's SyncBatchNorm refuses.

    It takes over the tensors of the batch norm it replaces and, from one of timm's, its dropout and activation.
    """

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        self.eps, self.momentum, self.training = norm.eps, norm.momentum, norm.training
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W]; B may differ between ranks."""
        if self.training:
            mean, variance = self._moments(x.to(self.running_mean.dtype))  # bf16 would not do
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalised = (x - _per_channel(mean)) * _per_channel(scale) + _per_channel(self.bias)
        return self.act(self.drop(normalised.to(x.dtype)))

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of each channel over all ranks, [C]; keeps the running ones, with the unbiased variance."""
        sums = AllReduceSum.apply(F.pad(x.sum((0, 2, 3)), (0, 1), value=x.numel() / x.shape[1]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        # About the mean: the difference of mean square and squared mean would cancel badly in float32.
        variance = AllReduceSum.apply((x - _per_channel(mean)).square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return mean, variance


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
