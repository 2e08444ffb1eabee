"""What a trial reserves on the cluster: a bundle for each of its workers."""

import math
import time

import ray

from tiekd.config import ExecutionConfig
from tiekd.errors import UserError

CONNECT_S = 5.0  # until an address counts as silent
LOOK_EVERY_S = 5.0  # between looks at the room for a trial


def worker_resources(execution: ExecutionConfig) -> dict[str, float]:
    """What one worker reserves."""
    resources = {"CPU": execution.cpus_per_worker, "GPU": execution.gpus_per_worker}
    return {name: amount for name, amount in resources.items() if amount}


def check_devices(execution: ExecutionConfig) -> None:
    """Raise UserError where trials would not find their devices: workers see the GPUs that they reserve and no others."""
    asked = f"execution.device {execution.device!r} with execution.gpus_per_worker {execution.gpus_per_worker:g}"
    if execution.workers > 1 and execution.device == ("cpu" if execution.gpus_per_worker else "cuda"):
        raise UserError(f"{asked}: {execution.workers} workers compute on the GPUs that they reserve; valid: device auto")
    if execution.kernel == "triton" and not execution.gpus_per_worker:
        raise UserError("execution.kernel 'triton' with execution.gpus_per_worker 0: it computes on GPUs; valid there: torch")


def check_capacity(execution: ExecutionConfig) -> None:
    """Raise UserError unless the cluster, once idle, has room for a trial."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = worker_resources(execution)
    for name, amount in wanted.items():
        largest = max(node.get(name, 0) for node in nodes)
        if amount > largest:
            raise UserError(
                f"execution.{name.lower()}s_per_worker: a trial asks for {amount:g} {name}s, "
                f"the cluster has {largest:g} on its largest node"
            )
    if (room := _worker_slots(execution)) < execution.workers:
        each = " and ".join(f"{amount:g} {name}s" for name, amount in wanted.items())
        raise UserError(
            f"execution.workers: a trial asks for {execution.workers} workers of {each}, the cluster has room for {room}"
        )


class CapacityMonitor:
    """Whether the nodes that are left could run a trial: Tune waits for others in silence."""

    def __init__(self, execution: ExecutionConfig):
        self._execution, self._lacks, self._looked = execution, "", -LOOK_EVERY_S

    def change(self, idle: bool) -> str:
        """A line when the room has gone or has come back; else "".

        Looks only while no trial runs, every few seconds however often it is asked: a look waits for an answer of Ray's head.
        """
        lacked = self._lacks
        if not idle:
            self._lacks = ""
        elif time.monotonic() >= self._looked + LOOK_EVERY_S:
            self._looked, self._lacks = time.monotonic(), _lacks(self._execution)
        if bool(lacked) == bool(self._lacks):
            return ""
        if self._lacks:
            return f"waiting for nodes ({self._lacks}); runs go on from their last epoch as soon as there is room"
        return "there is room for a trial again"


def _lacks(execution: ExecutionConfig) -> str:
    try:
        check_capacity(execution)
    except UserError as error:
        return str(error)
    return ""


def trial_slots(execution: ExecutionConfig) -> int:
    """Trials that the cluster, once idle, has room for at the same time."""
    return _worker_slots(execution) // execution.workers


def _worker_slots(execution: ExecutionConfig) -> int:
    """The same of workers."""
    wanted = worker_resources(execution)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(min(_times(amount, node.get(name, 0)) for name, amount in wanted.items()) for node in nodes)


def _times(amount: float, resource: float) -> int:
    """How often an amount can be taken; tenths add up, whatever floats make of them."""
    return math.floor(resource / amount + 1e-6)
