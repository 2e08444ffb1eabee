"""Measure the cost of a network: parameters, multiply-accumulates, milliseconds, memory (see docs/efficiency.md)."""

import multiprocessing
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tiekd.config import RunConfig, build, override
from tiekd.deploy.profile_records import RUNTIMES, Cost, Runtime, network_id, network_name
from tiekd.distill.runtime import choose_device
from tiekd.models.registry import build_network, count_parameters
from tiekd.store.documents import EFFICIENCY
from tiekd.store.run_store import RunRecord

EFFICIENCY_FILE = "efficiency.json"
WARM_UP = 5  # images before timing starts: caches fill, cuDNN chooses its kernels
TIMED_IMAGES = 30
# A network that takes seconds per image needs fewer images: at least these, and as many as fit into these times.
LEAST_WARM_UP, WARM_UP_S = 2, 5.0
LEAST_IMAGES, IMAGES_S = 5, 60.0


def run_efficiency(record: RunRecord, config: RunConfig) -> dict[str, Any]:
    """Milliseconds and parameters of a run's student, for a search with these objectives; measured once and stored.

    Measured on the machine of the search, with the run's device and threads; concurrent trials slow it down. For publication,
    use `measure_in_subprocess`.
    """
    stored: Any = record.read_as(EFFICIENCY_FILE, EFFICIENCY.parse)
    if stored is None:
        execution = config.execution
        torch.set_num_threads(execution.threads)
        with _network_and_image(config, choose_device(execution.device)) as (network, image):
            seconds = _seconds_per_image(network, image)
        stored = {
            "milliseconds": 1000 * statistics.median(seconds),
            "parameters": count_parameters(network),
            "size": list(image.shape[-2:]),
            "images": len(seconds),
            "device": device_name(image.device, execution.threads),
            "precision": config.optim.precision,
        }
        record.write_json(EFFICIENCY_FILE, stored)
    return stored


def measure_in_subprocess(config: RunConfig, device: str, threads: int, runtime: Runtime = "pytorch") -> Cost:
    """`measure_network` in a fresh process, in which no other network has used memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure_network, config.document(), device, threads, runtime).result()


def measure_network(document: dict[str, Any], device: str, threads: int, runtime: Runtime = "pytorch") -> Cost:
    """Measure the network of a config's document on one image of the evaluation size, without flip averaging.

    The weights are random, since they do not affect the cost. The process must not have used memory for other networks.
    onnxruntime runs on the CPU, in float32 or 8-bit integers; its memory is not measured, as the export needs more.
    """
    # PyTorch's counter does not see the operations of Triton kernels.
    config = override(build(document, source="measure"), {"execution.kernel": "torch"})
    torch_device = choose_device(device)
    torch.set_num_threads(threads)
    memory = PeakMemory(torch_device)
    with _network_and_image(config, torch_device) as (network, image):
        network(image)
        peak = memory.growth() if runtime == "pytorch" else None
        macs = count_macs(network, image)
        run = network if runtime == "pytorch" else _in_onnxruntime(config, threads, int8=runtime == "onnxruntime-int8")
        seconds = _seconds_per_image(run, image)
    low, median, high = (1000 * quartile for quartile in statistics.quantiles(seconds, n=4, method="inclusive"))
    return Cost(
        network=network_id(config),
        name=network_name(config),
        size=list(image.shape[-2:]),
        precision={"pytorch": config.optim.precision, "onnxruntime": "fp32", "onnxruntime-int8": "int8"}[runtime],
        device=device_name(torch_device, threads, runtime),
        parameters=count_parameters(network),
        macs=macs,
        milliseconds=median,
        milliseconds_low=low,
        milliseconds_high=high,
        images=len(seconds),
        peak_bytes=peak,
        versions={name: version(name) for name in ("torch", "timm", *(() if runtime == "pytorch" else ("onnxruntime",)))},
    )


def _in_onnxruntime(config: RunConfig, threads: int, int8: bool) -> Callable[[Tensor], object]:
    """The network of a config with fresh weights, exported: a function of an image [1, 3, H, W]."""
    from tiekd.deploy.hub import DepthModel, shareable
    from tiekd.deploy.onnx import export_onnx, open_session
    from tiekd.deploy.quantize import quantize

    with TemporaryDirectory() as folder, torch.inference_mode(False), torch.autocast("cpu", enabled=False):
        file, quantized = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        export_onnx(DepthModel(shareable(config).document()).eval(), file)
        if int8:
            noise = torch.rand(1, 3, *config.data.evaluation_size, generator=torch.Generator().manual_seed(0))
            quantize(file, quantized, [noise.numpy()])
        session = open_session(quantized if int8 else file, threads)
    return lambda image: session.run(["depth"], {"image": image.numpy()})


@contextmanager
def _network_and_image(config: RunConfig, device: torch.device) -> Iterator[tuple[nn.Module, Tensor]]:
    """The network of a config in evaluation mode, and an image [1, 3, H, W] of the evaluation size, on the device."""
    network = _DepthOnly(build_network(override(config, {"student.pretrained": False}))).to(device).eval()
    network.requires_grad_(False)  # FlopCounterMode fails on a view of a trainable parameter in inference mode
    image = torch.zeros(1, 3, *config.data.evaluation_size, device=device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=config.optim.precision == "bf16"):
        yield network, image


class _DepthOnly(nn.Module):
    """A network's depth [B, 1, H, W] m, which a DPM head only computes when it is read."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image).depth


