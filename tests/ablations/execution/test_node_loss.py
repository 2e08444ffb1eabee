"""A cluster of several nodes: its capacity, trials with two workers on two nodes, and trials whose node is lost."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from support.runs import compute

from ablations.execution.cluster import cluster_nodes, ray_cluster
from ablations.execution.watchdog import DRAIN_POLL_S
from ablations.planning.resources import fit, trial_slots
from tiekd.config import ExecutionConfig, build
from tiekd.config.documents import with_values
from tiekd.data.inputs import run_id_of
from tiekd.distill.runtime import CHECKPOINT, PREEMPTED, unpack_state
from tiekd.errors import UserError
from tiekd.store.run_store import RunRecord, RunStore

EPOCHS = 16
RATES = [1e-2, 1e-6]  # a good and a bad one, which ASHA stops


class Nodes:
    """The head, where drivers run, and two nodes with one CPU each, where trials run."""

    def __init__(self, lean_node: dict):
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args=lean_node | {"num_cpus": 0})
        self.address = self._cluster.address
        for _ in range(2):
            self.add()

    def add(self) -> None:
        self._cluster.add_node(num_cpus=1)

    def drain(self, pid: int) -> None:
        """Announce the end of the node that a process runs on, as `ray start` does at SIGTERM."""
        from ray._raylet import GcsClient
        from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

        node = self._by_raylet()[parent_of(pid)]
        end = int(1000 * (time.time() + 600))
        assert GcsClient(address=self.address).drain_node(node.node_id, DRAIN_NODE_REASON_PREEMPTION, "test", end) == (True, "")

    def lose(self, pid: int) -> None:
        """Kill the node that a process runs on."""
        self._cluster.remove_node(self._by_raylet()[parent_of(pid)], allow_graceful=False)

    def raylets_of_workers(self) -> list[int]:
        """Return the raylet's pid of each Ray Train worker."""
        pids = (int(folder.name) for folder in Path("/proc").glob("[0-9]*") if is_called(folder, "ray::RayTrainWorker"))
        return [parent for pid in pids if (parent := parent_of(pid)) in self._by_raylet()]

    def shutdown(self) -> None:
        self._cluster.shutdown()

    def _by_raylet(self) -> dict[int, object]:
        return {node.all_processes["raylet"][0].process.pid: node for node in self._cluster.worker_nodes}


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended meanwhile
        return 0


def is_called(process: Path, name: str) -> bool:
    try:
        return (process / "cmdline").read_text().startswith(name)
    except OSError:
        return False


