"""Trials whose process dies: the number of retries, and a one-line cause from Ray's error message."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from ablations.monitor.failure_groups import short_cause
from tiekd.errors import PreemptedError
from tiekd.store.run_store import RunRecord

MAX_RETRIES = 2
LOG_LINES = 100  # last lines of a dead process's log that are kept
SIGNAL = re.compile(r"\*\*\* (SIG\w+) received")

# Patterns of Ray's messages about a dead process, and the cause that is shown; the first match counts.
DEATH_PATTERNS = [
    (re.compile(r"PreemptedError: ([^\n]+)"), "{0}"),
    (
        re.compile(r"running low on memory\. Memory on the node \(IP: ([^,]+).*?was (\S+) used / (\S+) limit", re.S),
        "killed by Ray's memory monitor: {1} of {2} in use on {0}",
    ),
    (re.compile(r"its node has died.*?the actor's node was terminated[^:]*: ([^\n]+)", re.S), "its node was lost: {0}"),
    (re.compile(r"RpcError: RPC error: (.+?)(?:;| rpc_code)"), "its node was lost: {0}"),
    (re.compile(r"/gloo/\S+\] ([A-Z][a-z ]+\b)"), "the connection between its workers was lost: {0}"),
    (re.compile(r"exit code (\d+)"), "ended with exit code {0}"),
    (re.compile(r"connection error code 2"), "killed by SIGKILL (out of memory, or killed manually)"),
]


class RetryBudget(tune.Callback):
    """Allows a trial's process to die MAX_RETRIES times within one epoch; each time the trial resumes from its checkpoint.

    Tune itself counts all failures of a trial, except the loss of a node that was drained. In a run of days, lost nodes add up
    without being the run's fault.
    """

    def __init__(self) -> None:
        self.trials: list[Trial] = []

    def __reduce__(self) -> tuple:
        """Pickle as an empty callback: Tune saves its callbacks, and nothing restores them."""
        return tune.Callback, ()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.trials = trials

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict, **info: Any) -> None:
        trial.max_failures = trial.num_failures + MAX_RETRIES

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if PreemptedError.__name__ in last_error(trial):  # it left a drained node, which is no death
            trial.max_failures += 1


def last_error(trial: Trial) -> str:
    """Return Ray's message about the last failure of a trial; "" if it never failed."""
    if not trial.error_file or not Path(trial.error_file).exists():
        return ""
    return Path(trial.error_file).read_text().rpartition("Failure # ")[2].partition("\n")[2]


def death_cause(message: str) -> str:
    """Summarize Ray's message in one line: which signal, which node, how much memory."""
    if crash := SIGNAL.search(_log(message)):
        return f"crashed with {crash[1]}"
    for death, cause in DEATH_PATTERNS:
        if found := death.search(message):
            return cause.format(*found.groups())
    return short_cause(message)


def record_death(record: RunRecord, message: str) -> None:
    """Record a run as failed; `error.txt` gets Ray's message and the end of the dead process's log."""
    status = record.status()
    cause = f"its process died {MAX_RETRIES + 1} times in epoch {status.epoch + 1}: {death_cause(message)}"
    record.write_file("error.txt", "\n".join([message, *_log(message).splitlines()[-LOG_LINES:]]).encode())
    record.write_status(replace(status, state="failed", cause=cause))


def _log(message: str) -> str:
    """Return what the dead process wrote to stderr, if Ray's log of it is on this machine."""
    pid = re.search(r"^\s*pid: (\d+)$", message, re.M)
    if not pid or not ray.is_initialized():
        return ""
    context = ray.get_runtime_context()
    logs = Path(context.get_temp_dir(), context.get_session_name(), "logs").glob(f"worker-*-{pid[1]}.err")
    return "".join(log.read_text(errors="replace") for log in logs)
