"""Whether runs can begin, asked by a launch, which does without PyTorch."""

import importlib

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ablations.plan import mistakes
from tiekd.config import RunConfig


def mistakes_there(configs: list[RunConfig]) -> list[str]:
    """`mistakes`; where networks must be tried, of a process of the cluster's on this machine."""
    if all(config.student.is_preset for config in configs):
        return mistakes(configs)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    told = _mistakes.options(scheduling_strategy=here).remote(configs)
    importlib.import_module("ray.tune")  # which the launch needs next, and which takes about as long as PyTorch there
    return ray.get(told)


_mistakes = ray.remote(num_cpus=0, max_retries=0)(mistakes)
