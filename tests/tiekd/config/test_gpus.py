"""The GPUs that a process may use. The driver's answers are made up: most machines that run tests have none."""

import pytest
import torch

from tiekd.config import ExecutionConfig, gpus
from tiekd.config.cpus import usable_cpus
from tiekd.config.gpus import usable_gpus, why_unusable


@pytest.fixture
def driver(monkeypatch):
    """Let the driver report a number of GPUs, and let PyTorch be built for a version of CUDA."""

    def reports(count: int, cuda: int = 13, pytorch: str = "13.0", visible: str | None = None) -> None:
        monkeypatch.setattr(gpus, "_driver", lambda: (count, cuda))
        monkeypatch.setattr(gpus, "_cuda_of_pytorch", lambda: pytorch)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return reports


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 4), ("", 0), ("NoDevFiles", 0), ("2", 1), ("3,1", 2), ("GPU-8932f937", 1), ("0,1,2,3,4,5", 4), ("MIG-a,MIG-b", 2)],
)
def test_the_visible_gpus_count(driver, visible, count):
    driver(1 if visible and "MIG" in visible else 4, visible=visible)
    assert (usable_gpus(), why_unusable()) == (count, "")


@pytest.mark.parametrize(
    ("cuda", "pytorch", "reason"),
    [
        (12, "13.0", "the installed PyTorch is built for CUDA 13.0, which needs a newer driver"),
        (13, "", "the installed PyTorch is built without CUDA"),
        (13, "12.8", ""),
    ],
)
def test_gpus_that_pytorch_cannot_use_do_not_count_and_it_is_said_why(driver, cuda, pytorch, reason):
    driver(2, cuda, pytorch)
    assert (usable_gpus(), why_unusable()) == (0 if reason else 2, reason)
    driver(0, 0, pytorch)
    assert why_unusable() == ""


def test_pytorch_is_read_without_being_imported():
    assert gpus._cuda_of_pytorch() == (torch.version.cuda or "")
    assert gpus._driver()[0] >= torch.cuda.device_count()


def test_a_process_of_its_own_takes_one_gpu_and_its_share_of_the_cpus(driver):
    driver(2)
    execution = ExecutionConfig()
    assert execution.gpus == 1
    assert execution.cpus == min(max(usable_cpus() // 2, 1), 9)
    assert execution.loader_processes == execution.cpus - 1
    driver(2, visible="")
    assert (execution.gpus, execution.cpus, execution.loader_processes) == (0, 1, 0)
