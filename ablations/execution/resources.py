"""The resources of a running Ray cluster: whether trials fit, and the GPUs that this process has reserved."""

import os
import time

import ray

from ablations.planning.resources import Node, check_capacity
from tiekd.config import ExecutionConfig
from tiekd.errors import UserError

CAPACITY_POLL_S = 5.0  # between checks of the cluster's capacity


def cluster_nodes() -> list[Node]:
    """Return the resources of each node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def hide_unreserved_gpus() -> None:
    """Let a Ray worker that has reserved no GPU see none; call it before PyTorch looks for them.

    By default Ray shows such a worker all GPUs of its machine: as many trials as there are CPUs would compute on the first.
    """
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


class CapacityMonitor:
    """Detects when the remaining nodes cannot run a trial any more: Tune waits for new nodes without a message."""

    def __init__(self, execution: ExecutionConfig):
        self._execution, self._shortage, self._checked = execution, "", -CAPACITY_POLL_S

    def change(self, idle: bool) -> str:
        """Return a message when capacity is lost or regained, else "".

        Queries Ray's head, and therefore only while no trial runs (`idle`) and at most every CAPACITY_POLL_S seconds.
        """
        before = self._shortage
        if not idle:
            self._shortage = ""
        elif time.monotonic() >= self._checked + CAPACITY_POLL_S:
            self._checked, self._shortage = time.monotonic(), _shortage(self._execution)
        if bool(before) == bool(self._shortage):
            return ""
        if self._shortage:
            return f"waiting for nodes ({self._shortage}); runs resume from their last checkpoint when a node joins"
        return "the cluster has capacity for a trial again"


def _shortage(execution: ExecutionConfig) -> str:
    try:
        check_capacity(execution, cluster_nodes())
    except UserError as error:
        return str(error)
    return ""
