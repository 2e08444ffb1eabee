"""What the training loop needs from its environment, and the runtime of a single process."""

import io
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn

from tiekd.config import ExecutionConfig
from tiekd.errors import PreemptedError, UserError, error_line
from tiekd.store.run_store import RunRecord

CHECKPOINT = "checkpoint/state.pt"
CHECK_EVERY = 50  # steps between checks that wait for the device
CHECKED_S = 5.0  # how long a process trusts that it owns its run
PREEMPTED = "stopped after a step, since its machine is being taken away"
MetricRow = dict[str, Any]
Restore = Callable[[dict[str, Any]], None]


class Runtime(Protocol):
    """One of `world_size` processes that train one run together."""

    device: torch.device
    rank: int
    world_size: int

    def wrap(self, student: nn.Module) -> nn.Module:
        """Return the module to train: the student or its distributed wrapper."""
        ...

    def all_sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks, differentiably."""
        ...

    def gather(self, rows: list[MetricRow]) -> list[MetricRow]:
        """Return the rows of all ranks, on every rank."""
        ...

    def resume(self, restore: Restore) -> None:
        """Pass the last state given to `report` to `restore`, unless the run is new. A damaged state counts as none."""
        ...

    def report_step(self, step: int, steps: int) -> None:
        """Called after each step, for progress displays; does not wait for the device."""
        ...

    def checkpoint_due(self, step: int) -> bool:
        """Whether to call `checkpoint` after a step of the training; the same on every rank."""
        ...

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Store the state to resume from within an epoch. Returns before it is written."""
        ...

    def report(self, epochs: list[MetricRow], state: dict[str, Any]) -> None:
        """Store the rows of all epochs so far, and the state to resume from. Called after each epoch."""
        ...

    def is_worker_loss(self, error: Exception) -> bool:
        """Whether an error means that another process has died, so that the run can be resumed once it is replaced."""
        ...


class LocalRuntime:
    """This process only. With a record, its checkpoint is in the run store; without one, nothing is stored."""

    rank = 0
    world_size = 1

    def __init__(self, execution: ExecutionConfig, record: RunRecord | None = None, display: Callable[..., None] | None = None):
        self.device = run_device(execution)
        check_execution(execution, self.device)
        torch.set_num_threads(execution.threads)
        self._record, self._display = record, display
        self._checkpoints = Checkpoints(record, execution.checkpoint_minutes) if record else None
        self._stopping = False

    def stop(self) -> None:
        """Let the current step end, write the state after it, and raise PreemptedError. Any thread may call this."""
        self._stopping = True

    def wrap(self, student: nn.Module) -> nn.Module:
        return student

    def all_sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, rows: list[MetricRow]) -> list[MetricRow]:
        return rows

    def resume(self, restore: Restore) -> None:
        if self._record:
            restore_state(self._record, restore)

    def report_step(self, step: int, steps: int) -> None:
        if self._display:
            self._display(step=step, steps=steps)

    def checkpoint_due(self, step: int) -> bool:
        return self._stopping or (self._checkpoints is not None and self._checkpoints.due)

    def checkpoint(self, state: dict[str, Any]) -> None:
        if self._checkpoints:
            self._checkpoints.write(state)
        self._stop_if_asked()

    def report(self, epochs: list[MetricRow], state: dict[str, Any]) -> None:
        if self._checkpoints:
            self._checkpoints.write_epoch(epochs, state, self.world_size)
        if self._display:
            self._display(epoch=epochs[-1])
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._stopping:
            if self._checkpoints:
                self._checkpoints.wait()
            raise PreemptedError(PREEMPTED)

    def is_worker_loss(self, error: Exception) -> bool:
        return False


