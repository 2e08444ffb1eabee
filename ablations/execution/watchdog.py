"""A launch's hold on Ray: it hears when Ray ends beneath it, and lets Ray end in peace."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import ray

from ablations.execution.resources import CONNECT_S
from tiekd.errors import ClusterError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EVERY_S = 1.0  # between looks
PATIENCE_S = 45.0  # a cluster's head may be started again; after 60 s Ray would end this process without a word of ours


@contextlib.contextmanager
def watch_ray(address: str | None) -> Iterator[None]:
    """End the block with a ClusterError when Ray's head, or its node on this machine, no longer answers.

    Tune would wait for ever for a node to run its trials on.
    """
    ended, lost, asked = threading.Event(), [], []
    handlers = _handlers()

    def end(signum: int, frame: object) -> None:
        if not lost:  # the signal comes from outside, and may reach Ray's processes, too: then these are no surprise
            asked.append(signum)
        handlers[signum](signum, frame)

    patience = PATIENCE_S if address else 2 * EVERY_S  # a Ray of this launch's own never comes back; one look may err
    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=_look, args=(_parts(), patience, ended, lost), daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        if lost and not asked:
            raise ClusterError(f"{lost[0]}; the same command goes on from the last checkpoint") from None
        raise
    finally:
        ended.set()
        _set(handlers)


def _parts() -> dict[str, tuple[str, int]]:
    """What a driver cannot do without, by name: where it listens."""
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    node = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    return {"head": (host.strip("[]"), int(port)), "node here": (node["NodeManagerAddress"], node["NodeManagerPort"])}


def _look(parts: dict[str, tuple[str, int]], patience: float, ended: threading.Event, lost: list[str]) -> None:
    """Say in `lost` which part has been silent for longer than `patience`, and send this process a signal to end it."""
    heard = dict.fromkeys(parts, time.monotonic())
    while not ended.wait(EVERY_S):
        for name, where in parts.items():
            try:
                socket.create_connection(where, timeout=CONNECT_S).close()
                heard[name] = time.monotonic()
            except OSError as error:
                if time.monotonic() - heard[name] > patience and not ended.is_set():
                    lost.append(f"Ray has ended: its {name} does not answer ({error})")
                    os.kill(os.getpid(), signal.SIGTERM)
                    return


@contextlib.contextmanager
def defer_interrupts() -> Iterator[None]:
    """While Ray starts: Ctrl-C waits for it, or half of its processes would stay for a minute.

    Ray puts handlers of its own in place, one of which aborts with a stack trace; afterwards this process's are back.
    """
    handlers, heard = _handlers(), []
    signal.signal(signal.SIGINT, lambda signum, frame: heard.append(signum))
    try:
        yield
    except SystemExit:  # what Ray makes of SIGTERM, once it has ended what it had started
        heard.append(signal.SIGTERM)
    finally:
        _set(handlers)
    for signum in heard:
        signal.raise_signal(signum)


@contextlib.contextmanager
def ignore_signals() -> Iterator[None]:
    """Do not hear signals: a second Ctrl-C would leave half of Ray's processes behind."""
    handlers = _handlers()
    _set(dict.fromkeys(SIGNALS, signal.SIG_IGN))
    try:
        yield
    finally:
        _set(handlers)


def _handlers() -> dict[int, Any]:
    return {signum: signal.getsignal(signum) for signum in SIGNALS}


def _set(handlers: dict[int, Any]) -> None:
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
