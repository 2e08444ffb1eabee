"""Errors that the command line reports in one line, and helpers for their messages."""

import difflib
import re
from collections.abc import Iterable

# Control characters but tab and line break, and those that change the direction of text.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class UserError(ValueError):
    """A mistake of the user. The message is one line: what is wrong, what was received and what would be valid."""


class DivergedError(RuntimeError):
    """A loss, a prediction or a weight is not finite. The message says where."""


class SupersededError(RuntimeError):
    """Another process has taken over this run."""


class PreemptedError(RuntimeError):
    """A training has stopped because its machine is taken away; its last step is in the checkpoint."""


class StoreError(RuntimeError):
    """The run store could not be read or written."""


class DamagedFileError(StoreError):
    """One file of the run store cannot be read; the other files may be intact."""


class ClusterError(RuntimeError):
    """Ray shut down during a launch. Finished work is in the store."""


class ExportError(RuntimeError):
    """A network could not be exported, or the exported network gives different results."""


def error_line(error: BaseException) -> str:
    """Format an error as "Type: message" on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def shorten(text: str, length: int = 200) -> str:
    """Cut a long text for a message."""
    return text if len(text) <= length else f"{text[:length]}..."


def printable(text: str) -> str:
    r"""Show control characters as \uXXXX, which JSON reads back, so that a text cannot move the cursor or change a terminal."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def os_error_reason(error: OSError) -> str:
    """Return the reason of a failed file operation on one line, without file name and AWS request id."""
    text = error.strerror or str(error) or type(error).__name__
    if found := re.search(r"AWS Error .*", text, re.DOTALL):
        text = re.sub(r"\(Request ID: .*?\)", "", found[0])
    return " ".join(text.split())


def is_unicode(text: str) -> bool:
    """Whether a text, such as a file's name, has no bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def unknown(what: str, received: object, choices: Iterable[str]) -> str:
    """Format the message for a name that is not among `choices`, with the most similar choices first."""
    choices = sorted(choices)
    near = difflib.get_close_matches(str(received), choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{what}: unknown {received!r}; {hint}valid: {', '.join(choices)}"