def count_macs(network: nn.Module, image: Tensor) -> int:
    """Count the multiply-accumulates of one forward pass, in convolutions, matrix products and attention.

    Half the operations that PyTorch's counter counts. Norms, activations, resizing and softmax are not counted. Fused attention
    is disabled during the pass: the counter adds 0 for an operator without a formula, and which fused operators have one
    depends on the version of PyTorch (none on a CPU before 2.15, no transformer layer in any).
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2


def _seconds_per_image(network: Callable[[Tensor], object], image: Tensor) -> list[float]:
    """Time TIMED_IMAGES forward passes after WARM_UP passes, fewer for a slow network, with the device synchronized."""
    _repeat(network, image, WARM_UP, LEAST_WARM_UP, WARM_UP_S)
    return _repeat(network, image, TIMED_IMAGES, LEAST_IMAGES, IMAGES_S)


def _repeat(network: Callable[[Tensor], object], image: Tensor, most: int, least: int, within: float) -> list[float]:
    seconds: list[float] = []
    while len(seconds) < least or (len(seconds) < most and sum(seconds) < within):
        _synchronize(image.device)
        started = time.perf_counter()
        network(image)
        _synchronize(image.device)
        seconds.append(time.perf_counter() - started)
    return seconds


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """Peak growth of this process's memory since this object was created, in bytes.

    On a GPU, the memory that PyTorch has allocated; on a CPU, the resident set, which only Linux reports.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._before: int | None
        convolution = nn.Conv2d(3, 8, 3).to(device)  # loads libraries, which are not part of the network's cost
        with torch.inference_mode():
            convolution(torch.zeros(1, 3, 64, 64, device=device))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        else:
            self._before = _resident("VmRSS")

    def growth(self) -> int | None:
        """None if the system does not report it."""
        cuda = self._device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self._device) if cuda else _resident("VmHWM")
        return None if self._before is None or peak is None else peak - self._before


def _resident(field: str) -> int | None:
    """A field of this process's status in bytes: VmRSS is the resident set, VmHWM its peak. None without Linux."""
    status = Path("/proc/self/status")
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return int(found[1]) * 1024 if found else None


def device_name(device: torch.device, threads: int, runtime: Runtime = "pytorch") -> str:
    """The GPU's name, or the processor's name and the number of threads; and the runtime, unless it is PyTorch."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {threads} thread{'s' * (threads > 1)}" + RUNTIMES[runtime]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return " ".join(found[1].split()) if found else platform.processor() or platform.machine()
