"""Measure time and memory of L_DPM and the expected depth, forward from the head's features and backward, on the CPU.

    python benchmarks/dpm.py [--rounds 3] [--threads 2]

    plain     the published loss with whole maps over all bins, differentiated by PyTorch's autograd
    compiled  torch.compile of it (needs a C++ compiler)
    ours      tiekd/models/dpm_head.py
    bound     only the four matrix products and one softmax in each direction, in chunks

All use 128 channels and return the gradients of features, weight and bias. They take turns in one process after a warm-up;
a ratio is the median over the rounds. Memory is measured for one forward and backward pass in a fresh process after a
warm-up: the increase of the resident set at its peak (Linux), including outputs and gradients.

For a GPU, see `gpu.py`.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tiekd.bins import BinGrid, DepthBins, DPMTarget
from tiekd.config import Kernel
from tiekd.models.dpm_head import chunk_size, depth_and_divergence

CHANNELS, SIGMA, EPSILON = 128, 0.5, 1e-7


class Case(NamedTuple):
    """The size of a batch of crops, and the bins."""

    n_bins: int
    batch: int
    height: int
    width: int
    max_depth: float  # m

    def __str__(self) -> str:
        return f"{self.n_bins} bins to {self.max_depth:g} m, {self.batch} x {self.height}x{self.width}"


CASES = [
    Case(257, 2, 176, 352, 80.0),
    Case(80, 2, 176, 352, 80.0),
    Case(512, 2, 176, 352, 80.0),
    Case(257, 2, 176, 352, 10.0),
    Case(257, 1, 352, 704, 80.0),
]
WITH_MEMORY = [CASES[0], CASES[-1]]


class Work(NamedTuple):
    """The inputs of every implementation."""

    features: Tensor  # [B, C, H, W]
    weight: Tensor  # [K, C, 1, 1]
    bias: Tensor  # [K]
    target: Tensor  # [B, 1, H, W] m
    bins: DepthBins

    @classmethod
    def of(cls, case: Case, device: str = "cpu", dtype: torch.dtype = torch.float32) -> "Work":
        torch.manual_seed(0)
        size = case.height, case.width
        features = torch.randn(case.batch, CHANNELS, *size).to(device, dtype).requires_grad_()
        weight = (0.1 * torch.randn(case.n_bins, CHANNELS, 1, 1)).to(device).requires_grad_()
        bias = torch.zeros(case.n_bins, device=device, requires_grad=True)
        target = (case.max_depth * torch.rand(case.batch, 1, *size)).to(device)
        return cls(features, weight, bias, target, DepthBins(case.n_bins, 1e-3, case.max_depth))


def plain(work: Work) -> tuple[Tensor, Tensor]:
    """Return the expected depth and the divergence."""
    centers, dtype = work.bins.centers.to(work.target).view(1, -1, 1, 1), work.features.dtype
    density = torch.exp(-((centers - work.target) ** 2) / (2 * SIGMA**2)) / (2 * torch.pi * SIGMA**2) ** 0.5
    q = torch.softmax(torch.where(density < 1e-16, -1000.0, density), dim=1)
    p = torch.softmax(F.conv2d(work.features, work.weight.to(dtype), work.bias.to(dtype)).float(), dim=1)
    divergence = (q * torch.log(q / (p + EPSILON) + EPSILON)).sum(dim=1, keepdim=True)
    return (p * centers).sum(dim=1, keepdim=True), divergence


def ours(work: Work, kernel: Kernel = "torch") -> tuple[Tensor, Tensor]:
    grid = BinGrid(work.bins.edges.to(work.target), work.bins.centers.to(work.target))
    teacher = DPMTarget(work.target, grid, SIGMA, temperature=1.0)
    return depth_and_divergence(work.features, work.weight, work.bias, grid.centers, teacher, kernel)


def forward_and_backward(implementation: Callable[[Work], tuple[Tensor, Tensor]], work: Work) -> None:
    """Run forward, and backward from a loss of both outputs."""
    depth, divergence = implementation(work)
    torch.autograd.grad((depth - work.target).abs().mean() + divergence.mean(), work[:3])


@torch.no_grad()
def bound(work: Work) -> None:
    """Compute only the products and softmaxes that no implementation can avoid."""
    weight, pixels = work.weight.flatten(1), work.features.flatten(2).transpose(1, 2)
    chunk = chunk_size(work.features, len(weight))
    logits, dpm = (torch.empty(chunk, len(weight)) for _ in range(2))
    gradient, d_weight = torch.empty_like(pixels), torch.zeros_like(weight)
    for image in pixels:
        for x in image.split(chunk):
            torch.softmax(torch.mm(x, weight.t(), out=logits[: len(x)]), dim=1, out=dpm[: len(x)])
    for image, d_image in zip(pixels, gradient, strict=True):
        for x, d_x in zip(image.split(chunk), d_image.split(chunk), strict=True):
            p = torch.softmax(torch.mm(x, weight.t(), out=logits[: len(x)]), dim=1, out=dpm[: len(x)])
            torch.mm(p, weight, out=d_x)
            d_weight.addmm_(p.t(), x)


def implementations() -> dict[str, Callable[[Work], None]]:
    compiled = torch.compile(plain, dynamic=False)
    return {
        "plain": lambda work: forward_and_backward(plain, work),
        "compiled": lambda work: forward_and_backward(compiled, work),
        "ours": lambda work: forward_and_backward(ours, work),
        "bound": bound,
    }


def seconds(case: Case, rounds: int) -> dict[str, list[float]]:
    """Measure each implementation in s, by round."""
    work, runs = Work.of(case), implementations()
    results: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run(work)
            if round_:
                results[name].append(time.perf_counter() - started)
    torch.compiler.reset()
    return results


def peak_bytes(case: Case, name: str, threads: int) -> int:
    """Measure the memory of one implementation in this process, in bytes."""
    torch.set_num_threads(threads)
    work, run = Work.of(case), implementations()[name]
    run(work)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    run(work)
    return resident("VmHWM") - before


def resident(field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def peak_bytes_in_fresh_process(case: Case, name: str, threads: int) -> int:
    """Run `peak_bytes` in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(peak_bytes, case, name, threads).result()


def ratio(ones: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| | plain | compiled | ours | bound | plain / ours | compiled / ours | ours / bound |\n|---|" + "---|" * 7)
    for case in CASES:
        results = seconds(case, options.rounds)
        medians = " | ".join(f"{statistics.median(times):.2f} s" for times in results.values())
        ratios = (ratio(results[a], results[b]) for a, b in (("plain", "ours"), ("compiled", "ours"), ("ours", "bound")))
        print(f"| {case} | {medians} | " + " | ".join(f"{value:.1f}" for value in ratios) + " |", flush=True)

    print("\n| | plain | compiled | ours | plain / ours | compiled / ours |\n|---|" + "---|" * 5)
    for case in WITH_MEMORY:
        peaks = [peak_bytes_in_fresh_process(case, name, options.threads) for name in ("plain", "compiled", "ours")]
        sizes = " | ".join(f"{peak / 1e6:,.0f} MB" for peak in peaks)
        print(f"| {case} | {sizes} | {peaks[0] / peaks[2]:.1f} | {peaks[1] / peaks[2]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
