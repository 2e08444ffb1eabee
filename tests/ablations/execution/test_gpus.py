"""What trials see of a GPU that a cluster has only by name: PyTorch finds none, and that is told."""

import os

import pytest
import ray
import torch

from ablations.execution.cluster import cluster_nodes, ray_cluster
from ablations.execution.worker_process import hide_unreserved_gpus
from ablations.planning.resources import fit, worker_resources
from tiekd.config import ExecutionConfig
from tiekd.store.run_store import RunStore

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, which trials would use")


@ray.remote
def seen() -> str:
    hide_unreserved_gpus()
    return os.environ["CUDA_VISIBLE_DEVICES"]


def test_a_worker_sees_the_gpus_that_it_reserves(pretended_gpus):
    with ray_cluster(pretended_gpus, ExecutionConfig()) as execution:
        assert (execution.gpus_per_worker, execution.cpus_per_worker, execution.data_workers) == (1, 2, 1)
        for gpus, visible in (("auto", {"3", "5"}), (1, {"3", "5"}), (0.5, {"3", "5"}), (0, {""})):
            reserved = worker_resources(fit(ExecutionConfig(gpus_per_worker=gpus), cluster_nodes()))
            task = seen.options(num_cpus=reserved["CPU"], num_gpus=reserved.get("GPU", 0))
            assert ray.get(task.remote()) in visible


def test_a_reserved_gpu_that_pytorch_does_not_see_fails_the_run(pretended_gpus, study_file, tiekd, tmp_path):
    words = "ablate", study_file(), "--store", tmp_path / "store", "--address", pretended_gpus
    outcome = tiekd(*words)
    assert outcome.code == 1
    assert "a trial gets 1 GPU, 2 CPUs, 1 data worker; 2 at the same time" in outcome.out
    assert f"execution.gpus_per_worker: 1 is reserved, but PyTorch {torch.__version__} sees no GPU here" in outcome.out
    assert not list(RunStore(tmp_path / "store").runs())


def test_a_trial_without_a_gpu_computes_on_the_cpu_and_idle_gpus_are_told(pretended_gpus, study_file, tiekd, tmp_path):
    words = "ablate", study_file(), "--store", tmp_path / "store", "--address", pretended_gpus
    outcome = tiekd(*words, "--set", "execution.gpus_per_worker=0")
    assert outcome.code == 0, outcome.out
    assert "2 of 2 GPUs stay idle: execution.gpus_per_worker is 0" in outcome.out
    (record,) = RunStore(tmp_path / "store").runs()
    execution = record.config().execution
    assert (execution.gpus_per_worker, execution.cpus_per_worker, execution.data_workers) == (0, 1, 0)
