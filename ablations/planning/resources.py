"""What the workers of a launch reserve on a cluster, or on this machine, and whether there is enough. Imports no Ray."""

import math
from collections.abc import Mapping, Sequence

from tiekd.config import ExecutionConfig
from tiekd.config.cpus import usable_cpus
from tiekd.config.gpus import usable_gpus, why_unusable
from tiekd.errors import UserError

Node = Mapping[str, float]  # amounts of a node's resources by Ray's names


def this_machine() -> Node:
    """The node that a private Ray has."""
    return {"CPU": usable_cpus(), "GPU": usable_gpus()}


def resolve(execution: ExecutionConfig, nodes: Sequence[Node]) -> ExecutionConfig:
    """Return settings with a number for every `auto`. Raises UserError if they contradict each other.

    CPUs are shared by the GPUs of the node that has fewest for each, so that every GPU of the cluster can be used.
    """
    shares = [node["CPU"] / node["GPU"] for node in nodes if node.get("GPU") and node.get("CPU")]
    resolved = execution.resolved(min(shares, default=0))
    _check_devices(resolved)
    return resolved


def fit(execution: ExecutionConfig, nodes: Sequence[Node]) -> ExecutionConfig:
    """Same as `resolve`. Raises UserError also if a cluster of these nodes, when idle, has no capacity for a trial."""
    resolved = resolve(execution, nodes)
    check_capacity(resolved, nodes)
    return resolved


def _check_devices(execution: ExecutionConfig) -> None:
    given = f"with execution.gpus_per_worker {execution.gpus:g}"
    if execution.device == "cuda" and not execution.gpus:
        raise UserError(f"execution.device 'cuda' {given}: a worker sees only the GPUs that it reserves; valid: auto, cpu")
    if execution.device == "cpu" and execution.gpus:
        raise UserError(f"execution.device 'cpu' {given}: workers would reserve GPUs and not use them; valid: auto")
    if execution.kernel == "triton" and not execution.gpus:
        raise UserError(f"execution.kernel 'triton' {given}: the kernel needs a GPU; valid: torch")


def worker_resources(execution: ExecutionConfig) -> dict[str, float]:
    """Return Ray resources of one worker, by name; zero amounts are left out."""
    resources = {"GPU": execution.gpus, "CPU": float(execution.cpus)}
    return {name: amount for name, amount in resources.items() if amount}


def check_capacity(execution: ExecutionConfig, nodes: Sequence[Node]) -> None:
    """Raise UserError unless a cluster of these nodes, when idle, has capacity for one trial."""
    if not nodes:
        raise UserError("the Ray cluster has no node on which a trial could run")
    wanted = worker_resources(execution)
    for name, amount in wanted.items():
        largest = max(node.get(name, 0) for node in nodes)
        if amount > largest:
            instead = "; valid: auto, or 0 to compute on CPUs" if name == "GPU" else ""
            raise UserError(
                f"execution.{name.lower()}s_per_worker: a trial needs {_count(amount, name)}, "
                f"the largest node of the cluster has {largest:g}{instead}"
            )
    if (slots := _worker_slots(execution, nodes)) < execution.workers:
        raise UserError(
            f"execution.workers: a trial needs {execution.workers} workers of {_each(wanted)}, "
            f"the cluster has capacity for {slots}"
        )


def trial_slots(execution: ExecutionConfig, nodes: Sequence[Node]) -> int:
    """Return how many trials a cluster of these nodes, when idle, can run at the same time."""
    return _worker_slots(execution, nodes) // execution.workers


def _worker_slots(execution: ExecutionConfig, nodes: Sequence[Node]) -> int:
    wanted = worker_resources(execution)
    return sum(min(_multiples(amount, node.get(name, 0)) for name, amount in wanted.items()) for node in nodes)


def _multiples(amount: float, resource: float) -> int:
    """Return how often `amount` fits into `resource`; the tolerance is for amounts such as 0.1."""
    return math.floor(resource / amount + 1e-6)


def _each(resources: Mapping[str, float]) -> str:
    return " and ".join(_count(amount, name) for name, amount in resources.items())


def _count(amount: float, name: str) -> str:
    return f"{amount:g} {name}{'' if amount == 1 else 's'}"


def summary(execution: ExecutionConfig, slots: int) -> str:
    """Say what a trial gets, and how many run at the same time."""
    workers = f"{execution.workers} workers, each with " if execution.workers > 1 else ""
    loaders = {"data worker": float(execution.data_workers)} if execution.data_workers else {}
    each = ", ".join(_count(amount, name) for name, amount in (worker_resources(execution) | loaders).items())
    return f"a trial gets {workers}{each}; {slots} at the same time"


def unused_gpus(execution: ExecutionConfig, nodes: Sequence[Node], local: bool) -> str:
    """Return a line about GPUs that a launch leaves idle however many trials it has; "" if there are none.

    local: the launch starts its own Ray on this machine, whose GPUs PyTorch may be unable to use.
    """
    if local and (reason := why_unusable()):
        return f"this machine's GPUs stay idle: {reason}"
    total = sum(node.get("GPU", 0) for node in nodes)
    used = trial_slots(execution, nodes) * execution.workers * execution.gpus
    if (idle := math.floor(total - used + 1e-6)) < 1:
        return ""
    if not execution.gpus:
        reason = f"execution.device is {execution.device}" if execution.device == "cpu" else "execution.gpus_per_worker is 0"
    else:
        each = _each(worker_resources(execution))
        of = f" of {execution.workers} workers, each" if execution.workers > 1 else ""
        reason = f"{trial_slots(execution, nodes)} trials{of} with {each} fit"
    return f"{idle} of {total:g} GPUs stay idle: {reason}"
