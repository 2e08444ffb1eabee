"""A cluster that loses a node: its trial goes on at another."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tiekd.store import RunStore


@pytest.fixture
def cluster(ray_folder) -> Iterator[Cluster]:
    """Three nodes: the head, where the driver is, and two that compute a trial each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_trial_of_a_lost_node_goes_on_at_another(cluster, driver, tiny, as_yaml, undisturbed, tmp_path):
    document = {"name": "demo", "base": tiny, "factors": {"length": undisturbed.levels}}
    study = as_yaml(tmp_path / "study.yaml", document)
    record = RunStore(tmp_path / "store").run(undisturbed.run_ids["long"])
    with driver("ablate", study, "--store", tmp_path / "store", "--address", cluster.address) as command:
        command.until(lambda: record.status().epoch >= 2)
        raylet = parent_of(record.status().pid)
        node = next(n for n in cluster.worker_nodes if n.all_processes["raylet"][0].process.pid == raylet)
        cluster.remove_node(node, allow_graceful=False)
        lost = record.status()
        kept = list(record.read_table("epochs.parquet")["seconds"])
        code, out = command.wait(timeout=240)
    assert code == 0, out
    assert "3 cells: 3 done" in out.splitlines()[-1]
    assert record.status().pid != lost.pid
    assert list(record.read_table("epochs.parquet")["seconds"])[: len(kept)] == kept
    runs = RunStore(tmp_path / "store").runs()
    assert {run.run_id: run.read_json("summary.json")["metrics"] for run in runs} == undisturbed.metrics
