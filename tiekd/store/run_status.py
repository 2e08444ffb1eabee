"""The status of a run, and the process that computes it."""

import os
import socket
import time
import uuid
from dataclasses import dataclass, field
from typing import Literal, get_args

State = Literal["done", "failed", "diverged", "constant", "running", "missing"]
STATES: tuple[str, ...] = get_args(State)
PRUNED_CAUSE = "pruned by the scheduler"  # how the cause of a run begins that a search has ended early
FINISHED = ("done", "diverged", "constant")  # running it again would give the same result; a failed run may succeed


@dataclass(frozen=True)
class Status:
    """State and progress of a run. `cause` is the one-line reason why it is not done; times are seconds since 1970."""

    state: State
    cause: str = ""
    epoch: int = 0  # finished epochs
    epochs: int = 0  # configured epochs
    device_seconds: float = 0.0  # spent so far, over all workers and interruptions
    started: float = 0.0
    updated: float = field(default_factory=time.time)

    @property
    def pruned(self) -> bool:
        """Whether a search has ended it early. It is then missing, since another launch may continue it."""
        return self.state == "missing" and self.cause.startswith(PRUNED_CAUSE)


@dataclass(frozen=True)
class Attempt:
    """One start of a run, by the process `pid` on `host`, which computes the run or waits for its workers."""

    id: str
    host: str
    pid: int

    @classmethod
    def current(cls) -> "Attempt":
        """A new attempt of this process."""
        return cls(uuid.uuid4().hex, socket.gethostname(), os.getpid())

    @property
    def alive(self) -> bool | None:
        """Whether the process exists; None if it is on another machine."""
        if self.host != socket.gethostname():
            return None
        try:
            os.kill(self.pid, 0)
        except OSError as error:
            return isinstance(error, PermissionError)
        return True
