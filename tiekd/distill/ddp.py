"""One run on several processes, which share every batch and together compute the numbers of one process.

A loss is normalized by global counts, through a differentiable sum over ranks. A rank's gradient is therefore `world_size`
times its share of the gradient, and the mean over ranks that DistributedDataParallel computes is the gradient of one process.
"""

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tiekd.config import ExecutionConfig
from tiekd.distill.runtime import CHECK_EVERY, PREEMPTED, Checkpoints, MetricRow, Restore, restore_state
from tiekd.distill.sync_batch_norm import all_reduce_sum, sync_batch_norms
from tiekd.errors import PreemptedError
from tiekd.store.run_store import RunRecord


class DDPRuntime:
    """One rank of PyTorch's default process group. The first rank keeps the run's checkpoint in the run store."""

    def __init__(self, device: torch.device, execution: ExecutionConfig, record: RunRecord):
        self.device, self.rank, self.world_size = device, dist.get_rank(), dist.get_world_size()
        torch.set_num_threads(execution.threads)
        self._record, self._checkpoints = record, Checkpoints(record, execution.checkpoint_minutes)
        self._asked = self._stopping = False  # of this rank; of all ranks

    def stop(self) -> None:
        """Let all ranks end their step, write the state after it, and raise PreemptedError. Any thread may call this."""
        self._asked = True

    def wrap(self, student: nn.Module) -> nn.Module:
        """Synchronize the student's batch norms in place, and wrap it in DistributedDataParallel."""
        if self.device.type == "cuda":
            convert_sync_batchnorm(student)
        else:
            sync_batch_norms(student)
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(student, device_ids=devices)

    def all_sum(self, tensor: Tensor) -> Tensor:
        return all_reduce_sum(tensor)

    def gather(self, rows: list[MetricRow]) -> list[MetricRow]:
        shares: list[list[MetricRow]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(shares, rows)
        return [row for share in shares for row in share]

    def resume(self, restore: Restore) -> None:
        restore_state(self._record, restore)

    def report_step(self, step: int, steps: int) -> None:
        pass

    def checkpoint_due(self, step: int) -> bool:
        """Ask the first rank, whose clock counts, and all whether to stop; every few steps on a GPU, since it waits for it."""
        if self.device.type == "cuda" and step % CHECK_EVERY:
            return False
        asked = torch.tensor([float(self.rank == 0 and self._checkpoints.due), float(self._asked)], device=self.device)
        due, stopping = all_reduce_sum(asked).tolist()
        self._stopping = stopping > 0
        return due > 0 or self._stopping

    def checkpoint(self, state: dict[str, Any]) -> None:
        if self.rank == 0:
            self._checkpoints.write(state)
        if self._stopping:
            if self.rank == 0:
                self._checkpoints.wait()
            dist.barrier()  # a rank that ends earlier would end the first one while it writes
            raise PreemptedError(PREEMPTED)

    def report(self, epochs: list[MetricRow], state: dict[str, Any]) -> None:
        if self.rank == 0:
            self._checkpoints.write_epoch(epochs, state, self.world_size)
        dist.barrier()  # otherwise the first rank could overwrite the failure that another one records meanwhile

    def is_worker_loss(self, error: Exception) -> bool:
        """NCCL has its own error types; errors of gloo are recognized by the source file in their message.

        Without a process group every error counts: Ray Train removes the group when another rank has ended.
        """
        of_gloo = isinstance(error, RuntimeError) and "/gloo/" in str(error)
        return of_gloo or isinstance(error, dist.DistError) or not dist.is_initialized()
