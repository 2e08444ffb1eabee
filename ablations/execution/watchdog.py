"""Signals and Ray: ends the launch when Ray's processes are gone, and protects Ray's start and shutdown from signals.

In a trial: stops its training when its node is taken away.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray

from ablations.execution.ray_private.core import state
from tiekd.errors import ClusterError

CONNECT_TIMEOUT_S = 5.0
POLL_S = 1.0  # between connection attempts
# A cluster's head may be restarted meanwhile. After 60 s without it, Ray would end this process without a message.
RECONNECT_S = 45.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)
DRAIN_POLL_S = 2.0  # a drained node has 30 s by default


@contextlib.contextmanager
def watch_ray(address: str | None) -> Iterator[None]:
    """Raise ClusterError within the block if Ray's head, or its node on this machine, stops answering.

    Tune itself would wait forever for a node. The watching thread interrupts the main thread with SIGTERM.
    """
    ended = threading.Event()
    failures: list[str] = []  # what stopped answering; at most one
    received: list[int] = []  # signals from outside, which may have reached Ray's processes too: their end is no failure
    handlers = _handlers()

    def on_sigterm(signum: int, frame: object) -> None:
        if failures:
            raise KeyboardInterrupt
        received.append(signum)
        if callable(handlers[signum]):
            handlers[signum](signum, frame)
        else:  # of a program that calls `run_study`
            signal.signal(signum, handlers[signum])
            signal.raise_signal(signum)

    # A local Ray and a node never come back, but one connection attempt may fail.
    patience = {"head": RECONNECT_S if address else 2 * POLL_S, "local node": 2 * POLL_S}
    signal.signal(signal.SIGTERM, on_sigterm)
    threading.Thread(target=_poll, args=(_endpoints(), patience, ended, failures), daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        if failures and not received:
            raise ClusterError(f"{failures[0]}; rerun the same command to resume from the last checkpoint") from None
        raise
    finally:
        ended.set()
        _set_handlers(handlers)


def _endpoints() -> dict[str, tuple[str, int]]:
    """Return host and port of each Ray process that a driver depends on, by name."""
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    node = next((node for node in ray.nodes() if node["NodeID"] == context.get_node_id()), None)
    if node is None:
        raise ClusterError("this machine's node has left the Ray cluster; rerun the same command to resume")
    return {"head": (host.strip("[]"), int(port)), "local node": (node["NodeManagerAddress"], node["NodeManagerPort"])}


def _poll(
    endpoints: dict[str, tuple[str, int]], patience: dict[str, float], ended: threading.Event, failures: list[str]
) -> None:
    """Connect to each endpoint every POLL_S. After its `patience` (s) without success, append to `failures`, send SIGTERM."""
    last_answer = dict.fromkeys(endpoints, time.monotonic())
    while not ended.wait(POLL_S):
        for name, endpoint in endpoints.items():
            try:
                socket.create_connection(endpoint, timeout=CONNECT_TIMEOUT_S).close()
                last_answer[name] = time.monotonic()
            except OSError as error:
                if time.monotonic() - last_answer[name] > patience[name] and not ended.is_set():
                    failures.append(f"lost the connection to Ray: its {name} does not answer ({error})")
                    os.kill(os.getpid(), signal.SIGTERM)
                    return


@contextlib.contextmanager
def stop_when_drained(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` in a thread when this process's node is drained, which Ray does before it stops or loses a node.

    Ray tells the processes on the node nothing; they have to ask. (Ray Train's watcher asks in the same way, for its workers.)
    """
    ended = threading.Event()

    def watch() -> None:
        here = ray.get_runtime_context().get_node_id()
        while not ended.wait(DRAIN_POLL_S):
            if here in state.get_draining_nodes():
                stop()
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextlib.contextmanager
def defer_interrupts() -> Iterator[None]:
    """Postpone Ctrl-C and SIGTERM to the end of the block, in which Ray starts.

    An interrupted start would leave half of Ray's processes running for a minute. Ray also installs its own signal handlers,
    one of which aborts with a stack trace; this process's handlers are restored afterwards.
    """
    handlers = _handlers()
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda signum, frame: received.append(signum))
    try:
        yield
    except SystemExit:  # raised by Ray on SIGTERM, after stopping what it had started
        received.append(signal.SIGTERM)
    finally:
        _set_handlers(handlers)
    for signum in received:
        signal.raise_signal(signum)


@contextlib.contextmanager
def ignore_signals() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM while Ray shuts down: a second Ctrl-C would leave half of its processes running."""
    handlers = _handlers()
    _set_handlers(dict.fromkeys(SIGNALS, signal.SIG_IGN))
    try:
        yield
    finally:
        _set_handlers(handlers)


def _handlers() -> dict[int, Any]:
    return {signum: signal.getsignal(signum) for signum in SIGNALS}


def _set_handlers(handlers: dict[int, Any]) -> None:
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
