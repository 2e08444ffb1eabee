"""Measure time and memory of a training step of a published student, compared with a plain implementation of the same step.

    python benchmarks/step.py [--student resnet18] [--threads 2] [--batch 2] [--size 176 352] [--bins 257] [--turns 4]

The loss is TIE-KD, in float32 on the CPU; for a GPU, see `gpu.py`. Each line of the table has its own process. The
processes take turns of one step (A B ... A B ...); the first turn counts only for memory. The share of plain is the median
over turns of the ratio to plain in the same turn. Needs Linux.

    plain     encoder, decoder and projection in PyTorch's default memory format; the loss as in the released code, with
              whole maps over all bins and autograd; AdamW as a loop over the parameters
    tiekd     `tiekd.distill.loop.train_step`
    without   tiekd with one part as in plain
    kept      tiekd in a process whose C library keeps freed memory (glibc's environment variables)
    extra     peak memory beyond that of the process before its first step: includes gradients and the optimizer's moments
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tiekd.config import RunConfig, build
from tiekd.distill.loop import train_step
from tiekd.distill.optim import build_optimizer
from tiekd.distill.runtime import LocalRuntime
from tiekd.losses import build_loss
from tiekd.models.decoder import resize
from tiekd.models.registry import build_network
from tiekd.models.student import DepthStudent
from tiekd.store.run_store import RunStore

VARIANTS = (
    "plain",
    "tiekd",
    "without channels_last",
    "without making inputs again",
    "without the fused head and loss",
    "without the fused optimizer",
    "tiekd, freed memory kept",
)
# By default the C library returns each large tensor to the kernel, which then has to zero the pages of the next one.
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2147483647"}  # glibc
Step = Callable[[], Tensor]  # returns its loss


def random_batch(options: argparse.Namespace) -> dict[str, Tensor]:
    """Return an image of noise and smooth depth between 2 and 78 m."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(*(torch.linspace(0, 1, n) for n in options.size), indexing="ij")
    depth = (2 + 60 * rows + 16 * columns).expand(options.batch, 1, *options.size).clone()
    return {"image": torch.randn(options.batch, 3, *options.size, generator=generator), "depth_teacher": depth}


# -- the plain step ------------------------------------------------------------------------------------------------------


def plain_step(config: RunConfig, student: DepthStudent, batch: dict[str, Tensor]) -> Step:
    centers = student.head.centers.view(1, -1, 1, 1)
    optimizer = torch.optim.AdamW(
        student.parameters(), config.optim.lr, config.optim.betas, weight_decay=0.01, foreach=False, fused=False
    )
    image, target = batch["image"], batch["depth_teacher"]
    use_plain_activation(student)

    def step() -> Tensor:
        with torch.autocast(image.device.type, torch.bfloat16, enabled=config.optim.precision == "bf16"):
            logits = student.head.logits(plain_features(student, image))
        loss = published_loss(logits.float(), target, centers, config)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), config.optim.clip_grad_norm, foreach=False)
        optimizer.step()
        return loss

    return step


def use_plain_activation(student: DepthStudent) -> None:
    last = [*student.decoder.merges, *student.decoder.upsamples][-1]
    last[-1] = nn.ReLU(inplace=True)


def plain_features(student: DepthStudent, image: Tensor) -> Tensor:
    """Compute the features of the student, with autograd storing the input of every convolution."""
    *skips, deepest = student.encoder(image)
    x = student.decoder.bottleneck(deepest)
    for merge, skip in zip(student.decoder.merges, reversed(skips), strict=True):
        x = nn.Sequential(*merge)(torch.cat([resize(x, skip.shape[-2:]), skip], dim=1))
    for upsample in student.decoder.upsamples:
        x = nn.Sequential(*upsample)(resize(x, (2 * x.shape[-2], 2 * x.shape[-1])))
    return resize(x, image.shape[-2:])


def published_loss(logits: Tensor, target: Tensor, centers: Tensor, config: RunConfig) -> Tensor:
    """Compute TIE-KD with the operations of the released code; SSIM only over complete windows, with the range of depths."""
    loss, epsilon = config.loss, 1e-7
    p = torch.softmax(logits, dim=1)
    depth = (p * centers).sum(dim=1, keepdim=True)
    density = torch.exp(-((centers - target) ** 2) / (2 * loss.sigma**2)) / math.sqrt(2 * math.pi * loss.sigma**2)
    q = torch.softmax(torch.where(density < 1e-16, -1000.0, density), dim=1)
    divergence = q * torch.log(q / (p + epsilon) + epsilon)
    l_dpm = torch.where(p == 0, 0.0, divergence).sum(dim=1).mean()
    l_depth = 1 - published_ssim(depth, target, config.data.max_depth)
    return loss.scale * (loss.alpha * l_dpm + (1 - loss.alpha) * l_depth)


