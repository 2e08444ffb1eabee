"""Trials whose process dies: how often one may, and what is said of its last death."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from ablations.monitor.failure_groups import short_cause
from tiekd.store.run_store import RunRecord

RETRIES = 2
SHOWN = 100  # last lines of a dead process's log that are kept
CRASH = re.compile(r"\*\*\* (SIG\w+) received")

# What Ray says of a death, and what is told of it. The first that is found counts.
DEATH_PATTERNS = [
    (
        re.compile(r"running low on memory\. Memory on the node \(IP: ([^,]+).*?was (\S+) used / (\S+) limit", re.S),
        "Ray's memory monitor killed it: {1} of {2} were in use on {0}",
    ),
    (re.compile(r"its node has died.*?the actor's node was terminated[^:]*: ([^\n]+)", re.S), "its node was lost: {0}"),
    (re.compile(r"RpcError: RPC error: (.+?)(?:;| rpc_code)"), "its node was lost: {0}"),
    (re.compile(r"/gloo/\S+\] ([A-Z][a-z ]+\b)"), "the connection between its workers was lost: {0}"),
    (re.compile(r"exit code (\d+)"), "it ended with exit code {0}"),
    (re.compile(r"connection error code 2"), "killed without a word (SIGKILL: by hand, or by the system when memory ran out)"),
]


class RetryBudget(tune.Callback):
    """Lets the process of a trial die RETRIES times between two epochs; each time it goes on from the last checkpoint.

    Tune would count all deaths of a trial. Lost nodes add up over days, and are no fault of the run.
    """

    def __init__(self) -> None:
        self.trials: list[Trial] = []

    def __reduce__(self) -> tuple:
        """Tune pickles its callbacks with a state that nobody restores."""
        return tune.Callback, ()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.trials = trials

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict, **info: Any) -> None:
        trial.max_failures = trial.num_failures + RETRIES


def last_error(trial: Trial) -> str:
    """What Ray said at the last failure of a trial; "" where it never failed."""
    if not trial.error_file or not Path(trial.error_file).exists():
        return ""
    return Path(trial.error_file).read_text().rpartition("FailureGroup # ")[2].partition("\n")[2]


def death_cause(words: str) -> str:
    """Ray's last words in one line: which signal, which node, how much memory."""
    if crash := CRASH.search(_log(words)):
        return f"it crashed with {crash[1]}"
    for death, told in DEATH_PATTERNS:
        if found := death.search(words):
            return told.format(*found.groups())
    return short_cause(words)


def record_death(record: RunRecord, words: str) -> None:
    """Record a run as failed, with Ray's words and the end of the dead process's own log beside it."""
    status = record.status()
    cause = f"its process died {RETRIES + 1} times in epoch {status.epoch + 1}: {death_cause(words)}"
    record.write_file("error.txt", "\n".join([words, *_log(words).splitlines()[-SHOWN:]]).encode())
    record.write_status(replace(status, state="failed", cause=cause))


def _log(words: str) -> str:
    """What the dead process wrote, where Ray's logs of it lie on this machine."""
    pid = re.search(r"^\s*pid: (\d+)$", words, re.M)
    if not pid or not ray.is_initialized():
        return ""
    context = ray.get_runtime_context()
    logs = Path(context.get_temp_dir(), context.get_session_name(), "logs").glob(f"worker-*-{pid[1]}.err")
    return "".join(log.read_text(errors="replace") for log in logs)
