"""The order in which the workers of a team compute, and garbage; no Ray is started. test_runtime_train.py has real workers."""

import asyncio
import gc

import pytest

from ablations.execution.worker_process import Orders, no_collections


def test_workers_take_each_order_and_it_ends_with_the_last_of_them():
    async def work() -> list[tuple]:
        events: list[tuple] = []
        orders = Orders(2)

        async def worker(rank: int) -> None:
            for number in range(3):
                order = await orders.take(number)
                events.append((order["run_id"], rank))
                await asyncio.sleep(0.001 * rank)

        workers = [asyncio.create_task(worker(rank)) for rank in range(2)]
        for run_id in "ab":
            await orders.compute({"run_id": run_id})
            events.append((run_id, "ended"))
        for task in workers:
            task.cancel()
        return events

    events = asyncio.run(asyncio.wait_for(work(), timeout=60))
    assert [sorted(events[start : start + 2]) for start in (0, 3)] == [[("a", 0), ("a", 1)], [("b", 0), ("b", 1)]]
    assert [events[2], events[5]] == [("a", "ended"), ("b", "ended")]


def test_garbage_is_collected_again_after_an_import_that_fails():
    def fail() -> None:
        with no_collections():
            assert not gc.isenabled()
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert gc.isenabled()
