"""What a training step of a published student costs: seconds and memory, against the same step written plainly.

    python benchmarks/step.py [--student resnet18] [--threads 2] [--batch 2] [--size 176 352] [--bins 257] [--turns 4]

The loss is TIE-KD, in float32 on the CPU, or on a GPU where there is one. Each line of the table has a process of its own; they
take turns, a step each (A B ... A B ...), of which the first counts for memory only. A share of plain's seconds is the median
over turns, each against plain's in the same turn. Needs Linux. For a GPU ask for the published crops: --batch 8 --size 352 704.

    plain     encoder, decoder and projection in PyTorch's usual order of memory, the loss as the released code writes it, with
              every map over all bins whole, its gradient by autograd, AdamW as a loop over the parameters
    tiekd     `tiekd.distill.loop.train_step`
    without   tiekd, but one thing as in plain
    kept      tiekd in a process whose C library is told by its environment to keep what it has freed
    with      tiekd with settings of a config, on a GPU
    extra     peak memory beyond that of the process with its network, before its first step: gradients and the
              optimizer's moments are in it
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

from tiekd.config import RunConfig, build, override
from tiekd.distill.loop import train_step
from tiekd.distill.optim import build_optimizer
from tiekd.distill.runtime import LocalRuntime, choose_device
from tiekd.losses import build_loss
from tiekd.models.decoder import resize
from tiekd.models.registry import build_network
from tiekd.models.student import DepthStudent
from tiekd.store.run_store import RunStore

GPU = torch.cuda.is_available()
STEPS = 10 if GPU else 1  # of a turn
VARIANTS = (
    "plain",
    "tiekd",
    "without channels_last",
    "without making inputs again",
    "without the fused head and loss",
    "without the fused optimizer",
    "tiekd, freed memory kept",
)
ON_GPU = {
    "plain": {},
    "tiekd": {},
    "tiekd with bf16": {"optim.precision": "bf16"},
    "tiekd with bf16, triton": {"optim.precision": "bf16", "execution.kernel": "triton"},
    "tiekd with bf16, compile": {"optim.precision": "bf16", "execution.compile": True},
}
# By default the C library returns each large tensor to the kernel, and gets the next one zeroed page by page.
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2147483647"}  # of glibc
Step = Callable[[], Tensor]  # returns its loss


def made_batch(options: argparse.Namespace) -> dict[str, Tensor]:
    """Noise, and smooth depths of 2 to 78 m."""
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
    with_plain_activation(student)

    def step() -> Tensor:
        logits = student.head.logits(plain_features(student, image))
        loss = published_loss(logits, target, centers, config)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), config.optim.clip_grad_norm, foreach=False)
        optimizer.step()
        return loss

    return step


def with_plain_activation(student: DepthStudent) -> None:
    last = [*student.decoder.merges, *student.decoder.upsamples][-1]
    last[-1] = nn.ReLU(inplace=True)


def plain_features(student: DepthStudent, image: Tensor) -> Tensor:
    """Those of the student's encoder and decoder, with autograd keeping every input of a convolution."""
    *skips, deepest = student.encoder(image)
    x = student.decoder.bottleneck(deepest)
    for merge, skip in zip(student.decoder.merges, reversed(skips), strict=True):
        x = nn.Sequential(*merge)(torch.cat([resize(x, skip.shape[-2:]), skip], dim=1))
    for upsample in student.decoder.upsamples:
        x = nn.Sequential(*upsample)(resize(x, (2 * x.shape[-2], 2 * x.shape[-1])))
    return resize(x, image.shape[-2:])


def published_loss(logits: Tensor, target: Tensor, centers: Tensor, config: RunConfig) -> Tensor:
    """TIE-KD in the operations of the released code; SSIM over whole windows, and in the range of depth."""
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
    """The student without its order of memory."""

    def __init__(self, student: DepthStudent):
        super().__init__()
        self.student = student

    def forward(self, image: Tensor):
        return self.student.head(self.student.decoder(self.student.encoder(image), image.shape[-2:]))


class WholeMaps(Contiguous):
    """The student with maps over all bins at full size, by the formulas of `tiekd/bins.py`."""

    def forward(self, image: Tensor):
        return self.student(image).materialize()


class Keeping(nn.Module):
    """The student with a decoder that makes nothing again."""

    def __init__(self, student: DepthStudent):
        super().__init__()
        with_plain_activation(student)
        self.student = student

    def forward(self, image: Tensor):
        return self.student.head(plain_features(self.student, image.contiguous(memory_format=torch.channels_last)))


