"""What workers reserve, and which GPUs a launch would not use; no Ray is started."""

import pytest

from ablations.execution.sweep import trial_resources
from ablations.planning.resources import fit, resolve, summary, trial_slots, unused_gpus
from tiekd.config import ExecutionConfig
from tiekd.errors import UserError

CPUS = [{"CPU": 2}]
GPUS = [{"CPU": 64, "GPU": 8}, {"CPU": 32, "GPU": 8}, {"CPU": 4}, {"GPU": 1, "CPU": 0}]  # the head runs no trials


def numbers(execution: ExecutionConfig) -> tuple:
    return execution.gpus_per_worker, execution.cpus_per_worker, execution.data_workers


@pytest.mark.parametrize(
    ("nodes", "settings", "resolved"),
    [
        (CPUS, {}, (0, 1, 0)),
        (CPUS, {"cpus_per_worker": 2}, (0, 2, 0)),
        (GPUS, {}, (1, 4, 3)),
        (GPUS[:1], {}, (1, 8, 7)),
        (GPUS, {"gpus_per_worker": 0.5}, (0.5, 2, 1)),
        (GPUS, {"gpus_per_worker": 0.1}, (0.1, 1, 0)),
        (GPUS, {"gpus_per_worker": 0}, (0, 1, 0)),
        (GPUS, {"device": "cpu"}, (0, 1, 0)),
        (GPUS, {"cpus_per_worker": 2, "data_workers": 4}, (1, 2, 4)),
        ([{"CPU": 96, "GPU": 2}], {}, (1, 9, 8)),
        ([{"CPU": 2, "GPU": 4}], {}, (1, 1, 0)),
    ],
)
def test_auto_is_a_share_of_the_node_that_has_fewest_cpus_for_each_gpu(nodes, settings, resolved):
    assert numbers(resolve(ExecutionConfig(**settings), nodes)) == resolved


def test_every_gpu_can_be_used_with_auto():
    for share, slots in ((1, 16), (0.5, 32), (0.25, 64)):
        execution = fit(ExecutionConfig(gpus_per_worker=share), GPUS)
        assert (trial_slots(execution, GPUS), unused_gpus(execution, GPUS[:3], local=False)) == (slots, "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"device": "cuda", "gpus_per_worker": 0},
            "'cuda' with .* 0: a worker sees only the GPUs that it reserves; valid: ",
        ),
        ({"device": "cpu", "gpus_per_worker": 1}, "'cpu' with .* 1: workers would reserve GPUs and not use them; valid: auto$"),
        ({"kernel": "triton", "gpus_per_worker": 0}, "'triton' with .* 0: the kernel needs a GPU; valid: torch$"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_must_reserve_their_device(settings, message, workers):
    with pytest.raises(UserError, match=message):
        fit(ExecutionConfig(workers=workers, **settings), GPUS)
    assert resolve(ExecutionConfig(workers=workers, **settings | {"gpus_per_worker": "auto"}), GPUS)


@pytest.mark.parametrize("settings", [{"device": "cuda"}, {"gpus_per_worker": 0.5}, {"kernel": "triton"}])
def test_a_study_that_asks_for_gpus_is_refused_where_there_are_none(settings):
    with pytest.raises(UserError, match=r"^execution\.\w+:? .*; valid: "):
        fit(ExecutionConfig(**settings), CPUS)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"gpus_per_worker": 0}, "16 of 16 GPUs stay idle: execution.gpus_per_worker is 0"),
        ({"device": "cpu"}, "16 of 16 GPUs stay idle: execution.device is cpu"),
        ({"cpus_per_worker": 8}, "4 of 16 GPUs stay idle: 12 trials with 1 GPU and 8 CPUs fit"),
        ({"workers": 3}, "1 of 16 GPUs stay idle: 5 trials of 3 workers, each with 1 GPU and 4 CPUs fit"),
        ({}, ""),
    ],
)
def test_gpus_that_a_launch_would_not_use_are_told(settings, line):
    assert unused_gpus(fit(ExecutionConfig(**settings), GPUS[:3]), GPUS[:3], local=False) == line


def test_each_worker_reserves_a_bundle_and_the_waiting_trial_none():
    several = ExecutionConfig(workers=3, cpus_per_worker=2, gpus_per_worker=0.5)
    reserved = trial_resources(several)
    assert (reserved.head_cpus, reserved.bundles) == (0, [{"CPU": 2, "GPU": 0.5}] * 3)
    alone = trial_resources(ExecutionConfig(cpus_per_worker=2, gpus_per_worker=0))
    assert (alone.head_cpus, alone.bundles) == (2, [{"CPU": 2}])
    told = summary(resolve(several, GPUS), 4)
    assert told == "a trial gets 3 workers, each with 0.5 GPUs, 2 CPUs, 1 data worker; 4 at the same time"
