"""Provenance of a run: code version, library versions and hardware."""

import hashlib
import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("tiekd", "torch", "torchvision", "timm", "ray", "optuna", "numpy", "pandas", "pyarrow")


def provenance(device: str) -> dict[str, Any]:
    """Describe the code (commit, uncommitted changes), the library versions, and the machine with its `device` by name."""
    return {
        **code_state(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
        "hardware": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "device": device,
        },
        "host": socket.gethostname(),
    }


@cache  # a process runs the code that it has imported, even if the files change
def code_state() -> dict[str, str]:
    """Return the commit and a hash of the uncommitted changes ("" if there are none); both "" outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("diff", "HEAD") if commit else ""
    return {"git_commit": commit, "dirty": hashlib.sha256(changes.encode()).hexdigest()[:12] if changes else ""}


def _git(*arguments: str) -> str:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
