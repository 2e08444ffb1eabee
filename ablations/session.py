"""The Ray that a launch runs on. Knows nothing of Tune, which takes seconds to import."""

import contextlib
import logging
from collections.abc import Iterator

import ray
from ray._private import worker as ray_worker

from ablations.joining import join
from ablations.resources import check_devices, check_room
from ablations.watch import starting, undisturbed, watch
from tiekd.config import ExecutionConfig


@contextlib.contextmanager
def cluster(address: str | None, execution: ExecutionConfig) -> Iterator[None]:
    """A running Ray: the cluster at `address`, or one of this machine's own that ends with the block."""
    check_devices(execution)
    # A thread of Ray's prints a paragraph for each process that dies. `log_to_driver` has no say in it.
    ray_worker._worker_logs_enabled = False
    try:
        with starting():
            if address:
                join(address)
            else:
                # "local", or Ray would join any cluster that it finds on the machine.
                ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        check_room(execution)
        with watch(address):
            yield
    finally:
        with undisturbed():
            ray.shutdown()
