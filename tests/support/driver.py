"""The `tiekd` command in processes that tests can signal and kill."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# For launches in which nothing depends on two trials at a time: each process that trains spends 12 s of CPU time on imports.
ONE_PROCESS = "--max-concurrent", 1


class Driver:
    """`tiekd WORDS` in a session of its own, so that its processes, including Ray's, can be told from all others."""

    def __init__(self, *words: object, inside: Sequence[str] = ()):
        """Start the command. `inside` is a prefix, such as a command that enters another namespace."""
        # A shell starts background jobs with Ctrl-C ignored, and child processes inherit that.
        command = ["env", "--default-signal=INT", *inside, sys.executable, "-m", "tiekd", *map(str, words)]
        self._output = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(command, start_new_session=True, stdout=self._output, stderr=subprocess.STDOUT)

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._output.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def out(self) -> str:
        """Standard output and error so far."""
        return Path(self._output.name).read_text()

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait until a condition holds; fail if the command ends before."""
        wait_until(lambda: condition() or not self.running, timeout=240)
        assert condition(), self.wait(timeout=10)

    def wait(self, timeout: float) -> tuple[int, str]:
        """Wait for the end of the command. Returns exit code and output."""
        return self._process.wait(timeout), self.out

    def signal(self, signum: int) -> None:
        """Send a signal to the command and its Ray processes, as a terminal does."""
        os.killpg(self._process.pid, signum)

    def processes(self, name: str = "") -> list[int]:
        """Return the session's processes whose command line starts with `name`."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._owns(pid, name)]

    def _owns(self, pid: int, name: str) -> bool:
        try:
            state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
            command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        except OSError:  # it has ended meanwhile
            return False
        return int(session) == self._process.pid and state != "Z" and command.startswith(name)

    def kill(self) -> None:
        """Send SIGKILL to every process of the session."""
        while pids := self.processes():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        self._process.wait()


def wait_until(condition: Callable[[], Any], timeout: float = 90.0) -> None:
    """Wait until a condition holds; fail after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"condition not met within {timeout:.0f} s"
        time.sleep(0.1)
