"""Share the blocks of a command on many frames between actors of a Ray cluster.

Actors, and not Ray Data: that needs more memory and time to start (docs/cluster.md), and buys nothing where a result is small
and a lost item is simply done again.
"""

import contextlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from ablations.execution.cluster import ray_cluster
from ablations.execution.node_checks import check_nodes
from ablations.execution.worker_process import hide_unreserved_gpus
from tiekd.config import ExecutionConfig, RunConfig
from tiekd.data.progress import Pool
from tiekd.errors import ClusterError, error_line
from tiekd.store.run_store import RunStore

MAX_PROCESSES = 200  # also those that wait for a free slot, so that a cluster that grows finds work
MAX_LOSSES = 3  # of the process that works on one item
T = TypeVar("T")
R = TypeVar("R")


@contextlib.contextmanager
def ray_pool(
    address: str,
    execution: ExecutionConfig,
    out: Path,
    gpu: bool,
    configs: Sequence[RunConfig],
    files: Sequence[Path],
) -> Iterator[Pool]:
    """Connect to the cluster at `address`, or start one on this machine for "local"; see `tiekd.cli.packaged.open_pool`."""
    on_cpu = {} if gpu else {"device": "cpu", "gpus_per_worker": 0}
    one = execution.model_copy(update={"workers": 1, "kernel": "torch", **on_cpu})
    with ray_cluster(None if address == "local" else address, one) as fitted:
        check_nodes(RunStore(out.absolute()), configs, fitted, files)
        yield partial(_share, {"num_cpus": fitted.cpus, "num_gpus": fitted.gpus})


@ray.remote(max_restarts=-1)
class _Process:
    """Does the work of a pool, one item at a time. Starts anew after its process or its node was lost."""

    def start(self, start: Callable[[], Callable[[Any], Iterable[Any]]], folder: Path) -> None:
        hide_unreserved_gpus()
        os.chdir(folder)  # so that relative paths mean what they mean to the command
        self._work = start()

    def work(self, item: Any) -> list[Any]:
        return list(self._work(item))


def _share(reserved: dict[str, float], start: Callable[[], Callable[[T], Iterable[R]]], items: Sequence[T]) -> Iterator[R]:
    """A `Pool`. When a process or its node is lost, its item is done again; see MAX_LOSSES."""
    if not items:
        return
    task, here = ray.put(start), Path.cwd()
    new_process = _Process.options(**reserved)  # type: ignore[attr-defined]  # of the decorator
    processes = [new_process.remote() for _ in range(min(len(items), MAX_PROCESSES))]
    busy: dict[ray.ObjectRef, tuple[Any, int | None]] = {p.start.remote(task, here): (p, None) for p in processes}
    waiting, results, next_result = deque(range(len(items))), dict[int, list[R]](), 0
    losses: Counter[Any] = Counter()
    try:
        while next_result < len(items):
            (finished,), _ = ray.wait(list(busy), num_returns=1)
            process, index = busy.pop(finished)
            try:
                result = ray.get(finished)
            except RayTaskError as error:
                raise error.cause from error
            except RayError as error:  # the process or its node was lost
                lost = process if index is None else index
                losses[lost] += 1
                if losses[lost] == MAX_LOSSES:
                    raise ClusterError(f"a process of the pool was lost {MAX_LOSSES} times: {error_line(error)}") from None
                if index is not None:
                    waiting.appendleft(index)
                busy[process.start.remote(task, here)] = process, None
                continue
            if index is not None:
                results[index] = result
            if waiting:
                index = waiting.popleft()
                busy[process.work.remote(items[index])] = process, index
            else:
                ray.kill(process)  # frees its slot for one that was lost
            while next_result in results:
                yield from results.pop(next_result)
                next_result += 1
    finally:
        for process in processes:
            ray.kill(process)
