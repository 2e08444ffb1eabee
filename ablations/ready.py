"""Whether runs can begin, asked in the processes that then wait for the trials.

So the launching process does without PyTorch, and the first trials find it imported.
"""

import importlib

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ablations.plan import mistakes
from ablations.resources import slots
from tiekd.config import ExecutionConfig, RunConfig

NEEDED = ("ablations.runtime_tune", "tiekd.run")  # by a trial, and seconds to import


def mistakes_there(execution: ExecutionConfig, configs: list[RunConfig]) -> list[str]:
    """`mistakes` of a process of the cluster's on this machine. Meanwhile those of other trials' processes get ready."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    asked = _mistakes.options(scheduling_strategy=here).remote(configs)
    if execution.workers == 1:  # a process of Ray Train's is always a new one
        for _ in range(slots(execution) - 1):
            _get_ready.options(num_cpus=execution.cpus_per_worker).remote()
    return ray.get(asked)


@ray.remote(num_cpus=0, max_retries=0)
def _mistakes(configs: list[RunConfig]) -> list[str]:
    _import_needed()
    return mistakes(configs)


@ray.remote(max_retries=0)
def _get_ready() -> None:
    _import_needed()


def _import_needed() -> None:
    for module in NEEDED:
        importlib.import_module(module)
