"""Whether every node of a cluster would compute the same: one store, one tiekd, the same data everywhere.

A sweep whose nodes write to folders of their own would look well until its end.
"""

import contextlib
import importlib
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ablations.execution.resources import worker_resources
from ablations.planning.plan import readiness_errors
from tiekd.config import RunConfig, build
from tiekd.data import check_inputs
from tiekd.distill.preflight import METHOD_VERSION, run_id_of
from tiekd.errors import StoreError, UserError, error_line
from tiekd.store.run_store import RunStore

ANSWER_S = 120.0  # a node that imports PyTorch from a cold disk takes half of it


@dataclass(frozen=True)
class Expected:
    """What the launching process sees, for the nodes to compare."""

    tiekd: str
    store: str
    probe: str
    runs: dict[str, dict[str, Any]]  # config documents by run id, one for each set of inputs


def check_nodes(store: RunStore, configs: Iterable[RunConfig]) -> None:
    """Raise a `UserError` that names the nodes on which these runs could not be, or would be others.

    Asks nothing where the launching machine is the only node. Nodes that join later are not asked: there, a run that lacks
    its inputs fails with its cause.
    """
    one_of_each = list({_inputs(config): config for config in configs}.values())
    nodes = _others(one_of_each[0])
    if not nodes:
        return
    with _probe(store.uri) as probe:
        runs = {run_id_of(config): config.document() for config in one_of_each}
        complaints = _ask(nodes, Expected(_version(), store.uri, probe, runs))
    if complaints:
        told = "; ".join(f"{', '.join(sorted(names))}: {complaint}" for complaint, names in complaints.items())
        raise UserError(f"nodes of the cluster differ from this one: {told}")


@contextlib.contextmanager
def _probe(uri: str) -> Iterator[str]:
    """The name of a file in the store, for others to look for; neither it nor a folder made for it is left behind.

    The store is opened anew: the launch's own would take one that is empty again for one that has disappeared.
    """
    store, name = RunStore(uri), f".probe-{uuid.uuid4().hex}"
    root = Path(store.filesystem[1])
    made = [folder for folder in (root, *root.parents) if not folder.exists()] if store.local else []
    store.write_bytes(name, b"")
    try:
        yield name
    finally:
        store.delete(name)
        for folder in made:
            with contextlib.suppress(OSError):  # another process has begun to fill it
                folder.rmdir()


def _inputs(config: RunConfig) -> str:
    return str((config.data, config.teacher if config.reads_teacher else None))


def _others(config: RunConfig) -> list[dict[str, Any]]:
    """The nodes but this one that have room for a worker."""
    here, wanted = ray.get_runtime_context().get_node_id(), worker_resources(config.execution)
    alive = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    return [node for node in alive if all(node["Resources"].get(name, 0) >= amount for name, amount in wanted.items())]


def _ask(nodes: list[dict[str, Any]], expected: Expected) -> dict[str, list[str]]:
    """The nodes with a complaint, by complaint."""
    asked = {
        _compare.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(expected): node
        for node in nodes
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
    complaints: dict[str, list[str]] = {}
    for question, node in asked.items():
        complaint = _answer(question) if question in answered else f"no answer within {ANSWER_S:.0f} s"
        if complaint:
            complaints.setdefault(complaint, []).append(node["NodeManagerAddress"])
    return complaints


def _answer(question: ray.ObjectRef) -> str:
    try:
        return ray.get(question)
    except RayError as error:  # tiekd is not there, or its dependencies are not
        lines = [line for line in str(error).splitlines() if line.strip()]
        return lines[-1].strip() if lines else type(error).__name__


@ray.remote(num_cpus=0, max_retries=0)
def _compare(expected: Expected) -> str:
    """The first difference between this node and what is expected; "" where there is none."""
    return next(differences(expected), "")


def differences(expected: Expected) -> Iterator[str]:
    """What is otherwise here than where the sweep is launched, a line each."""
    if (version := _version()) != expected.tiekd:
        yield f"tiekd {version}, needed {expected.tiekd}"
    try:
        store = RunStore(expected.store)
        if store.read_bytes(expected.probe) is None:
            yield f"another store at {expected.store} than here; needed a folder that all nodes share, or s3://..."
            return
        store.check_writable()
    except (UserError, StoreError) as error:
        yield str(error)
        return
    for run_id, document in expected.runs.items():
        config = build(document)
        try:
            check_inputs(config)
            if run_id_of(config) != run_id:
                yield f"other data at {config.data.root} or maps, whose digests are not those of here"
        except UserError as error:
            yield error_line(error)


def _version() -> str:
    return f"{metadata.version('tiekd')} (method {METHOD_VERSION})"


def mistakes_on_cluster(configs: list[RunConfig]) -> list[str]:
    """`mistakes`; where networks must be tried, of a process of the cluster's on this machine."""
    if all(config.student.is_preset for config in configs):
        return readiness_errors(configs)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    told = _mistakes.options(scheduling_strategy=here).remote(configs)
    importlib.import_module("ray.tune")  # which the launch needs next, and which takes about as long as PyTorch there
    return ray.get(told)


_mistakes = ray.remote(num_cpus=0, max_retries=0)(readiness_errors)
