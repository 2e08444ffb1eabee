"""The processes of a local Ray. `ray.init` has no option that leaves out those that a launch does not use.

They are the autoscaler, the reader of log files, which would forward what workers print, and the API server, which without a
dashboard only sends usage statistics. Without them Ray takes two thirds of the time to its first task, and of the CPU time.
"""

import contextlib
from collections.abc import Iterator

from ray._private.node import Node

UNUSED = ("start_monitor", "start_log_monitor", "start_api_server")


@contextlib.contextmanager
def few_processes() -> Iterator[None]:
    """Let a Ray that starts in the block start no unused processes."""
    before = {name: getattr(Node, name) for name in UNUSED}
    for name in UNUSED:
        setattr(Node, name, lambda self, **settings: None)
    try:
        yield
    finally:
        for name, start in before.items():
            setattr(Node, name, start)
