"""What a network costs: parameters, multiply-accumulate operations, milliseconds, memory (docs/efficiency.md: how)."""

import multiprocessing
import platform
import re
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tiekd.config import RunConfig, build, override
from tiekd.deploy.profile_records import Cost, network_id, network_name
from tiekd.distill.runtime import choose_device
from tiekd.models.registry import build_network, count_parameters
from tiekd.store.run_store import RunRecord

EFFICIENCY_FILE = "efficiency.json"
WARM_UP = 5  # images before the clock counts: caches fill, cuDNN chooses its kernels
TIMED_IMAGES = 30
# A network of seconds per image is warm sooner, and its median needs fewer images.
LEAST_WARM_UP, WARM_UP_S = 2, 5.0
LEAST_IMAGES, IMAGES_S = 5, 60.0


def run_efficiency(record: RunRecord, config: RunConfig) -> dict[str, Any]:
    """Milliseconds and parameters of a run's student, for a search that has them as objectives; measured once and kept.

    Measured where and while the search trains, with the run's own device and threads: other trials slow it. Numbers for a
    paper are those of `measure_in_subprocess`.
    """
    known = record.read_json(EFFICIENCY_FILE)
    if known is None:
        execution = config.execution
        torch.set_num_threads(execution.cpus_per_worker)
        with _ready(config, choose_device(execution.device)) as (network, image):
            seconds = _seconds_per_image(network, image)
        known = {
            "milliseconds": 1000 * statistics.median(seconds),
            "parameters": count_parameters(network),
            "size": list(image.shape[-2:]),
            "images": len(seconds),
            "device": device_name(image.device, execution.cpus_per_worker),
            "precision": config.optim.precision,
        }
        record.write_json(EFFICIENCY_FILE, known)
    return known


def measure_in_subprocess(config: RunConfig, device: str, threads: int) -> Cost:
    """`measure_network` in a process of its own, in which no other network has taken memory."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as process:
        return process.submit(measure_network, config.document(), device, threads).result()


def measure_network(document: dict[str, Any], device: str, threads: int) -> Cost:
    """The cost of the network of a config's document, for one image of the evaluation size, without flip averaging.

    The weights are fresh: what they are does not change the work. Of memory, nothing else may have been used in this process.
    """
    # Triton's kernels are no operators of PyTorch, so their products could not be counted.
    config = override(build(document, source="measure"), {"execution.kernel": "torch"})
    place = choose_device(device)
    torch.set_num_threads(threads)
    memory = PeakMemory(place)
    with _ready(config, place) as (network, image):
        network(image)
        peak = memory.growth()
        macs = count_macs(network, image)
        seconds = _seconds_per_image(network, image)
    low, median, high = (1000 * quartile for quartile in statistics.quantiles(seconds, n=4, method="inclusive"))
    return Cost(
        network=network_id(config),
        name=network_name(config),
        size=list(image.shape[-2:]),
        precision=config.optim.precision,
        device=device_name(place, threads),
        parameters=count_parameters(network),
        macs=macs,
        milliseconds=median,
        milliseconds_low=low,
        milliseconds_high=high,
        images=len(seconds),
        peak_bytes=peak,
        versions={name: version(name) for name in ("torch", "timm")},
    )


@contextmanager
def _ready(config: RunConfig, device: torch.device) -> Iterator[tuple[nn.Module, Tensor]]:
    """The network of a config, ready to predict, and an image [1, 3, H, W] of the evaluation size, both on the device."""
    network = _Depth(build_network(override(config, {"student.pretrained": False}))).to(device).eval()
    network.requires_grad_(False)  # FlopCounterMode fails on a view of a trainable parameter in inference mode
    image = torch.zeros(1, 3, *config.data.evaluation_size, device=device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=config.optim.precision == "bf16"):
        yield network, image


class _Depth(nn.Module):
    """A network's depth [B, 1, H, W] m: some heads leave their work until it is asked for."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image).depth


def count_macs(network: nn.Module, image: Tensor) -> int:
    """Multiply-accumulate operations of one forward pass: those of convolutions, matrix products and attention.

    Half the operations that PyTorch's own counter counts. Norms, activations, resizing and softmax are not counted.
    Fused attention is taken apart for the pass: the counter adds zero for an operator that it has no formula for, and which
    fused operators it knows depends on PyTorch's version (none on a CPU before 2.15, no transformer layer in any).
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2


def _seconds_per_image(network: nn.Module, image: Tensor) -> list[float]:
    """Of TIMED_IMAGES forward passes after WARM_UP ones; of fewer for a network that takes long. The device is waited for."""
    _repeat(network, image, WARM_UP, LEAST_WARM_UP, WARM_UP_S)
    return _repeat(network, image, TIMED_IMAGES, LEAST_IMAGES, IMAGES_S)


def _repeat(network: nn.Module, image: Tensor, most: int, least: int, within: float) -> list[float]:
    seconds: list[float] = []
    while len(seconds) < least or (len(seconds) < most and sum(seconds) < within):
        _wait_for(image.device)
        started = time.perf_counter()
        network(image)
        _wait_for(image.device)
        seconds.append(time.perf_counter() - started)
    return seconds


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """How far this process's memory has grown at its peak since now, in bytes.

    On a GPU what PyTorch has allocated there; on a CPU the resident set, as Linux tells it.
    """

    def __init__(self, device: torch.device):
        self._device = device
        first = nn.Conv2d(3, 8, 3).to(device)  # loads libraries, which are no cost of the network's
        with torch.inference_mode():
            first(torch.zeros(1, 3, 64, 64, device=device))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        else:
            self._before = _resident("VmRSS")

    def growth(self) -> int | None:
        """None where the system does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        return None if self._before is None else _resident("VmHWM") - self._before


def _resident(field: str) -> int | None:
    status = Path("/proc/self/status")
    return int(re.search(rf"{field}:\s+(\d+) kB", status.read_text())[1]) * 1024 if status.is_file() else None


def device_name(device: torch.device, threads: int) -> str:
    """The GPU's name, or the processor's with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {threads} thread{'s' * (threads > 1)}"


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", about.read_text(), re.MULTILINE) if about.is_file() else None
    return " ".join(found[1].split()) if found else platform.processor() or platform.machine()