MODELS = {
    "without channels_last": Contiguous,
    "without making inputs again": Keeping,
    "without the fused head and loss": WholeMaps,
}


def our_step(variant: str, config: RunConfig, student: DepthStudent, batch: dict[str, Tensor], store: str) -> Step:
    runtime = LocalRuntime(config.execution, RunStore(store).run("none"))
    model = MODELS[variant](student) if variant in MODELS else student
    model = torch.compile(model) if config.execution.compile else model
    loss, optimizer = build_loss(config), build_optimizer(student, config.optim)
    for group in optimizer.param_groups:
        group["fused"] = variant != "without the fused optimizer"
    return lambda: train_step(model, loss, batch, optimizer, config, runtime)["loss"]


# -- the measurement -----------------------------------------------------------------------------------------------------


def memory(line: str) -> int:
    """A line of this process's status, in bytes: VmRSS is held, VmHWM the peak of that."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{line}:")[1].split()[0])


def held() -> int:
    """Bytes of memory, of the GPU where there is one."""
    return torch.cuda.memory_allocated() if GPU else memory("VmRSS")


def forget_peak() -> None:
    torch.cuda.reset_peak_memory_stats() if GPU else Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    return torch.cuda.max_memory_allocated() if GPU else memory("VmHWM")


def done(step: Step) -> float:
    """Its loss, once the device is through."""
    loss = step().item()
    if GPU:
        torch.cuda.synchronize()
    return loss


def take_turns(variant: str, options: argparse.Namespace) -> None:
    """Make a turn's steps for each line that comes in; print what one took (wall, CPU), the extra memory so far, its loss."""
    document = {"data": {"dataset": "kitti", "root": "none"}, "teacher": {"name": "made", "maps": "none"}}
    document |= {"student": {"name": options.student}, "loss": {"name": "tie_kd"}, "bins": {"n_bins": options.bins}}
    config = build(document | {"execution": {"cpus_per_worker": options.threads}})
    config = override(config, ON_GPU[variant]) if GPU else config
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    device = choose_device(config.execution.device)
    student = build_network(config).to(device).train()
    batch = {name: maps.to(device) for name, maps in made_batch(options).items()}
    with tempfile.TemporaryDirectory() as store:
        step = plain_step(config, student, batch) if variant == "plain" else our_step(variant, config, student, batch, store)
        forget_peak()
        before = held()
        for _ in sys.stdin:
            started = time.perf_counter(), time.process_time()
            losses = [done(step) for _ in range(STEPS)]
            spent = time.perf_counter() - started[0], time.process_time() - started[1]
            told = {"seconds": [s / STEPS for s in spent], "extra": peak() - before, "loss": losses[0]}
            print(json.dumps(told), flush=True)


def turns_of(variants: Iterable[str], turns: int) -> dict[str, list[dict]]:
    """What each variant's process tells of each turn; the first turn is of a process that has made no step yet."""
    with ExitStack() as stack:
        processes = {}
        for variant in variants:
            words = [sys.executable, __file__, *sys.argv[1:], "--measure", variant]
            environment = os.environ | (KEEPING if "kept" in variant else {})
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            processes[variant] = stack.enter_context(process)
        found: dict[str, list[dict]] = {variant: [] for variant in variants}
        for _ in range(1 + turns):
            for variant, process in processes.items():
                print("step", file=process.stdin, flush=True)
                told = process.stdout.readline()
                if not told:
                    sys.exit(f"the process of {variant!r} ended without a word")
                found[variant].append(json.loads(told))
    return found


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
    found = turns_of(ON_GPU if GPU else VARIANTS, options.turns)
    print("| step | s (CPU) | of plain | extra memory, MB | of plain | first loss |\n|---|---|---|---|---|---|")
    plain_seconds = [told["seconds"][0] for told in found["plain"]]
    for variant, told in found.items():
        seconds, cpu = (median(values) for values in zip(*(turn["seconds"] for turn in told[1:]), strict=True))
        share = median(turn["seconds"][0] / plain for turn, plain in zip(told[1:], plain_seconds[1:], strict=True))
        extra, plain_extra = told[-1]["extra"], found["plain"][-1]["extra"]
        line = f"{seconds:.3g} ({cpu:.2g}) | {share:.2f} | {extra / 1e6:.0f} | {extra / plain_extra:.2f}"
        print(f"| {variant} | {line} | {told[0]['loss']:.4f} |")


if __name__ == "__main__":
    main()
