"""Whether runs can begin, asked in a process of the cluster's: the launching one does without PyTorch."""

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ablations.plan import mistakes
from tiekd.config import RunConfig


def mistakes_there(configs: list[RunConfig]) -> list[str]:
    """`mistakes` of a process of the cluster's on this machine."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.get(_mistakes.options(scheduling_strategy=here).remote(configs))


_mistakes = ray.remote(num_cpus=0, max_retries=0)(mistakes)
