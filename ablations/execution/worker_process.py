"""What Ray's processes need around the work: the GPUs that they may see, and the order in which a team computes its runs."""

import asyncio
import contextlib
import gc
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import ray


def hide_unreserved_gpus() -> None:
    """Let a Ray worker that has reserved no GPU see none; call it before PyTorch looks for them.

    By default Ray shows such a worker all GPUs of its machine: as many trials as there are CPUs would compute on the first.
    """
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Look for no garbage in the block. The imports for a training make none, and take a fifth less time without the search."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Orders:
    """Hands one run after the other to the workers of a team. An actor, whose process imports no PyTorch."""

    def __init__(self, n_workers: int):
        self._n_workers = n_workers
        self._orders: list[dict[str, Any]] = []
        self._ended: Counter[int] = Counter()  # workers by the number of the order that they have ended
        self._changed = asyncio.Condition()

    async def compute(self, order: dict[str, Any]) -> None:
        """Give an order to the workers. Returns when each of them has ended it."""
        async with self._changed:
            number = len(self._orders)
            self._orders.append(order)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._ended[number] == self._n_workers)

    async def take(self, number: int) -> dict[str, Any]:
        """Return an order of a worker, who has ended the one before; waits until there is one."""
        async with self._changed:
            self._ended[number - 1] += 1
            self._changed.notify_all()
            await self._changed.wait_for(lambda: len(self._orders) > number)
            return self._orders[number]

    async def closed(self) -> None:
        """Never returns; raises RayActorError in the caller when this process has ended."""
        await asyncio.Event().wait()
