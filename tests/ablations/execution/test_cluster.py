"""Addresses of clusters that are refused; no Ray is started. test_slurm_script.py tests a wrong token."""

import importlib
import pkgutil
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

import ablations
from ablations.execution import ray_private
from ablations.execution.cluster import connect
from ablations.execution.ray_private import CHECKED_WITH
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


def test_one_folder_uses_private_names_of_ray():
    files = Path(ablations.__file__).parent.rglob("*.py")
    found = [file for file in files if PRIVATE.search(file.read_text())]
    assert {file.parent.name for file in found} == {"ray_private"}


def test_installed_ray_is_a_checked_one_and_has_the_private_names():
    assert ray.__version__.rpartition(".")[0] in CHECKED_WITH
    for module in pkgutil.iter_modules(ray_private.__path__, f"{ray_private.__name__}."):
        importlib.import_module(module.name)
