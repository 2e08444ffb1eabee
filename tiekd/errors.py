"""Errors that a person can act on."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the user's: one line that says what was wrong, what came and what would be valid."""


class DivergedError(RuntimeError):
    """The training left the finite numbers; the message says at which step, with which parts and learning rate."""


class SupersededError(RuntimeError):
    """Another process has begun the same run since, and goes on with it."""


class StoreError(RuntimeError):
    """The run store could not be read or written."""


class ClusterError(RuntimeError):
    """Ray ended beneath a launch; what it has computed is in the store."""


def one_line(error: BaseException) -> str:
    """An error as its type and message on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


class ExportError(RuntimeError):
    """A network could not be written for use elsewhere, or what was written computes something else."""


def unknown(what: str, received: object, choices: Iterable[str]) -> str:
    """One line for a name that is not among `choices`, with the nearest ones first."""
    choices = sorted(choices)
    near = difflib.get_close_matches(str(received), choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{what}: unknown {received!r}; {hint}valid: {', '.join(choices)}"
