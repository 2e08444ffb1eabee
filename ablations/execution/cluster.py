"""Start a local Ray, or connect to a running cluster. Does not import Ray Tune, which takes seconds.

Uses private Ray names (tested with Ray 2.60) because the public `ray.init` cannot refuse an unreachable address, a wrong token
or a foreign machine within seconds: it retries for up to a minute and prints a screenful.
"""

import contextlib
import logging
import socket
from collections.abc import Iterator

import ray
from ray._private import services
from ray._private import worker as ray_worker
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # defined in Cython, which has no stubs
from ray.exceptions import AuthenticationError, RayError

from ablations.execution.resources import check_capacity, check_devices
from ablations.execution.watchdog import CONNECT_TIMEOUT_S, defer_interrupts, ignore_signals, watch_ray
from tiekd.config import ExecutionConfig
from tiekd.errors import ClusterError, UserError, error_line

TOKEN_SOURCES = "the token is read from RAY_AUTH_TOKEN, the file at RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"


@contextlib.contextmanager
def ray_cluster(address: str | None, execution: ExecutionConfig) -> Iterator[None]:
    """Connect to the cluster at `address`, or start a local Ray that is stopped at the end of the block.

    Raises UserError if the cluster cannot be reached or has no capacity for a trial, ClusterError if Ray does not start.
    """
    check_devices(execution)
    # `log_to_driver=False` does not silence the thread that prints a paragraph for each worker process that dies.
    ray_worker._worker_logs_enabled = False
    try:
        with defer_interrupts():
            if address:
                connect(address)
            else:
                _start_local()
        check_capacity(execution)
        with watch_ray(address):
            yield
    finally:
        with ignore_signals():
            ray.shutdown()


def _start_local() -> None:
    try:
        # Without "local", Ray would connect to any cluster that it finds on this machine.
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # Ray raises a bare Exception if its processes need more than 30 s to start
        raise ClusterError(f"Ray did not start on this machine ({error_line(error)})") from error


def connect(address: str) -> None:
    """Connect this process to the cluster at `address`, 'auto' or HOST:PORT. Raises UserError if that fails.

    Checks each likely obstacle first, because `ray.init` would retry for up to a minute.
    """
    if "://" in address or address == "local":
        raise UserError(
            f"--address {address}: run the sweep on a node of the cluster (Ray Client is not supported); "
            "valid: auto, or HOST:PORT of the head node"
        )
    try:
        found = services.canonicalize_bootstrap_address_or_die(address)
        _check_listening(found)
        _check_token(found)
        _check_local_node()
        ray.init(address=found, log_to_driver=False, logging_level=logging.WARNING)
    except AuthenticationError:
        raise UserError(f"--address {address}: the Ray cluster rejects this process's token; {TOKEN_SOURCES}") from None
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise UserError(f"--address {address}: cannot connect to a Ray cluster there ({error_line(error)})") from None


def _check_listening(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()


def _check_token(address: str) -> None:
    """Raise AuthenticationError if the cluster requires a token that this process does not have."""
    ensure_token_if_auth_enabled(create_token_if_missing=False)
    GcsClient(address=address).check_alive([], timeout=CONNECT_TIMEOUT_S)


def _check_local_node() -> None:
    if not services.find_node_ids():
        raise ConnectionError("this machine is not a node of the cluster")
