"""Addresses at which no cluster can be joined; starts none. A wrong token is in test_symmetric_run.py."""

import socket
from collections.abc import Iterator

import pytest

from ablations.execution.cluster import connect
from tiekd.errors import UserError


@pytest.fixture(scope="module")
def silent_port() -> Iterator[int]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]  # taken, but nobody listens


@pytest.mark.timeout(30)
def test_an_address_where_nothing_listens_is_refused_at_once(silent_port):
    address = f"127.0.0.1:{silent_port}"
    with pytest.raises(UserError, match=f"--address {address}: cannot connect to a Ray cluster there"):
        connect(address)


def test_an_address_that_is_none_is_refused():
    with pytest.raises(UserError, match="--address nowhere: cannot connect to a Ray cluster there"):
        connect("nowhere")


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "local"])
def test_only_a_node_of_the_cluster_can_launch(address):
    with pytest.raises(UserError, match=f"--address {address}: run the sweep on a node of the cluster") as refused:
        connect(address)
    assert "valid: auto, or HOST:PORT" in str(refused.value)
