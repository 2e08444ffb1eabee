"""Start a local Ray, or connect to a running cluster. Does not import Ray Tune, which takes seconds.

Checks address, token and machine before the public `ray.init`, which would retry for up to a minute and print a screenful.
"""

import contextlib
import errno
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import ray
from ray.exceptions import AuthenticationError, RayError

from ablations.execution import GIVEN_VARIABLES
from ablations.execution.ray_private.core import (
    AuthenticationTokenLoader,
    GcsClient,
    ensure_token_if_auth_enabled,
    ray_constants,
    ray_worker,
    services,
)
from ablations.execution.ray_private.local_node import few_processes
from ablations.execution.watchdog import CONNECT_TIMEOUT_S, defer_interrupts, ignore_signals, watch_ray
from ablations.planning.resources import Node, check_capacity, fit, this_machine
from tiekd.config import ExecutionConfig
from tiekd.config.cpus import usable_cpus
from tiekd.config.gpus import usable_gpus
from tiekd.errors import ClusterError, UserError, error_line, os_error_reason
from tiekd.store.temporary import short_link, temporary_folder

SHARED_MEMORY = "/dev/shm"
PROBE_BYTES = 2**20
# A socket's path has at most 107 bytes, of which Ray adds /session_<date>_<time>_<pid>/sockets/plasma_store.
MAX_FOLDER_BYTES = 107 - 64
CAPACITY_POLL_S = 5.0  # between checks of the cluster's capacity
TOKEN = "RAY_AUTH_TOKEN"
TOKEN_SOURCES = "the token is read from RAY_AUTH_TOKEN, the file at RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"


@contextlib.contextmanager
def ray_cluster(address: str | None, execution: ExecutionConfig) -> Iterator[ExecutionConfig]:
    """Connect to the cluster at `address`, or start a local Ray that is stopped at the end of the block.

    Yields the settings with a number for every `auto`.

    Raises UserError if the cluster cannot be reached or has no capacity for a trial, ClusterError if Ray does not start.
    """
    if not address:
        execution = fit(execution, [this_machine()])
    # `log_to_driver=False` does not silence the thread that prints a paragraph for each worker process that dies.
    ray_worker._worker_logs_enabled = False
    with contextlib.ExitStack() as stack:
        folder = None if address else stack.enter_context(session_folder())
        stack.callback(_shut_down)
        with defer_interrupts():
            if folder:
                _start_local(folder)
            else:
                connect(str(address))
        if address:
            execution = fit(execution, cluster_nodes())
        with watch_ray(address):
            yield execution


def _shut_down() -> None:
    with ignore_signals():
        ray.shutdown()


def _start_local(folder: Path) -> None:
    """Start a Ray that only this process and its workers use: on the loopback interface, with a token that is in no file."""
    try:
        if not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
            os.environ[TOKEN] = secrets.token_hex(32)  # Ray would write one to the home folder, readable for all
            AuthenticationTokenLoader.instance().reset_cache()
        with _on_loopback(), few_processes():
            ray.init(
                address="local",  # without it, Ray would connect to any cluster that it finds on this machine
                num_cpus=usable_cpus(),
                num_gpus=usable_gpus(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                _temp_dir=str(folder),
                # Ray's objects are files in shared memory.
                _plasma_directory=None if os.access(SHARED_MEMORY, os.W_OK) else str(folder),
            )
    except AuthenticationError as error:
        raise UserError(f"Ray did not start: {error_line(error)}; {TOKEN_SOURCES}") from None
    except Exception as error:  # Ray raises a bare Exception if its processes need more than 30 s to start
        given = f"; set in the environment: {', '.join(GIVEN_VARIABLES)}" if GIVEN_VARIABLES else ""
        raise ClusterError(f"Ray did not start on this machine ({error_line(error)}){given}") from error


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let Ray listen on the loopback interface only, as it does on Windows and macOS. It replaces a given 127.0.0.1."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def session_folder() -> Iterator[Path]:
    """Create a temporary folder for the files of a local Ray in RAY_TMPDIR, else TMPDIR, else /tmp.

    Its path is short enough for Ray's sockets; if need be, it is a link in /tmp. Raises UserError, which names the variable, if
    the folder cannot be written.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "TMPDIR")
    parent = Path(os.environ.get(name) or "/tmp").absolute()
    with contextlib.ExitStack() as stack:
        try:
            if name == "TMPDIR" and not parent.is_dir():
                raise FileNotFoundError(errno.ENOENT, "no such folder")
            (parent / "ray").mkdir(parents=True, exist_ok=True)  # Ray's own folder, in which it keeps its sessions
            folder = stack.enter_context(temporary_folder(parent / "ray"))
            (folder / "probe").write_bytes(bytes(PROBE_BYTES))
            (folder / "probe").unlink()
            if len(os.fsencode(folder)) > MAX_FOLDER_BYTES:
                folder = stack.enter_context(short_link(folder))
        except OSError as error:
            raise UserError(
                f"{name}={parent}: Ray's files cannot be written there ({os_error_reason(error)}); "
                "valid: a folder on this machine with free space that you may write"
            ) from None
        yield folder


def connect(address: str) -> None:
    """Connect this process to the cluster at `address`, 'auto' or HOST:PORT. Raises UserError if that fails.

    Checks each likely obstacle first, because `ray.init` would retry for up to a minute.
    """
    given, source = address, f"--address {address}"
    if address == "auto" and os.environ.get("RAY_ADDRESS"):
        given = os.environ["RAY_ADDRESS"]
        source = f"--address auto, RAY_ADDRESS={given}"
    if "://" in given or given == "local":
        raise UserError(
            f"{source}: run the sweep on a node of the cluster (Ray Client is not supported); "
            "valid: auto, or HOST:PORT of the head node"
        )
    try:
        # "auto" would connect to any Ray on this machine, even one that another launch has started for itself.
        started = services.find_bootstrap_address(None) if given == "auto" else given
        if not started:
            raise UserError(f"{source}: no cluster runs on this machine that `ray start` has started; valid: HOST:PORT")
        found = services.canonicalize_bootstrap_address_or_die(started)
        _check_listening(found)
        _check_token(found)
        _check_local_node()
        ray.init(address=found, log_to_driver=False, logging_level=logging.WARNING)
    except AuthenticationError:
        raise UserError(f"{source}: the Ray cluster rejects this process's token; {TOKEN_SOURCES}") from None
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise UserError(f"{source}: cannot connect to a Ray cluster there ({error_line(error)})") from None


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


def cluster_nodes() -> list[Node]:
    """Return the resources of each node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class CapacityMonitor:
    """Detects when the remaining nodes cannot run a trial any more: Tune waits for new nodes without a message."""

    def __init__(self, execution: ExecutionConfig):
        self._execution, self._shortage, self._checked = execution, "", -CAPACITY_POLL_S

    def change(self, idle: bool) -> str:
        """Return a message when capacity is lost or regained, else "".

        Queries Ray's head, and therefore only while no trial runs (`idle`) and at most every CAPACITY_POLL_S seconds.
        """
        before = self._shortage
        if not idle:
            self._shortage = ""
        elif time.monotonic() >= self._checked + CAPACITY_POLL_S:
            self._checked, self._shortage = time.monotonic(), _shortage(self._execution)
        if bool(before) == bool(self._shortage):
            return ""
        if self._shortage:
            return f"waiting for nodes ({self._shortage}); runs resume from their last checkpoint when a node joins"
        return "the cluster has capacity for a trial again"


def _shortage(execution: ExecutionConfig) -> str:
    try:
        check_capacity(execution, cluster_nodes())
    except UserError as error:
        return str(error)
    return ""
