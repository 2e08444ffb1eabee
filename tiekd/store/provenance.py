"""Where a number came from: code, versions, hardware."""

import hashlib
import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LIBRARIES = ("tiekd", "torch", "torchvision", "timm", "ray", "optuna", "numpy", "pandas", "pyarrow")


def provenance(device: "torch.device") -> dict[str, Any]:
    """Commit and uncommitted changes of the code, library versions, and the machine."""
    import torch  # here: a report names its commit without it

    return {
        **code_state(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
        "hardware": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        },
        "host": socket.gethostname(),
    }


@cache  # a process goes on with the code that it has imported, whatever happens to the files
def code_state() -> dict[str, str]:
    """The commit, and a hash of the uncommitted difference ("" when clean); both "" outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("diff", "HEAD") if commit else ""
    return {"git_commit": commit, "dirty": hashlib.sha256(changes.encode()).hexdigest()[:12] if changes else ""}


def _git(*words: str) -> str:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