class Checkpoints:
    """Writes the state of a training to its run: after each epoch, and in a thread within epochs, so that no step waits."""

    def __init__(self, record: RunRecord, minutes: float):
        self._record, self._interval = record, 60 * minutes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the interval has passed since the last state. Raises what prevented that one from being written."""
        if self._writing and self._writing.done():
            self._writing.result()
        return time.monotonic() - self._last >= self._interval and not (self._writing and not self._writing.done())

    def write(self, state: dict[str, Any]) -> None:
        """Write a copy of the state in the thread."""
        self._last = time.monotonic()
        self._writing = self._thread.submit(self._write, copy_to_cpu(state))

    def wait(self) -> None:
        """Wait until the thread has written the last state. Raises what prevented it."""
        if self._writing:
            self._writing.result()

    def _write(self, state: dict[str, Any]) -> None:
        self._record.check_attempt()
        self._record.write_file(CHECKPOINT, pack_state(state))

    def write_epoch(self, epochs: list[MetricRow], state: dict[str, Any], workers: int) -> None:
        """Write the state after an epoch, when an earlier one has been written; see `save_epoch`."""
        self.wait()
        save_epoch(self._record, epochs, state, workers)
        self._last = time.monotonic()


def copy_to_cpu(value: Any) -> Any:
    """Copy a state, which training changes in place, into the memory of the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copy_to_cpu(inner) for key, inner in value.items()}
    return [copy_to_cpu(inner) for inner in value] if isinstance(value, list) else value


def restore_state(record: RunRecord, restore: Restore) -> None:
    """Pass the checkpoint of a run in the run store to `restore`.

    If it is damaged, or does not fit and `restore` raises an error, the run starts afresh: with a warning, and its
    provenance.json will say so.
    """

    def parse(content: bytes) -> None:
        try:
            restore(unpack_state(content))
        except Exception as error:  # PyTorch raises errors of many types
            raise ValueError(f"the training starts afresh ({error_line(error)})") from error

    record.read_as(CHECKPOINT, parse)


def save_epoch(record: RunRecord, epochs: list[MetricRow], state: dict[str, Any], workers: int) -> None:
    """Write the rows of all epochs, the checkpoint and the run's progress to the run store.

    Raises SupersededError and writes nothing if another process has started the run since.
    """
    record.check_attempt()
    checked = time.monotonic()
    record.write_table("epochs.parquet", pd.DataFrame(epochs))
    record.write_file(CHECKPOINT, pack_state(state))
    if time.monotonic() - checked > CHECKED_S:
        record.check_attempt()
    status = record.written or record.status()
    # Earlier epochs may have had another number of workers; a run that started afresh has fewer than before.
    new = epochs[min(status.epoch, len(epochs) - 1) :]
    device_seconds = status.device_seconds + sum(row["seconds"] for row in new) * workers
    record.write_status(replace(status, epoch=len(epochs), device_seconds=device_seconds, updated=time.time()))


def pack_state(state: dict[str, Any]) -> bytes:
    """Serialize the state of a training: tensors, numbers and strings, nested in dicts and lists."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack_state(content: bytes) -> dict[str, Any]:
    """Inverse of `pack_state`, on the CPU. Raises an error, and runs no code, if the content is another pickle."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def choose_device(name: str) -> torch.device:
    """Choose the device of a setting: auto means CUDA if it is available. Raises UserError if cuda is not."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("execution.device: 'cuda' was asked for, but PyTorch sees no GPU here; valid: auto, cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def run_device(execution: ExecutionConfig) -> torch.device:
    """Return the device of a process that trains or makes maps: with `device: auto`, CUDA exactly if it gets a GPU.

    Raises UserError if PyTorch cannot use the GPU that it gets or asks for: the CPU would take weeks, without a word.
    """
    if execution.device == "auto" and execution.gpus and not torch.cuda.is_available():
        raise UserError(
            f"execution.gpus_per_worker: {execution.gpus:g} is reserved, but PyTorch {torch.__version__} sees no GPU here "
            f"(CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')}); valid here: 0, to compute on the CPU"
        )
    gpu_or_cpu = "cuda" if execution.gpus else "cpu"
    return choose_device(gpu_or_cpu if execution.device == "auto" else execution.device)


def check_execution(execution: ExecutionConfig, device: torch.device) -> None:
    """Raise UserError if the device or this machine does not support the settings."""
    if execution.kernel == "triton" and not (device.type == "cuda" and find_spec("triton")):
        raise UserError(
            f"execution.kernel: 'triton' needs a CUDA GPU and the package triton, got the device {device}; valid here: torch"
        )
    if execution.compile:
        _check_compiler(device)


def _check_compiler(device: torch.device) -> None:
    """Compile an addition, which fails without a C++ compiler, Python's headers or Triton, as a student would."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:  # compilers raise errors of their own types
        raise UserError(
            f"execution.compile: torch.compile does not work on this machine ({str(error).strip().splitlines()[0]}); "
            "valid here: false, or install a C++ compiler and Python's headers (Debian: g++, python3-dev)"
        ) from None
