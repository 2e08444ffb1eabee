"""Joining a running Ray cluster: whatever keeps a launch out of it is told in one line."""

import logging
import socket

import ray
from ray._private import services
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError, RayError

from tiekd.errors import UserError, one_line

CONNECT_S = 5.0  # until an address counts as silent
TOKEN = "its token comes from RAY_AUTH_TOKEN, the file at RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"


def join(address: str) -> None:
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
        raise UserError(f"--address {address}: that Ray cluster refuses this process's token; {TOKEN}") from None
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise UserError(f"--address {address}: no Ray cluster answers there ({one_line(error)})") from None


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
