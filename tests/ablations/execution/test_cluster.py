"""Addresses of clusters that are refused; no Ray is started. test_slurm_script.py tests a wrong token."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import ablations
from ablations.execution.cluster import connect
from tiekd.errors import UserError

PRIVATE = re.compile(r"^\s*(?:from|import) ray\.(?:\S+\.)?_", re.MULTILINE)


@pytest.fixture(scope="module")
def silent_port() -> Iterator[int]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]  # in use, but not listening


@pytest.mark.timeout(30)
def test_address_that_does_not_listen_is_refused_at_once(silent_port):
    address = f"127.0.0.1:{silent_port}"
    with pytest.raises(UserError, match=f"--address {address}: cannot connect to a Ray cluster there"):
        connect(address)


def test_invalid_address_is_refused():
    with pytest.raises(UserError, match="--address nowhere: cannot connect to a Ray cluster there"):
        connect("nowhere")


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "local"])
def test_ray_client_and_local_are_refused(address):
    with pytest.raises(UserError, match=f"--address {address}: run the sweep on a node of the cluster") as refused:
        connect(address)
    assert "valid: auto, or HOST:PORT" in str(refused.value)


def test_three_modules_use_private_names_of_ray():
    """Each of them says why, and with which version it was tested."""
    files = Path(ablations.__file__).parent.rglob("*.py")
    found = {file.stem: file.read_text() for file in files if PRIVATE.search(file.read_text())}
    assert set(found) == {"cluster", "train_placement", "watchdog"}
    assert all("ested with Ray 2.60" in text for text in found.values())
