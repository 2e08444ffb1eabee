"""The Ray that a launch runs on. Knows nothing of Tune, which takes seconds to import."""

import contextlib
import logging
import socket
from collections.abc import Iterator

import ray
from ray._private import services
from ray._private import worker as ray_worker
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError, RayError

from ablations.execution.resources import CONNECT_S, check_capacity, check_devices
from ablations.execution.watchdog import defer_interrupts, ignore_signals, watch_ray
from tiekd.config import ExecutionConfig
from tiekd.errors import UserError, error_line


@contextlib.contextmanager
def ray_cluster(address: str | None, execution: ExecutionConfig) -> Iterator[None]:
    """A running Ray: the cluster at `address`, or one of this machine's own that ends with the block."""
    check_devices(execution)
    # A thread of Ray's prints a paragraph for each process that dies. `log_to_driver` has no say in it.
    ray_worker._worker_logs_enabled = False
    try:
        with defer_interrupts():
            if address:
                connect(address)
            else:
                # "local", or Ray would join any cluster that it finds on the machine.
                ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        check_capacity(execution)
        with watch_ray(address):
            yield
    finally:
        with ignore_signals():
            ray.shutdown()


TOKEN_SOURCES = "its token comes from RAY_AUTH_TOKEN, the file at RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"


def connect(address: str) -> None:
    """Connect this process to the cluster at `address`, 'auto' or HOST:PORT. Raises UserError where that cannot be.

    Ray itself would try for up to a minute, and fill the screen meanwhile; so each hindrance is looked for first.
    """
    if "://" in address or address == "local":
        raise UserError(
            f"--address {address}: a sweep runs on a node of its cluster, not through Ray Client; "
            "valid there: auto, or HOST:PORT of the head node"
        )
    try:
        found = services.canonicalize_bootstrap_address_or_die(address)
        _check_answers(found)
        _check_token(found)
        _check_node()
        ray.init(address=found, log_to_driver=False, logging_level=logging.WARNING)
    except AuthenticationError:
        raise UserError(f"--address {address}: that Ray cluster refuses this process's token; {TOKEN_SOURCES}") from None
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise UserError(f"--address {address}: no Ray cluster answers there ({error_line(error)})") from None


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()


def _check_token(address: str) -> None:
    """Raise AuthenticationError where the cluster wants a token that this process has not."""
    ensure_token_if_auth_enabled(create_token_if_missing=False)
    GcsClient(address=address).check_alive([], timeout=CONNECT_S)


def _check_node() -> None:
    if not services.find_node_ids():
        raise ConnectionError("this machine is none of its nodes")
