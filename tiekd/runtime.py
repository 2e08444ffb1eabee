"""Where a run runs: all that the loop asks of its surroundings."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn

from tiekd.checkpoint import pack_state, unpack_state
from tiekd.config import ExecutionConfig
from tiekd.errors import UserError
from tiekd.store import RunRecord

CHECKPOINT = "checkpoint/state.pt"
Row = dict[str, Any]


class Runtime(Protocol):
    """One of `world_size` processes that train one run together."""

    device: torch.device
    rank: int
    world_size: int

    def wrap(self, student: nn.Module) -> nn.Module:
        """The student as it is trained: the same module, or its distributed wrapper."""
        ...

    def all_sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, differentiable."""
        ...

    def gather(self, rows: list[Row]) -> list[Row]:
        """The rows of all ranks, on every rank."""
        ...

    def resume(self) -> dict[str, Any] | None:
        """The state that `report` was last given, or None at a run's beginning."""
        ...

    def step(self, step: int, steps: int) -> None:
        """A step is over; for progress displays, called without waiting for the device."""
        ...

    def report(self, epochs: list[Row], state: dict[str, Any]) -> None:
        """An epoch is over: keep the rows of all epochs so far and the state to go on from."""
        ...


class LocalRuntime:
    """This process alone, keeping its checkpoint in the run store."""

    rank = 0
    world_size = 1

    def __init__(self, execution: ExecutionConfig, record: RunRecord, display: Callable[..., None] | None = None):
        self.device = choose_device(execution.device)
        torch.set_num_threads(execution.cpus_per_worker)
        self._record, self._display = record, display

    def wrap(self, student: nn.Module) -> nn.Module:
        return student

    def all_sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, rows: list[Row]) -> list[Row]:
        return rows

    def resume(self) -> dict[str, Any] | None:
        content = self._record.read_file(CHECKPOINT)
        return None if content is None else unpack_state(content)

    def step(self, step: int, steps: int) -> None:
        if self._display:
            self._display(step=step, steps=steps)

    def report(self, epochs: list[Row], state: dict[str, Any]) -> None:
        self._record.write_table("epochs.parquet", pd.DataFrame(epochs))
        self._record.write_file(CHECKPOINT, pack_state(state))
        spent = sum(row["seconds"] for row in epochs) * self.world_size
        status = replace(self._record.status(), epoch=len(epochs), device_seconds=spent, updated=time.time())
        self._record.write_status(status)
        if self._display:
            self._display(epoch=epochs[-1])


def choose_device(name: str) -> torch.device:
    """'auto' is CUDA where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("execution.device: 'cuda' was asked for, but PyTorch sees no GPU here; valid: auto, cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
