"""The number of CPUs that this process may use."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

SLURM_LIMITS = ("SLURM_CPUS_ON_NODE", "SLURM_CPUS_PER_TASK")


def usable_cpus() -> int:
    """Return how many CPUs this process may use: the smallest of the machine, its affinity, its cgroups and its Slurm job.

    At least 1; a quota of 2.5 CPUs counts as 2.
    """
    limits: list[float] = [os.cpu_count() or 1, *_cgroup_limits(), *_slurm_limits()]
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        limits.append(len(os.sched_getaffinity(0)))
    return max(int(min(limits)), 1)


def _slurm_limits() -> Iterator[int]:
    for name in SLURM_LIMITS:
        with contextlib.suppress(ValueError):
            if (limit := int(os.environ.get(name, ""))) > 0:
                yield limit


def _cgroup_limits(process: Path = Path("/proc/self")) -> Iterator[float]:
    """Yield the quotas, in CPUs, of the process's cgroups and of those around them (cgroup v1 and v2)."""
    try:
        memberships = [line.split(":", 2) for line in (process / "cgroup").read_text().splitlines()]
        mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
    except OSError:  # no Linux
        return
    groups = {controllers: group for _, controllers, group in memberships}
    for fields in mounts:
        kind, _, options = fields[fields.index("-") + 1 :][:3]
        if kind == "cgroup2":
            group = groups.get("")
        elif kind == "cgroup" and "cpu" in options.split(","):
            group = next((g for controllers, g in groups.items() if "cpu" in controllers.split(",")), None)
        else:
            continue
        if group is None:
            continue
        root, mount = fields[3], Path(fields[4])
        # In a container, the group may be named as outside of it, and only the mount's top is visible.
        inside = mount / os.path.relpath(group, root) if Path(group).is_relative_to(root) else mount
        for folder in (inside, *inside.parents):
            if folder.is_relative_to(mount):
                yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """Yield the quota of one cgroup in CPUs; nothing if it has none."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if quota.strip() != "max" and float(quota) > 0:
            yield float(quota) / float(period)