@pytest.fixture(scope="module")
def nodes(driver, ray_folder, lean_node, s3) -> Iterator[Nodes]:
    """They find the S3 server. Depends on `driver`, which skips if there is no /proc to find processes in."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment().items():
            patch.setenv(name, value)
        nodes = Nodes(lean_node)
        yield nodes
        nodes.shutdown()


# -- capacity ----------------------------------------------------------------------------------------------------------------


def test_cluster_has_capacity_for_a_trial_or_the_message_says_what_it_lacks(nodes):
    fits = ExecutionConfig(workers=2)
    with ray_cluster(nodes.address, fits):
        assert trial_slots(fits, cluster_nodes()) == 1
        with pytest.raises(
            UserError, match=r"execution.workers: a trial needs 3 workers of 1 CPU, the cluster has capacity for 2$"
        ):
            fit(fits.model_copy(update={"workers": 3}), cluster_nodes())
        with pytest.raises(UserError, match=r"execution.cpus_per_worker: a trial needs 2 CPUs, the largest node .* has 1$"):
            fit(fits.model_copy(update={"cpus_per_worker": 2}), cluster_nodes())
        with pytest.raises(UserError, match=r"execution.gpus_per_worker: a trial needs 1 GPU, .* has 0; valid: auto, or 0"):
            fit(fits.model_copy(update={"gpus_per_worker": 1.0}), cluster_nodes())


def test_dry_run_connects_to_the_cluster_and_computes_nothing(nodes, study_file, tiekd, tmp_path):
    command = "ablate", study_file(seeds=[0, 1, 2]), "--store", tmp_path / "store", "--dry-run", "--address", nodes.address
    outcome = tiekd(*command, "--json")
    assert outcome.code == 0, outcome.err
    plan = json.loads(outcome.out)
    assert ([c["state"] for c in plan["cells"]], len(plan["to_compute"])) == (["missing"] * 3, 3)
    assert plan["estimate"]["slots"] == 2
    refused = tiekd(*command, "--set", "execution.cpus_per_worker=2")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.endswith("a trial needs 2 CPUs, the largest node of the cluster has 1\n")
    assert not (tmp_path / "store").exists()


# -- a node is lost ----------------------------------------------------------------------------------------------------------


def checkpointed_seconds(record: RunRecord) -> list[float]:
    """Return the durations of epochs that are in the checkpoint, which differ if an epoch is computed again."""
    return list(record.read_table("epochs.parquet")["seconds"])[: record.status().epoch]


def test_trial_of_a_drained_and_of_a_lost_node_resumes_on_another(nodes, driver, tiny, as_yaml, tmp_path):
    """The drained one, which is about to be preempted, costs no step; the lost one what came after the last epoch."""
    changes = {"data.train_frames": 128, "teacher": None, "loss.target": "ground_truth", "optim.epochs": 3}
    base = with_values(tiny, changes)
    study = as_yaml(tmp_path / "study.yaml", {"name": "demo", "base": base})
    record = RunStore(tmp_path / "store").run(run_id_of(build(base)))
    with driver("ablate", study, "--store", tmp_path / "store", "--address", nodes.address) as command:
        command.until(lambda: record.status().epoch >= 1)
        drained = record.last_attempt()
        os.kill(drained.pid, signal.SIGSTOP)  # so that it learns of the drain within a few steps, however fast it is
        nodes.drain(drained.pid)
        time.sleep(DRAIN_POLL_S)
        os.kill(drained.pid, signal.SIGCONT)
        command.until(lambda: record.last_attempt() != drained)
        state = unpack_state(record.read_file(CHECKPOINT))
        nodes.add()
        command.until(lambda: record.status().epoch >= 2)
        lost = record.last_attempt()
        nodes.lose(lost.pid)
        kept = checkpointed_seconds(record)
        code, out = command.wait(timeout=240)
    nodes.add()
    assert code == 0, out
    assert "1 cells: 1 done" in out.splitlines()[-1]
    assert (len(state["epochs"]), 0 < state["part"]["steps"] < 32) == (1, True)
    first, second = [line for line in out.splitlines() if line.startswith("waiting ")]
    assert first == f"waiting   seed=0  {PREEMPTED}; resumes from its last checkpoint"
    assert second.startswith("waiting   seed=0  its node was lost: ")
    assert second.endswith("; resumes from its last checkpoint")
    assert len({drained.pid, lost.pid, record.last_attempt().pid}) == 3
    assert checkpointed_seconds(record)[: len(kept)] == kept
    undisturbed = compute(build(base), RunStore(tmp_path / "undisturbed"))
    epochs, expected = (r.read_table("epochs.parquet").drop(columns="seconds") for r in (record, undisturbed))
    pd.testing.assert_frame_equal(epochs, expected, check_exact=True)
    assert record.read_file("images.parquet") == undisturbed.read_file("images.parquet")


# -- two workers on two nodes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tiny) -> dict:
    """A run with two workers for which no single node has capacity."""
    execution = {"execution.workers": 2, "execution.cpus_per_worker": 1, "execution.device": "cpu"}
    return with_values(tiny, {"optim.epochs": EPOCHS, "optim.lr": RATES[0], **execution})


@pytest.fixture(scope="module")
def searched(nodes, base, tiekd, as_yaml, tmp_path_factory) -> SimpleNamespace:
    """A search whose points are the learning rates."""
    folder = tmp_path_factory.mktemp("search")
    space = {"optim.lr": {"type": "categorical", "choices": RATES}}
    as_yaml(folder / "rates.yaml", {"parameters": space})
    search = {"space": "rates.yaml", "sampler": "grid", "scheduler": "asha", "grace_epochs": 1, "reduction_factor": 2}
    study = as_yaml(folder / "study.yaml", {"name": "demo", "base": base, "search": search})
    outcome = tiekd("search", study, "--store", folder / "store", "--address", nodes.address)
    name = "demo-search"
    trials = optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/store/studies/{name}/optuna.db").trials
    return SimpleNamespace(store=RunStore(folder / "store"), trials=trials, outcome=outcome)


def test_pruned_trial_with_two_workers_is_pruned_in_optuna_and_releases_the_nodes(searched):
    assert searched.outcome.code == 0, searched.outcome
    best, other = searched.trials
    assert (best.params["optim.lr"], best.state) == (RATES[0], TrialState.COMPLETE)
    assert other.state == TrialState.PRUNED
    status = searched.store.run(other.user_attrs["run_id"]).status()
    assert status.state == "missing"
    assert other.user_attrs["epoch"] <= status.epoch < EPOCHS  # workers continue until the scheduler's decision arrives
    assert status.cause == f"pruned by the scheduler after epoch {status.epoch} of {EPOCHS}"


def test_trial_on_two_nodes_waits_for_a_lost_one_and_ends_as_if_uninterrupted(
    nodes, searched, base, driver, as_yaml, s3, bucket, tmp_path
):
    """In a bucket, where a look at the run's status is a request: the trial's process looks seldom."""
    study = as_yaml(tmp_path / "study.yaml", {"name": "demo", "base": base})
    record = RunStore(f"s3://{bucket}").run(run_id_of(build(base)))
    with driver("ablate", study, "--store", record.store.uri, "--address", nodes.address) as command:
        command.until(lambda: record.status().epoch >= 3)
        assert len(set(nodes.raylets_of_workers())) == 2
        epoch = record.status().epoch
        nodes.lose(record.last_attempt().pid)  # with the trial's own process and one of its workers
        command.until(lambda: "waiting for nodes" in command.out)
        kept = checkpointed_seconds(record)
        before, since = len(s3.requests()), time.monotonic()
        nodes.add()
        code, out = command.wait(timeout=240)
        seconds = time.monotonic() - since
    assert code == 0, out
    waiting, lost, regained = [line for line in out.splitlines() if line.startswith(("waiting ", "the cluster has capacity"))]
    assert waiting.startswith("waiting   seed=0  its node was lost: ")
    assert lost == (
        "waiting for nodes (execution.workers: a trial needs 2 workers of 1 CPU, the cluster has capacity for 1); "
        "runs resume from their last checkpoint when a node joins"
    )
    assert regained == "the cluster has capacity for a trial again"
    looks = sum(request.startswith("GET ") and request.endswith("/status.json") for request in s3.requests()[before:])
    assert looks <= 15 + seconds / 10  # 15 when the run begins again and ends
    assert len(kept) >= epoch
    assert checkpointed_seconds(record)[: len(kept)] == kept
    undisturbed = searched.store.run(record.run_id).read_json("summary.json")["metrics"]
    assert record.read_json("summary.json")["metrics"] == undisturbed
