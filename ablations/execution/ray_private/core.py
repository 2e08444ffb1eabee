"""Private names of Ray's core. The public `ray.init` retries a wrong address or token for a minute, and prints a screenful.

services: finds and checks the address of a cluster, and the nodes on this machine.
ray_worker: holds the switch of the thread that prints a paragraph for each worker process that dies.
ray_constants: holds the switch that lets Ray listen on other interfaces than the loopback one.
GcsClient, AuthenticationTokenLoader, ensure_token_if_auth_enabled: check address and token before Ray connects.
state: knows which nodes are drained; no public function tells.
"""

from ray._private import ray_constants, services
from ray._private import worker as ray_worker
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._private.state import state
from ray._raylet import AuthenticationTokenLoader, GcsClient  # type: ignore[attr-defined]  # in Cython, which has no stubs

__all__ = [
    "AuthenticationTokenLoader",
    "GcsClient",
    "ensure_token_if_auth_enabled",
    "ray_constants",
    "ray_worker",
    "services",
    "state",
]
