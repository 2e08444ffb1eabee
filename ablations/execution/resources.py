"""Resources that a trial reserves, one bundle per worker, and whether a cluster can provide them."""

import math
import time

import ray

from tiekd.config import ExecutionConfig
from tiekd.errors import UserError

CAPACITY_POLL_S = 5.0  # between checks of the cluster's capacity


def worker_resources(execution: ExecutionConfig) -> dict[str, float]:
    """Return Ray resources of one worker, by name; zero amounts are left out."""
    resources = {"CPU": execution.cpus_per_worker, "GPU": execution.gpus_per_worker}
    return {name: amount for name, amount in resources.items() if amount}


def check_devices(execution: ExecutionConfig) -> None:
    """Raise UserError if workers would not find their device: Ray hides every GPU that a worker has not reserved."""
    given = f"execution.device {execution.device!r} with execution.gpus_per_worker {execution.gpus_per_worker:g}"
    if execution.workers > 1 and execution.device == ("cpu" if execution.gpus_per_worker else "cuda"):
        raise UserError(f"{given}: {execution.workers} workers compute on the GPUs that they reserve; valid: device auto")
    if execution.kernel == "triton" and not execution.gpus_per_worker:
        raise UserError("execution.kernel 'triton' with execution.gpus_per_worker 0: the kernel needs a GPU; valid: torch")


def check_capacity(execution: ExecutionConfig) -> None:
    """Raise UserError unless the cluster, when idle, has capacity for one trial."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not nodes:
        raise UserError("the Ray cluster has no node on which a trial could run")
    wanted = worker_resources(execution)
    for name, amount in wanted.items():
        largest = max(node.get(name, 0) for node in nodes)
        if amount > largest:
            raise UserError(
                f"execution.{name.lower()}s_per_worker: a trial needs {amount:g} {name}s, "
                f"the largest node of the cluster has {largest:g}"
            )
    if (slots := _worker_slots(execution)) < execution.workers:
        each = " and ".join(f"{amount:g} {name}s" for name, amount in wanted.items())
        raise UserError(
            f"execution.workers: a trial needs {execution.workers} workers of {each}, the cluster has capacity for {slots}"
        )


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
        check_capacity(execution)
    except UserError as error:
        return str(error)
    return ""


def trial_slots(execution: ExecutionConfig) -> int:
    """Return how many trials the cluster, when idle, can run at the same time."""
    return _worker_slots(execution) // execution.workers


def _worker_slots(execution: ExecutionConfig) -> int:
    """Return how many workers the cluster, when idle, can run at the same time."""
    wanted = worker_resources(execution)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(min(_multiples(amount, node.get(name, 0)) for name, amount in wanted.items()) for node in nodes)


def _multiples(amount: float, resource: float) -> int:
    """Return how often `amount` fits into `resource`; the tolerance is for amounts such as 0.1."""
    return math.floor(resource / amount + 1e-6)
