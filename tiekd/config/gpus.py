"""The GPUs that PyTorch can use in this process, without importing PyTorch, which takes seconds."""

import ctypes
import importlib.util
import os
import runpy
from functools import cache
from pathlib import Path

NVML = "libnvidia-ml.so.1"  # comes with the driver


def usable_gpus() -> int:
    """Return how many CUDA devices PyTorch can use: those of the machine that CUDA_VISIBLE_DEVICES names, or all.

    0 if this PyTorch cannot use them; see `why_unusable`. A slice of a MIG GPU counts if CUDA_VISIBLE_DEVICES names it.
    """
    return 0 if why_unusable() else _visible_gpus()


def why_unusable() -> str:
    """Return why PyTorch cannot use the visible GPUs; "" if it can, or if there are none."""
    if not _visible_gpus():
        return ""
    built_for = _cuda_of_pytorch()
    if not built_for:
        return "the installed PyTorch is built without CUDA"
    if int(built_for.partition(".")[0]) > _driver()[1]:
        return f"the installed PyTorch is built for CUDA {built_for}, which needs a newer driver"
    return ""


def _visible_gpus() -> int:
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    found, _ = _driver()
    if names is None or not found:
        return found
    listed = [name for name in names.split(",") if name.strip() and name != "NoDevFiles"]
    return len(listed) if any(name.startswith("MIG-") for name in listed) else min(len(listed), found)


@cache
def _driver() -> tuple[int, int]:
    """Return the number of NVIDIA GPUs, and the major version of CUDA that their driver supports; zeros without a driver."""
    try:
        nvml = ctypes.CDLL(NVML)
    except OSError:
        return 0, 0
    if nvml.nvmlInit_v2():
        return 0, 0
    count, version = ctypes.c_uint(0), ctypes.c_int(0)
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(version))  # 12040 for CUDA 12.4
    nvml.nvmlShutdown()
    return count.value, version.value // 1000


@cache
def _cuda_of_pytorch() -> str:
    """Return the version of CUDA that PyTorch is built for; "" for none."""
    torch = importlib.util.find_spec("torch")
    assert torch
    return runpy.run_path(str(Path(str(torch.origin)).with_name("version.py")))["cuda"] or ""
