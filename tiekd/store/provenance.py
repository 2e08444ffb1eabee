"""Provenance of a run: code version, library versions and hardware."""

import hashlib
import platform
import re
import socket
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tiekd.config.cpus import usable_cpus

LOCK = Path(__file__).resolve().parents[2] / "constraints.txt"
LIBRARIES = ("tiekd", "torch", "torchvision", "timm", "ray", "optuna", "numpy", "pandas", "pyarrow")


def provenance(device: str) -> dict[str, Any]:
    """Describe the code (commit, uncommitted changes), the library versions, the lock, and the machine with its `device`."""
    return {
        **code_state(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
        "lock": lock_state(),
        "hardware": {
            "machine": platform.machine(),
            "cpus": usable_cpus(),
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


@cache
def lock_state(lock: Path = LOCK) -> dict[str, str]:
    """Return the digest of the lock file under its name, then the version of each installed package that differs from it.

    Empty outside a checkout, because a wheel has no lock.
    """
    if not lock.is_file():
        return {}
    text, installed = lock.read_text(), _installed()
    locked = {_normalized(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}
    different = {name: installed[name] for name in locked if installed.get(name, locked[name]) != locked[name]}
    return {lock.name: hashlib.sha256(text.encode()).hexdigest()[:16], **different}


def _installed() -> dict[str, str]:
    """Return the version of each package from the name of its metadata folder. Reading the metadata would take 0.3 s."""
    folders = [folder.stem.partition("-") for path in reversed(sys.path) for folder in Path(path).glob("*.dist-info")]
    return {_normalized(name): version for name, _, version in folders}


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


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
