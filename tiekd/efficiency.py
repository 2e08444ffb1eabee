"""What a run's student costs: milliseconds per image and parameters, measured once and kept beside the run's other files."""

import statistics
import time
from typing import Any

import torch
from torch import nn

from tiekd.config import RunConfig, override
from tiekd.data import open_frames
from tiekd.networks import build_network, count_parameters
from tiekd.runtime import choose_device
from tiekd.store import RunRecord

FILE = "efficiency.json"
WARM_UP = 5  # images before the clock counts: caches fill, cuDNN chooses its kernels
IMAGES = 30


def efficiency_of(record: RunRecord, config: RunConfig) -> dict[str, Any]:
    """The efficiency of a run as it was measured first; measured here, and kept, if it has not been.

    `milliseconds`: median over `IMAGES` forward passes of one image of the first test frame's size, after `WARM_UP` ones,
    with the device, the threads and the precision of the run, without flip averaging; the device is waited for before
    and after each. Other work on the machine slows it: compare runs that were measured alike. `parameters`: of the student.
    """
    known = record.read_json(FILE)
    if known is None:
        known = measure(config)
        record.write_json(FILE, known)
    return known


def measure(config: RunConfig) -> dict[str, Any]:
    """Milliseconds per image and parameters of a config's student, and how they were measured.

    The weights are fresh: what they are does not change the work.
    """
    device = choose_device(config.execution.device)
    torch.set_num_threads(config.execution.cpus_per_worker)
    student = build_network(override(config, {"student.pretrained": False})).to(device).eval()
    size = open_frames(config.data, "test").size(0)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.optim.precision == "bf16"):
        seconds = _seconds_per_image(student, torch.zeros(1, 3, *size, device=device))
    return {
        "milliseconds": 1000 * statistics.median(seconds),
        "parameters": count_parameters(student),
        "size": list(size),
        "images": IMAGES,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": config.execution.cpus_per_worker,
        "precision": config.optim.precision,
    }


@torch.inference_mode()
def _seconds_per_image(student: nn.Module, image: torch.Tensor) -> list[float]:
    seconds = []
    for _ in range(WARM_UP + IMAGES):
        _wait_for(image.device)
        started = time.perf_counter()
        student(image)
        _wait_for(image.device)
        seconds.append(time.perf_counter() - started)
    return seconds[WARM_UP:]


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
