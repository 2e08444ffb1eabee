"""What the tests of commands and studies share: the embedded data at its smallest, and the `tiekd` command in this process."""

import contextlib
import io
import itertools
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.maps import write_perfect_maps
from support.s3_server import Gate, S3Server

from tiekd.__main__ import main

DATA = {
    "dataset": "synthetic-outdoor",
    "train_frames": 8,
    "test_frames": 4,
    "frame_size": [64, 96],
    "train_crop": [48, 64],
}


RAY_FIXTURES = {"driver", "ray_folder"}  # every fixture that starts Ray depends on one of these


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests as `cluster` by the fixtures that they use; others that start Ray have the mark in their file."""
    for item in items:
        if RAY_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.cluster)


@dataclass(frozen=True)
class Outcome:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str


def call(*words: object) -> Outcome:
    """Run `tiekd WORDS` in this process."""
    out, err, before, code = io.StringIO(), io.StringIO(), sys.argv, 0
    sys.argv = ["tiekd", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def tiekd() -> Callable[..., Outcome]:
    return call


@pytest.fixture(scope="session")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A perfect teacher's maps of the smallest embedded data; not to be written to."""
    folder = tmp_path_factory.mktemp("teacher") / "maps"
    write_perfect_maps(folder, DATA)
    return folder


@pytest.fixture(scope="session")
def tiny(maps: Path) -> dict[str, Any]:
    """The smallest run, of about a second; not to be changed."""
    return {
        "data": DATA,
        "teacher": {"name": "perfect", "maps": str(maps)},
        "student": {"name": "tiny"},
        "bins": {"n_bins": 16},
        "loss": {"name": "si"},
        "optim": {"epochs": 2, "batch_size": 4},
    }


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a network that was never trained."""
    import torch

    from tiekd.config import build
    from tiekd.models.checkpoint import pack_network
    from tiekd.models.registry import build_network

    torch.manual_seed(0)
    config = build({"data": DATA, "student": {"name": "tiny"}, "loss": {"name": "si", "target": "ground_truth"}})
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    path.write_bytes(pack_network(build_network(config), config))
    return path


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything_below(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): None if p.is_dir() else p.read_bytes() for p in folder.rglob("*")}


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes | None]]:
    """Everything below a folder; None for folders."""
    return everything_below


@pytest.fixture
def mistake(in_folder: Path) -> Callable[..., str]:
    """Run a command that must be refused with one line and without a trace; returns the line."""

    def refused(*words: object) -> str:
        before = everything_below(in_folder)
        outcome = call(*words)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
        assert outcome.err.startswith("tiekd: ")
        assert everything_below(in_folder) == before
        return outcome.err.rstrip("\n")

    return refused


def write_yaml(path: Path, document: Any) -> Path:
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def as_yaml() -> Callable[[Path, Any], Path]:
    """Write a document to a file."""
    return write_yaml


@pytest.fixture(scope="session", autouse=True)
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests' digests out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def ray_folder() -> Iterator[Path]:
    """Folder of Ray's sessions; its path is short, because sockets are in it. Ray on this machine outside of it is not used."""
    folder = Path(tempfile.mkdtemp(prefix="tk", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def lean_node() -> dict[str, Any]:
    """Arguments of `ray.cluster_utils.Cluster.add_node` that start fewer processes."""
    return {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}


@pytest.fixture(scope="session")
def shared_cluster(ray_folder: Path, lean_node: dict[str, Any]) -> Iterator[str]:
    """Address of a Ray cluster for launches that do not test how Ray starts and ends.

    It has one CPU, so all trials of a launch share one process. Together that saves half a minute of CPU time per launch: a
    local Ray takes 12 s, and each process that trains 12 s of imports.
    """
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=lean_node | {"num_cpus": 1})
    yield cluster.address
    cluster.shutdown()


# -- object stores ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


BUCKETS = (f"bucket-{number}" for number in itertools.count())


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket that the environment leads to."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    name = next(BUCKETS)
    s3.client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def gate(s3: S3Server) -> Iterator[Gate]:
    """A gate to the S3 server, open at first."""
    gate = Gate(s3.port)
    yield gate
    gate.close()


# -- parity with the released code ---------------------------------------------------------------------------------------------

PARITY = "parity"  # property of a test: subject, error, bound


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> Callable[[str, float, float], None]:
    """Holds an error to its bound, and keeps it for the table at the end of the session: the largest of each subject.

    `parity("losses, float32: TIE-KD", 3e-7, 1e-5)`: a subject's group stands before the colon.
    """

    def hold(subject: str, error: float, bound: float) -> None:
        request.node.user_properties.append((PARITY, (subject, float(error), bound)))
        assert error <= bound, f"{subject}: error {error:.3g} exceeds {bound:.0e}"

    return hold


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = (r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, ()) if r.when == "call")
    held = [value for report in reports for name, value in report.user_properties if name == PARITY]
    largest: dict[str, tuple[float, float, int]] = {}
    for subject, error, bound in held:
        worst, _, count = largest.get(subject, (0.0, bound, 0))
        largest[subject] = (max(worst, error), bound, count + 1)
    if largest:
        terminalreporter.section("largest errors against the released code")
        for subject, (worst, bound, count) in sorted(largest.items()):
            terminalreporter.write_line(f"{subject:<64} {worst:9.2e}  bound {bound:7.0e}  comparisons {count}")
