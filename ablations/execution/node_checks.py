"""Checks before a sweep that every node would compute the same: same store, same tiekd version, same data.

Without them, a sweep whose nodes write to separate folders would look fine until it ends.
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

from ablations.planning.plan import readiness_errors
from ablations.planning.resources import worker_resources
from tiekd.config import ExecutionConfig, RunConfig, build
from tiekd.data import check_inputs
from tiekd.data.inputs import METHOD_VERSION, run_id_of
from tiekd.errors import StoreError, UserError, error_line
from tiekd.store.run_store import RunStore

REPLY_TIMEOUT_S = 600.0  # a node that has no digests of its data reads them first (tiekd/data/cache/file_digests.py)


@dataclass(frozen=True)
class Expected:
    """What the launching process sees; nodes compare it with what they see."""

    tiekd: str  # version
    store: str  # URI
    probe: str  # name of a file in the store
    runs: dict[str, dict[str, Any]]  # config documents by run id, one for each distinct set of inputs
    files: tuple[str, ...] = ()  # other files and folders that are read


def check_nodes(store: RunStore, configs: Iterable[RunConfig], execution: ExecutionConfig, files: Iterable[Path] = ()) -> None:
    """Raise a UserError that lists the nodes on which these runs would fail or have another run id, or that lack files.

    Does nothing if the launching machine is the only node with capacity for a worker. Nodes that join later are not checked: a
    run that lacks its inputs there fails with its cause.
    """
    samples = list({_inputs(config): config for config in configs}.values())
    nodes = _other_nodes(execution)
    if not nodes:
        return
    with _probe_file(store.uri) as probe:
        runs = {run_id_of(config): config.document() for config in samples}
        read = tuple(str(file.absolute()) for file in files)
        problems = _ask(nodes, Expected(_version(), store.uri, probe, runs, read))
    if problems:
        lines = "; ".join(f"{', '.join(sorted(names))}: {problem}" for problem, names in problems.items())
        raise UserError(f"nodes of the cluster differ from this one: {lines}")


def _inputs(config: RunConfig) -> str:
    """Return a key that is equal for configs that read the same inputs."""
    return str((config.data, config.teacher if config.reads_teacher else None))


def _other_nodes(execution: ExecutionConfig) -> list[dict[str, Any]]:
    """Return all nodes except this one that have capacity for a worker."""
    here, wanted = ray.get_runtime_context().get_node_id(), worker_resources(execution)
    alive = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    return [node for node in alive if all(node["Resources"].get(name, 0) >= amount for name, amount in wanted.items())]


@contextlib.contextmanager
def _probe_file(uri: str) -> Iterator[str]:
    """Create a temporary file in the store and yield its name; afterwards remove it and every folder created for it.

    Opens the store anew: the launch's own `RunStore` would take a store that is empty again for one that has vanished.
    """
    store, name = RunStore(uri), f".probe-{uuid.uuid4().hex}"
    root = Path(store.root)
    created = [folder for folder in (root, *root.parents) if not folder.exists()] if store.local else []
    store.write_bytes(name, b"")
    try:
        yield name
    finally:
        store.delete(name)
        for folder in created:
            with contextlib.suppress(OSError):  # another process has written to it meanwhile
                folder.rmdir()


def _ask(nodes: list[dict[str, Any]], expected: Expected) -> dict[str, list[str]]:
    """Run the comparison on every node. Returns addresses of nodes by problem."""
    strategies = ((NodeAffinitySchedulingStrategy(node["NodeID"], soft=False), node) for node in nodes)
    tasks = {_first_difference.options(scheduling_strategy=place).remote(expected): node for place, node in strategies}
    finished, _ = ray.wait(list(tasks), num_returns=len(tasks), timeout=REPLY_TIMEOUT_S)
    problems: dict[str, list[str]] = {}
    for task, node in tasks.items():
        problem = _result(task) if task in finished else f"no reply within {REPLY_TIMEOUT_S:.0f} s"
        if problem:
            problems.setdefault(problem, []).append(node["NodeManagerAddress"])
    return problems


def _result(task: "ray.ObjectRef[str]") -> str:
    try:
        return ray.get(task)
    except RayError as error:  # tiekd or one of its dependencies is not installed there
        lines = [line for line in str(error).splitlines() if line.strip()]
        return lines[-1].strip() if lines else type(error).__name__


@ray.remote(num_cpus=0, max_retries=0)
def _first_difference(expected: Expected) -> str:
    return next(differences(expected), "")


def differences(expected: Expected) -> Iterator[str]:
    """Yield one line for each difference between this node and the launching one."""
    if (version := _version()) != expected.tiekd:
        yield f"tiekd {version}, expected {expected.tiekd}"
    try:
        store = RunStore(expected.store)
        if store.read_bytes(expected.probe) is None:
            yield f"{expected.store} is another store there; valid: a folder that all nodes share, or s3://..."
            return
        store.check_writable()
    except (UserError, StoreError) as error:
        yield str(error)
        return
    for file in expected.files:
        if not Path(file).exists():
            yield f"{file}: no such file or folder"
    for run_id, document in expected.runs.items():
        config = build(document)
        try:
            check_inputs(config)
            if run_id_of(config) != run_id:
                yield f"data at {config.data.root} or teacher maps differ: other digests than on the launching node"
        except UserError as error:
            yield error_line(error)


def _version() -> str:
    return f"{metadata.version('tiekd')} (method {METHOD_VERSION})"


def readiness_errors_on_cluster(configs: list[RunConfig]) -> list[str]:
    """Same as `planning.plan.readiness_errors`, in a Ray worker on this machine if networks must be built.

    The launching process does not import PyTorch; the worker imports it while this process imports Ray Tune.
    """
    if all(config.student.is_preset for config in configs):
        return readiness_errors(configs)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    task = _readiness_errors.options(scheduling_strategy=here).remote(configs)
    importlib.import_module("ray.tune")
    return ray.get(task)


_readiness_errors = ray.remote(num_cpus=0, max_retries=0)(readiness_errors)
