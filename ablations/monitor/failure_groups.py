"""Failures that have the same cause, although file names, ids and numbers differ from cell to cell."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

LONGEST = 300  # characters of a cause that are compared and shown

# What differs between cells, in the order in which it is looked for. What tells causes apart stays: signals and exit codes.
_DIFFERING = [
    (re.compile(r"\w+://[^\s:,;'\"()]+"), "<uri>"),
    (re.compile(r"(?<![\w<])[\w.~+@%=-]*(?:/[\w.~+@%=-]+)+/?"), "<path>"),
    (re.compile(r"\b[\w-]+\.(?:png|jpe?g|npy|npz|pth?|safetensors|ya?ml|parquet|json|txt|csv)\b"), "<path>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "<address>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "<address>"),
    (re.compile(r"\b(?=[0-9a-f-]*\d)[0-9a-f]{8}[0-9a-f-]*\b"), "<id>"),
    (re.compile(r"(?<!signal )(?<!code )(?<!rrno )(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"), "N"),
]
_ERROR = re.compile(r"\b[\w.]*(?:Error|Exception|Interrupt): ")
_HINTS = re.compile(r"\s*(?:Some common causes include|Possible reasons include|Refer to the documentation)\b.*")


def short_cause(text: str) -> str:
    """A failure's message on one line: of Ray's paragraphs, the error they tell of, without call stack and advice."""
    line = " ".join(text.split())
    if "ray::" in line:  # the remote call's stack, with the error itself behind it
        line = line[max((found.start() for found in _ERROR.finditer(line)), default=0) :]
    return _HINTS.sub("", line)[:LONGEST]


def cause_pattern(cause: str) -> str:
    """A cause without what differs between cells; failures of one cause have one pattern."""
    line = short_cause(cause)
    for differing, name in _DIFFERING:
        line = differing.sub(name, line)
    return line


@dataclass
class FailureGroup:
    """Runs that failed of the same cause."""

    state: str
    cause: str  # of the first
    log: str  # where more is told of the first
    runs: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "cause": self.cause,
            "count": len(self.runs),
            "example": self.runs[0],
            "log": self.log,
            "runs": self.runs,
        }


def group_failures(failures: Iterable[tuple[str, str, str, str]]) -> list[FailureGroup]:
    """Failures, each a run id, its state, cause and log, by the pattern of their causes; the most frequent first."""
    groups: dict[tuple[str, str], FailureGroup] = {}
    for run_id, state, cause, log in failures:
        groups.setdefault((state, cause_pattern(cause)), FailureGroup(state, short_cause(cause), log)).runs.append(run_id)
    return sorted(groups.values(), key=lambda failure: -len(failure.runs))
