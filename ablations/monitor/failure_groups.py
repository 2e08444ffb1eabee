"""Groups failures by cause, ignoring file names, ids and numbers that differ from run to run."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

MAX_LENGTH = 300  # characters of a cause that are compared and shown

# What differs between runs, replaced in this order. Signals, exit codes and errno stay: they distinguish causes.
_VARIABLE_PARTS = [
    (re.compile(r"\w+://[^\s:,;'\"()]+"), "<uri>"),
    (re.compile(r"(?<![\w<])[\w.~+@%=-]*(?:/[\w.~+@%=-]+)+/?"), "<path>"),
    (re.compile(r"\b[\w-]+\.(?:png|jpe?g|npy|npz|pth?|safetensors|ya?ml|parquet|json|txt|csv)\b"), "<path>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "<address>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "<address>"),
    (re.compile(r"\b(?=[0-9a-f-]*\d)[0-9a-f]{8}[0-9a-f-]*\b"), "<id>"),
    (re.compile(r"(?<!signal )(?<!code )(?<!rrno )(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"), "N"),
]
_ERROR = re.compile(r"\b[\w.]*(?:Error|Exception|Interrupt): ")
_ADVICE = re.compile(r"\s*(?:Some common causes include|Possible reasons include|Refer to the documentation)\b.*")


def short_cause(text: str) -> str:
    """Reduce a failure's message to one line: the error itself, without Ray's call stack and advice."""
    line = " ".join(text.split())
    if "ray::" in line:  # the stack of the remote call comes before the error
        line = line[max((found.start() for found in _ERROR.finditer(line)), default=0) :]
    return _ADVICE.sub("", line)[:MAX_LENGTH]


def cause_pattern(cause: str) -> str:
    """Replace the variable parts of a cause with placeholders; failures with the same cause have the same pattern."""
    line = short_cause(cause)
    for part, placeholder in _VARIABLE_PARTS:
        line = part.sub(placeholder, line)
    return line


@dataclass
class FailureGroup:
    """Runs that failed with the same cause."""

    state: str
    cause: str  # of the first run
    log: str  # path or URI of the first run's error.txt
    runs: list[str] = field(default_factory=list)  # run ids

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
    """Group failures, each (run id, state, cause, log), by state and cause pattern; the largest group first."""
    groups: dict[tuple[str, str], FailureGroup] = {}
    for run_id, state, cause, log in failures:
        groups.setdefault((state, cause_pattern(cause)), FailureGroup(state, short_cause(cause), log)).runs.append(run_id)
    return sorted(groups.values(), key=lambda failure: -len(failure.runs))
