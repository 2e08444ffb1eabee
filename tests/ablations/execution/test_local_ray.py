"""The Ray that a launch starts for itself: where its files are, who can reach it, and what happens when it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.execution.cluster import MAX_FOLDER_BYTES, connect, session_folder
from tiekd.errors import UserError

# Prints the Python processes of Ray and addresses on which its processes listen, then kills the raylet and prints the error.
SCRIPT = """
import time
from pathlib import Path
import psutil
from ablations.execution.cluster import ray_cluster
import ray
from tiekd.config import ExecutionConfig
try:
    with ray_cluster(None, ExecutionConfig()):
        print("cpus", ray.cluster_resources()["CPU"])
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        print("processes", *sorted(Path(word).stem for p in processes for word in p.cmdline()[:4] if word.endswith(".py")))
        sockets = [c.laddr.ip for p in processes for c in p.net_connections() if c.status == "LISTEN"]
        print("listen", *sorted(set(sockets)))
        raylet = next(p for p in processes if p.name() == "raylet")
        raylet.kill()
        time.sleep(60)
except BaseException as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Set Ray's variables; None unsets one."""

    def set_variables(**variables: object) -> None:
        for name, value in ({"RAY_TMPDIR": None, "TMPDIR": None, "RAY_ADDRESS": None} | variables).items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, str(value))

    return set_variables


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
@pytest.mark.parametrize("value", ["/proc", "/proc/none", "/dev/null", "/dev/full"])
def test_folder_that_cannot_be_written_is_refused_with_its_variable(environment, name, value):
    environment(**{name: value})
    with pytest.raises(UserError, match=rf"^{name}={value}: Ray's files cannot be written there \([^\n]+$"), session_folder():
        pass


def test_missing_tmpdir_is_refused_and_missing_ray_tmpdir_is_created(environment, tmp_path):
    environment(TMPDIR=tmp_path / "none")
    with pytest.raises(UserError, match=r"TMPDIR=.*none: .*no such folder"), session_folder():
        pass
    environment(RAY_TMPDIR=tmp_path / "new", TMPDIR="/proc")
    with session_folder() as folder:
        assert Path(os.path.realpath(folder)).parent == tmp_path / "new" / "ray"


def test_long_folder_gets_a_short_name_and_nothing_stays(environment, tmp_path):
    long = tmp_path / ("long" * 20)
    long.mkdir()
    environment(TMPDIR=long)
    with session_folder() as folder:
        assert len(str(folder)) <= MAX_FOLDER_BYTES
        assert Path(os.path.realpath(folder)).parent == long / "ray"
    assert not folder.is_symlink()
    assert list((long / "ray").iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RAY_ADDRESS": "garbage"}, "--address auto, RAY_ADDRESS=garbage: cannot connect to a Ray cluster there"),
        ({"RAY_ADDRESS": "ray://x:1"}, "--address auto, RAY_ADDRESS=ray://x:1: run the sweep on a node"),
        ({}, "--address auto: no cluster runs on this machine that `ray start` has started"),
    ],
)
def test_auto_is_a_cluster_that_somebody_has_named_or_started(environment, tmp_path, variables, message):
    environment(RAY_TMPDIR=tmp_path, **variables)
    with pytest.raises(UserError, match=message):
        connect("auto")


@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_local_ray_is_private_and_its_end_is_one_line(tmp_path):
    """Without a home folder, and with a long folder for temporary files: as in a Slurm job."""
    long = tmp_path / ("long" * 20)
    long.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-c", SCRIPT],
        env=inherited | {"HOME": "/proc/none", "TMPDIR": str(long)},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    cpus, processes, listen, error = done.stdout.splitlines()
    assert cpus == "cpus 1.0"
    assert not {"monitor", "log_monitor", "dashboard"}.intersection(processes.split())
    assert {address.removeprefix("::ffff:") for address in listen.split()[1:]} == {"127.0.0.1"}
    assert error.startswith("ClusterError lost the connection to Ray: its local node does not answer")
    assert list((long / "ray").iterdir()) == []
