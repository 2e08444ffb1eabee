"""The CPUs that a process may use."""

import os
from collections.abc import Iterator

import pytest

from tiekd.config import ExecutionConfig
from tiekd.config.cpus import SLURM_LIMITS, _cgroup_limits, usable_cpus

V1, V2 = "cgroup cgroup rw,cpu,cpuacct", "cgroup2 cgroup rw"


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch) -> None:
    for name in SLURM_LIMITS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def one_cpu() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


def test_affinity_limits_cpus_threads_and_loader_processes(one_cpu):
    execution = ExecutionConfig(cpus_per_worker=8, data_workers=8)
    assert (usable_cpus(), execution.threads, execution.loader_processes) == (1, 1, 1)
    assert ExecutionConfig(data_workers=0).loader_processes == 0


@pytest.mark.parametrize("name", SLURM_LIMITS)
@pytest.mark.parametrize(("value", "limited"), [("1", True), ("100000", False), ("0", False), ("", False), ("2(x3)", False)])
def test_slurm_limits_cpus_where_it_allows_fewer(monkeypatch, name, value, limited):
    before = usable_cpus()
    monkeypatch.setenv(name, value)
    assert usable_cpus() == (1 if limited else before)


@pytest.mark.parametrize(
    ("mount", "group", "visible", "files", "expected"),
    [
        (V2, "0::/job/step", "job/step", {"cpu.max": "150000 100000"}, [1.5]),
        (V2, "0::/job/step", "job", {"cpu.max": "200000 100000"}, [2.0]),  # of the group around it
        (V2, "0::/", ".", {"cpu.max": "max 100000"}, []),
        (V1, "4:cpu,cpuacct:/job", "job", {"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}, [3.0]),
        (V1, "4:cpu,cpuacct:/job", "job", {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, []),
        # A container: the group is named as on the host, and its files are at the top of the mount.
        (V1, "4:cpu,cpuacct:/docker/1f", ".", {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}, [0.5]),
        (V1, "5:memory:/job", "job", {"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}, []),
    ],
)
def test_quotas_of_cgroups(tmp_path, mount, group, visible, files, expected):
    folder = tmp_path / "mount" / visible
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    (tmp_path / "cgroup").write_text(f"1:name=systemd:/\n{group}\n")
    (tmp_path / "mountinfo").write_text(f"30 20 0:26 / {tmp_path}/mount rw,nosuid - {mount}\n")
    assert list(_cgroup_limits(tmp_path)) == expected


def test_without_cgroups_there_is_no_quota(tmp_path):
    assert list(_cgroup_limits(tmp_path)) == []