def published_ssim(a: Tensor, b: Tensor, data_range: float) -> Tensor:
    line = torch.exp(-((torch.arange(11.0, device=a.device) - 5) ** 2) / (2 * 1.5**2))
    window = torch.outer(line / line.sum(), line / line.sum()).view(1, 1, 11, 11)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_a, mean_b = F.conv2d(a, window), F.conv2d(b, window)
    variance_a = F.conv2d(a * a, window) - mean_a**2
    variance_b = F.conv2d(b * b, window) - mean_b**2
    covariance = F.conv2d(a * b, window) - mean_a * mean_b
    numerator = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (numerator / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))).mean()


# -- tiekd's step --------------------------------------------------------------------------------------------------------


class Contiguous(nn.Module):
    """The student in the default memory format."""

    def __init__(self, student: DepthStudent):
        super().__init__()
        self.student = student

    def forward(self, image: Tensor):
        return self.student.head(self.student.decoder(self.student.encoder(image), image.shape[-2:]))


class WholeMaps(Contiguous):
    """The student with whole maps over all bins, computed by `tiekd/bins.py`."""

    def forward(self, image: Tensor):
        return self.student(image).materialize()


class StoringInputs(nn.Module):
    """The student with a decoder that stores its inputs instead of recomputing them."""

    def __init__(self, student: DepthStudent):
        super().__init__()
        use_plain_activation(student)
        self.student = student

    def forward(self, image: Tensor):
        return self.student.head(plain_features(self.student, image.contiguous(memory_format=torch.channels_last)))


MODELS = {
    "without channels_last": Contiguous,
    "without making inputs again": StoringInputs,
    "without the fused head and loss": WholeMaps,
}


def our_step(variant: str, config: RunConfig, student: DepthStudent, batch: dict[str, Tensor], store: str) -> Step:
    runtime = LocalRuntime(config.execution, RunStore(store).run("none"))
    model = MODELS[variant](student) if variant in MODELS else student
    model = torch.compile(model) if config.execution.compile else model
    loss, optimizer = build_loss(config), build_optimizer(student, config.optim)
    for group in optimizer.param_groups:
        group["fused"] = variant != "without the fused optimizer"
    return lambda: train_step(model, loss, batch, optimizer, config.optim, runtime)["loss"]


# -- the measurement -----------------------------------------------------------------------------------------------------


def memory(line: str) -> int:
    """Read a line of this process's status in bytes: VmRSS is the resident memory, VmHWM its peak."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{line}:")[1].split()[0])


def take_turns(variant: str, options: argparse.Namespace) -> None:
    """Run a turn for each line on stdin; print its seconds per step (wall, CPU), the extra memory so far and the loss."""
    document = {"data": {"dataset": "kitti", "root": "none"}, "teacher": {"name": "made", "maps": "none"}}
    document |= {"student": {"name": options.student}, "loss": {"name": "tie_kd"}, "bins": {"n_bins": options.bins}}
    config = build(document | {"execution": {"device": "cpu", "cpus_per_worker": options.threads}})
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    student, batch = build_network(config).train(), random_batch(options)
    with tempfile.TemporaryDirectory() as store:
        step = plain_step(config, student, batch) if variant == "plain" else our_step(variant, config, student, batch, store)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = memory("VmRSS")
        for _ in sys.stdin:
            started = time.perf_counter(), time.process_time()
            loss = step().item()
            spent = time.perf_counter() - started[0], time.process_time() - started[1]
            result = {"seconds": spent, "extra": memory("VmHWM") - before, "loss": loss}
            print(json.dumps(result), flush=True)


def run_turns(variants: Iterable[str], turns: int) -> dict[str, list[dict]]:
    """Return the results of each variant by turn; the first turn contains the first step of a process."""
    with ExitStack() as stack:
        processes = {}
        for variant in variants:
            command = [sys.executable, __file__, *sys.argv[1:], "--measure", variant]
            environment = os.environ | (KEEPING if "kept" in variant else {})
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            processes[variant] = stack.enter_context(process)
        results: dict[str, list[dict]] = {variant: [] for variant in variants}
        for _ in range(1 + turns):
            for variant, process in processes.items():
                print("step", file=process.stdin, flush=True)
                line = process.stdout.readline()
                if not line:
                    sys.exit(f"the process of {variant!r} ended without a result")
                results[variant].append(json.loads(line))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="resnet18", choices=["mobilenetv2", "resnet18", "resnet50"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=[176, 352])
    parser.add_argument("--bins", type=int, default=257)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return take_turns(options.measure, options)
    results = run_turns(VARIANTS, options.turns)
    print("| step | s (CPU) | of plain | extra memory, MB | of plain | first loss |\n|---|---|---|---|---|---|")
    plain_seconds = [turn["seconds"][0] for turn in results["plain"]]
    for variant, turns in results.items():
        seconds, cpu = (median(values) for values in zip(*(turn["seconds"] for turn in turns[1:]), strict=True))
        share = median(turn["seconds"][0] / plain for turn, plain in zip(turns[1:], plain_seconds[1:], strict=True))
        extra, plain_extra = turns[-1]["extra"], results["plain"][-1]["extra"]
        line = f"{seconds:.3g} ({cpu:.2g}) | {share:.2f} | {extra / 1e6:.0f} | {extra / plain_extra:.2f}"
        print(f"| {variant} | {line} | {turns[0]['loss']:.4f} |")


if __name__ == "__main__":
    main()
