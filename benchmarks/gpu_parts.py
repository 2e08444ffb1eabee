"""The parts of `gpu.py`. Each prints its section of the page, row by row, and writes numbers that later parts need to FACTS.

python benchmarks/gpu_parts.py PART FACTS [--device cuda] [--tiny]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from dpm import CHANNELS, Case, Work, forward_and_backward, ours, plain, ratio
from frames import copy_frames, make_maps
from step import our_step, plain_step, random_batch

from tiekd.config import RunConfig, build, override
from tiekd.config.cpus import usable_cpus
from tiekd.config.specs import TEACHERS
from tiekd.data import open_frames, open_inputs
from tiekd.data.cache.pack_writer import write_packs
from tiekd.data.synthetic import synthesize
from tiekd.deploy.export_maps import NetworkTeacher, export_maps
from tiekd.distill.loop import train_loader
from tiekd.distill.runtime import LocalRuntime
from tiekd.errors import error_line, shorten
from tiekd.models.checkpoint import pack_network
from tiekd.models.registry import build_network

ROOT = Path(__file__).parents[1]
KITTI_IMAGES, KITTI_TEST_IMAGES, EPOCHS = 23_158, 697, 24  # the Eigen split, and the published recipe
# As few weights as the teachers can have, to try the command.
SMALL_TEACHERS = {
    "adabins": {"encoder": "test_efficientnet", "decoder_channels": [32, 24, 16, 16, 8]},
    "bts": {"encoder": "test_resnet", "decoder_channels": [48, 32, 24, 16, 8]},
    "depthformer": {"encoder": "swin_tiny_patch4_window7_224.ms_in1k", "decoder_channels": [64, 48, 32, 24, 16]},
}


@dataclass(frozen=True)
class Bench:
    """Where and how large the measurements are."""

    device: torch.device
    tiny: bool
    facts: Path
    folder: Path  # temporary

    @property
    def judged(self) -> bool:
        """Whether the goals, which are for a GPU at the published sizes, apply."""
        return self.device.type == "cuda" and not self.tiny

    @property
    def turns(self) -> int:
        return 2 if self.tiny else 5

    @property
    def turn_s(self) -> float:
        return 0.02 if self.tiny else 0.3

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def remember(self, name: str, value: Any) -> None:
        self.facts.write_text(json.dumps(json.loads(self.facts.read_text()) | {name: value}))

    def recall(self, name: str) -> Any:
        return json.loads(self.facts.read_text()).get(name, {})


@dataclass
class Measured:
    """The measurement of one alternative."""

    seconds: list[float] = field(default_factory=list)  # per call, by turn
    peak: int | None = None  # bytes beyond what was allocated before the first call; None on a CPU
    first: Any = None  # what the first call returned
    failure: str = ""


def take_turns(runs: Mapping[str, Callable[[], Any]], bench: Bench) -> dict[str, Measured]:
    """Measure alternatives in turns. One that raises an error is left out from then on."""
    found = {name: Measured() for name in runs}
    repeats = dict.fromkeys(runs, 1)
    for turn in range(-1, bench.turns):
        for name, run in runs.items():
            measured = found[name]
            if measured.failure:
                continue
            try:
                if turn < 0:
                    measured.peak, measured.first = warm_up(run, bench)
                    once = seconds_per_call(run, 1, bench)
                    repeats[name] = max(1, min(100, int(bench.turn_s / once)))
                else:
                    measured.seconds.append(seconds_per_call(run, repeats[name], bench))
            except Exception as error:  # compilers and CUDA raise errors of many types
                measured.failure = cause(error)
                error.__traceback__ = None  # holds tensors
                if bench.device.type == "cuda":
                    torch.cuda.empty_cache()
    return found


def warm_up(run: Callable[[], Any], bench: Bench) -> tuple[int | None, Any]:
    """Call twice. Return the peak of the memory beyond what was allocated before, and what the first call returned."""
    cuda = bench.device.type == "cuda"
    bench.synchronize()
    if cuda:
        torch.cuda.reset_peak_memory_stats(bench.device)
    before = torch.cuda.memory_allocated(bench.device) if cuda else 0
    first = run()
    first = first.detach() if isinstance(first, torch.Tensor) else first
    run()
    bench.synchronize()
    return torch.cuda.max_memory_allocated(bench.device) - before if cuda else None, first


def seconds_per_call(run: Callable[[], Any], calls: int, bench: Bench) -> float:
    bench.synchronize()
    started = time.perf_counter()
    for _ in range(calls):
        run()
    bench.synchronize()
    return (time.perf_counter() - started) / calls


def cause(error: BaseException) -> str:
    return shorten(error_line(error).replace("|", "/"), 300)


# -- the page --------------------------------------------------------------------------------------------------------------


def print_text(text: str) -> None:
    """Print a paragraph in lines of at most 128 characters."""
    print(textwrap.fill(" ".join(text.split()), 128, break_long_words=False, break_on_hyphens=False), flush=True)


def print_head(*columns: str) -> None:
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def quartiles(values: list[float], digits: int = 3) -> str:
    """Median and quartiles with a number of significant digits."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{_significant(median, digits)} ({_significant(low, digits)} to {_significant(high, digits)})"


def _significant(value: float, digits: int) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def megabytes(peak: int | None) -> str:
    return "-" if peak is None else f"{peak / 1e6:,.0f}"


def times(plain: Measured, other: Measured) -> float | None:
    """How many times as fast as plain."""
    complete = plain.seconds and not plain.failure and not other.failure
    return ratio(plain.seconds, other.seconds) if complete else None


def share_of_memory(plain: Measured, other: Measured) -> float | None:
    return other.peak / plain.peak if plain.peak and other.peak is not None and not plain.failure else None


def number(value: float | None, pattern: str = ".2f") -> str:
    return "-" if value is None else format(value, pattern)


def print_goal(what: str, value: float | None, bound: float, bench: Bench, most: bool = False) -> None:
    """Say whether a value is at least `bound`, or at most with `most`."""
    if not bench.judged:
        verdict = "not judged: the goal is for a GPU at the published sizes"
    elif value is None:
        verdict = "**not measured**"
    else:
        verdict = f"{'**met**' if (value <= bound if most else value >= bound) else '**missed**'} ({value:.2f})"
    print(f"- Goal: {what}: {verdict}", flush=True)


# -- tests -----------------------------------------------------------------------------------------------------------------


def tests(bench: Bench) -> None:
    """Without tests/conftest.py, which needs what a bare machine lacks; its settings may then be unknown, which warns."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "--noconftest",
        "-q",
        "-rfEs",
        "-p",
        "no:cacheprovider",
        "--tb=line",
    ]
    done = subprocess.run(
        [*command, "-W", "default", "tests/tiekd/test_gpu.py"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    print("\n".join(["```text", *lines[-40:], "```"]))
    if bench.device.type == "cuda" and done.returncode:
        print(f"\n**Not all passed: exit code {done.returncode}.**")


# -- head ------------------------------------------------------------------------------------------------------------------


class HeadCase(NamedTuple):
    """A batch of a published recipe, in a precision."""

    label: str
    case: Case
    dtype: torch.dtype


class Peaks(NamedTuple):
    """What the device reaches in the simplest work."""

    bandwidth: float  # bytes/s of a copy, read and written
    rates: dict[torch.dtype, float]  # operations/s of a square matrix product


def measure_peaks(bench: Bench) -> Peaks:
    device, n_bytes, side = bench.device, *((2**22, 256) if bench.tiny else (2**30, 8192))
    source, target = (torch.zeros(n_bytes, dtype=torch.uint8, device=device) for _ in range(2))
    runs: dict[Any, Callable[[], Any]] = {"copy": lambda: target.copy_(source)}
    for dtype in (torch.bfloat16, torch.float32):
        factor, product = torch.randn(side, side, device=device).to(dtype), torch.empty(side, side, device=device, dtype=dtype)
        runs[dtype] = partial(torch.mm, factor, factor, out=product)
    found = {name: statistics.median(measured.seconds) for name, measured in take_turns(runs, bench).items()}
    return Peaks(2 * n_bytes / found.pop("copy"), {dtype: 2 * side**3 / seconds for dtype, seconds in found.items()})


def least_seconds(case: HeadCase, peaks: Peaks) -> tuple[float, str]:
    """Return the shortest possible time, and what limits it.

    Four matrix products at the peak rate, or reading the features twice and writing their gradient, whichever takes longer.
    """
    features = case.case.batch * case.case.height * case.case.width * CHANNELS
    moving = 3 * case.dtype.itemsize * features / peaks.bandwidth
    computing = 4 * 2 * features * case.case.n_bins / peaks.rates[case.dtype]
    return max((moving, "bandwidth"), (computing, "products"))


def head(bench: Bench) -> None:
    peaks = measure_peaks(bench)
    rates = ", ".join(f"{rate / 1e12:.3g} in {precision_of(dtype)}" for dtype, rate in peaks.rates.items())
    print_text(
        f"""Peaks of this device, measured here: a copy {peaks.bandwidth / 1e12:.3g} TB/s; matrix products {rates}, in TFLOP/s.
        From the head's features ({CHANNELS} channels) to expected depth and divergence, and back to all gradients. Share: the
        time at these peaks, of four matrix products or of reading the features twice and writing their gradient, over ours."""
    )
    print_head("case", "", "ms", "times plain", "peak MB", "of plain", "share", "limit")
    kitti, nyu = (8, 352, 704), (8, 416, 544)
    if bench.tiny:
        kitti = nyu = (1, 24, 32)
    cases = [
        HeadCase("KITTI, bf16", Case(257, *kitti, 80.0), torch.bfloat16),
        HeadCase("KITTI, fp32", Case(257, *kitti, 80.0), torch.float32),
        HeadCase("NYU, bf16", Case(49, *nyu, 10.0), torch.bfloat16),
    ]
    results = {case.label: head_case(case, peaks, bench) for case in cases}
    print()
    for label, (share, faster) in results.items():
        print_goal(f"{label}, the faster of chunks and Triton: at least 60 % of the limit", share, 0.6, bench)
        print_goal(f"{label}, the faster of chunks and Triton: at least 6 times plain", faster, 6.0, bench)


def head_case(case: HeadCase, peaks: Peaks, bench: Bench) -> tuple[float | None, float | None]:
    """Print the rows of a case. Return the best share of the limit, and how many times as fast as plain the best is."""
    work = Work.of(case.case, bench.device.type, case.dtype)
    compiled = torch.compile(plain, dynamic=False)
    implementations: dict[str, Callable[[Work], Any]] = {
        "plain": plain,
        "compiled": skipped("--tiny compiles nothing") if bench.tiny else compiled,
        "chunks": ours,
        "Triton": partial(ours, kernel="triton") if bench.device.type == "cuda" else skipped("the kernels need a GPU"),
    }
    runs = {name: partial(forward_and_backward, implementation, work) for name, implementation in implementations.items()}
    found = take_turns(runs, bench)
    torch.compiler.reset()
    least, limit = least_seconds(case, peaks)
    best: tuple[float | None, float | None] = None, None
    for name, measured in found.items():
        if measured.failure:
            print_row(case.label, name, measured.failure, *["-"] * 5)
            continue
        share, faster = least / statistics.median(measured.seconds), times(found["plain"], measured)
        if name in ("chunks", "Triton") and (best[0] is None or share > best[0]):
            best = share, faster
        memory = number(share_of_memory(found["plain"], measured))
        milliseconds = quartiles([1e3 * s for s in measured.seconds])
        print_row(case.label, name, milliseconds, number(faster), megabytes(measured.peak), memory, f"{share:.0%}", limit)
    return best


class NotRun(Exception):
    """Why an alternative is not measured."""


def skipped(reason: str) -> Callable[..., Any]:
    def skip(*_: object) -> None:
        raise NotRun(reason)

    return skip


def precision_of(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]


# -- student ---------------------------------------------------------------------------------------------------------------


def step_config(student: str, precision: str, bench: Bench, n_bins: int = 257) -> RunConfig:
    document = {"data": {"dataset": "kitti", "root": "none"}, "teacher": {"name": "made", "maps": "none"}}
    document |= {"student": {"name": student}, "loss": {"name": "tie_kd"}, "bins": {"n_bins": n_bins}}
    document |= {"optim": {"precision": precision}, "execution": {"device": bench.device.type, "cpus_per_worker": 1}}
    return build(document)


def step_runs(config: RunConfig, variants: Mapping[str, dict[str, Any]], bench: Bench, batch: int, size: tuple[int, int]):
    """Return the steps of the variants, each with a student of its own; "plain" is the reference, the others are settings."""
    made = random_batch(argparse.Namespace(size=size, batch=batch))
    on_device = {name: maps.to(bench.device) for name, maps in made.items()}

    def build_step(name: str, settings: dict[str, Any]) -> Callable[[], torch.Tensor]:
        torch.manual_seed(0)
        changed = override(config, settings)
        student = build_network(changed).to(bench.device).train()
        if name == "plain":
            return plain_step(changed, student, on_device)
        return our_step(name, changed, student, on_device, str(bench.folder))

    def failing(error: Exception) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            raise error

        return run

    runs = {}
    for name, settings in variants.items():
        try:
            runs[name] = build_step(name, settings)
        except Exception as error:  # also of settings that this device does not support
            runs[name] = failing(error)
    return runs


TRITON, COMPILE = {"execution.kernel": "triton"}, {"execution.compile": True}


def student(bench: Bench) -> None:
    batch, size, n_bins = (2, (32, 64), 16) if bench.tiny else (8, (352, 704), 257)
    print_text(
        f"""TIE-KD with {n_bins} bins, batches of {batch} crops of {size[0]}x{size[1]} px that are already on the device. Plain
        is the step of `benchmarks/step.py` with the formulas of the released code, in bf16 under autocast. Peak memory is
        beyond the student's weights. GPU-hours: {EPOCHS} epochs of {KITTI_IMAGES:,} images, if the loader keeps up."""
    )
    columns = ("student", "precision", "", "ms", "times plain", "peak MB", "of plain", "images/s", "GPU-hours", "first loss")
    print_head(*columns)
    best: dict[str, float] = {}
    goals: dict[str, tuple[float | None, float | None]] = {}
    for name in ("tiny",) if bench.tiny else ("mobilenetv2", "resnet18", "resnet50"):
        for precision in ("fp32", "bf16"):
            variants: dict[str, dict[str, Any]] = {"plain": {}, "ours": {}, "ours, Triton": TRITON}
            runs = step_runs(step_config(name, precision, bench, n_bins), variants, bench, batch, size)
            found = take_turns(runs, bench)
            del runs
            label = f"{name}, {precision}"
            for variant, measured in found.items():
                print_step(name, precision, variant, measured, found["plain"], batch)
                if variant == "plain" or measured.failure:
                    continue
                rate = batch / statistics.median(measured.seconds)
                if rate > best.get(label, 0):
                    best[label] = rate
                    goals[label] = times(found["plain"], measured), share_of_memory(found["plain"], measured)
    bench.remember("images/s", best)
    print()
    for label, (faster, memory) in goals.items():
        if label.endswith("bf16"):
            print_goal(f"{label}, the faster of ours: at least 3 times plain in bf16", faster, 3.0, bench)
            print_goal(f"{label}, the faster of ours: at most 1/3 of plain's memory", memory, 1 / 3, bench, most=True)
    if not bench.tiny:  # last, since it takes long to compile
        compiled_step(bench, batch, size, columns)


def compiled_step(bench: Bench, batch: int, size: tuple[int, int], columns: tuple[str, ...]) -> None:
    print("\n`execution.compile`, here in the place of plain:", flush=True)
    print_head(*columns)
    runs = step_runs(step_config("resnet18", "bf16", bench), {"ours": {}, "ours, compiled": COMPILE}, bench, batch, size)
    started = time.perf_counter()
    found = take_turns(runs, bench)
    for variant, measured in found.items():
        print_step("resnet18", "bf16", variant, measured, found["ours"], batch)
    print(f"\nWith compilation: {time.perf_counter() - started:.0f} s", flush=True)


def print_step(student: str, precision: str, variant: str, measured: Measured, plain: Measured, batch: int) -> None:
    if measured.failure:
        return print_row(student, precision, variant, measured.failure, *["-"] * 6)
    rate = batch / statistics.median(measured.seconds)
    cells = quartiles([1e3 * s for s in measured.seconds]), number(times(plain, measured)), megabytes(measured.peak)
    cells += number(share_of_memory(plain, measured)), f"{rate:.1f}", f"{EPOCHS * KITTI_IMAGES / rate / 3600:.1f}"
    print_row(student, precision, variant, *cells, f"{measured.first.item():.4f}")


# -- loader ----------------------------------------------------------------------------------------------------------------


def make_kitti(bench: Bench, n_frames: int) -> Path:
    """Write copies of some rendered frames of KITTI's size, in KITTI's layout."""
    synthesize(bench.folder / "rendered", "kitti", train_frames=1 if bench.tiny else 4, test_frames=1)
    copy_frames(bench.folder / "rendered", bench.folder / "kitti", n_frames)
    return bench.folder / "kitti"


def loader(bench: Bench) -> None:
    n_frames, batch = (4, 2) if bench.tiny else (192, 8)
    config = build(
        {
            "data": {"dataset": "kitti", "root": str(make_kitti(bench, n_frames))},
            "teacher": {"name": "made", "maps": str(bench.folder / "maps")},
            "optim": {"batch_size": batch},
            "execution": {"device": bench.device.type, "cpus_per_worker": 1, "cache_gb": 0},
        }
    )
    make_maps(config)
    write_packs(config, bench.folder / "packed")
    print_text(
        f"""{n_frames} rendered PNG frames of 375x1242 px with ground truth and teacher map, as augmented crops of 352x704 px in
        batches of {batch}, moved to the device as in training. The files are in the page cache. {usable_cpus()} CPUs."""
    )
    print_head("read from", "`execution.data_workers`", "frames/s", "frames/s per process")
    most = 1 if bench.tiny else max(usable_cpus() - 1, 1)
    fastest: dict[str, float] = {}
    for source, packed in (("files", None), ("packs", str(bench.folder / "packed"))):
        for workers in sorted({0, *(n for n in (1, 2, 4, 8, 16) if n <= most)}):
            settings = {"execution.packed": packed, "execution.data_workers": workers}
            try:
                rates = loader_rates(override(config, settings), bench)
            except Exception as error:
                print_row(source, str(workers), cause(error), "-")
                continue
            print_row(source, str(workers), quartiles(rates), f"{statistics.median(rates) / max(workers, 1):.0f}")
            fastest[source] = max(fastest.get(source, 0), statistics.median(rates))
    needs = bench.recall("images/s")
    if not needs:
        print("\nWhat the step needs was not measured in this run (part `student`).")
        return
    print_head("the step of", "needs images/s", *(f"{source} give, times that" for source in fastest))
    for label, need in needs.items():
        print_row(label, f"{need:.1f}", *(f"{rate / need:.2f}" for rate in fastest.values()))


def loader_rates(config: RunConfig, bench: Bench) -> list[float]:
    """Measure epochs in frames/s, after one that starts the loader's processes."""
    runtime = LocalRuntime(config.execution)
    inputs = open_inputs(config)
    batches: Any = train_loader(inputs, config, runtime)
    rates = []
    for epoch in range(1 + bench.turns):
        batches.batch_sampler.set_epoch(epoch + 1)
        started, count = time.perf_counter(), 0
        for batch in batches:
            for maps in batch.values():
                maps.to(bench.device, non_blocking=True)
            count += len(batch["image"])
        bench.synchronize()
        rates.append(count / (time.perf_counter() - started))
    return rates[1:]


# -- teachers --------------------------------------------------------------------------------------------------------------


def teachers(bench: Bench) -> None:
    size = {"frame_size": [96, 128], "train_crop": [96, 128]}
    data: dict[str, Any] = {"dataset": "synthetic-outdoor", "train_frames": 1, "test_frames": 1, **size}
    if not bench.tiny:
        data = {"dataset": "kitti", "root": str(make_kitti(bench, n_frames=12))}
    what = "small networks, frames of 96x128 px" if bench.tiny else "the published networks, frames of 352x1216 px"
    print_text(
        f"""Random weights of {what}, with the evaluation's flip averaging, in float32, one at a time as in `tiekd teacher
        export`. The network's time includes the copies to and from the device; the export also reads and writes PNGs.
        GPU-hours are those of the {KITTI_IMAGES + KITTI_TEST_IMAGES:,} frames of both KITTI splits."""
    )
    print_head("teacher", "network, frames/s", "export, frames/s", "GPU-hours", "peak MB")
    for name in TEACHERS:
        try:
            teacher(name, data, bench)
        except Exception as error:
            print_row(name, cause(error), *["-"] * 3)


def teacher(name: str, data: dict[str, Any], bench: Bench) -> None:
    network = {"name": name, **(SMALL_TEACHERS[name] if bench.tiny else {})}
    execution = {"device": bench.device.type, "cpus_per_worker": 1}
    config = build({"data": data, "student": network, "execution": execution})
    torch.manual_seed(0)
    weights = bench.folder / f"{name}.safetensors"
    weights.write_bytes(pack_network(build_network(config), config))
    maker = NetworkTeacher(weights, config.evaluation.flip_tta, bench.device)
    image = open_frames(config.data, "train").load(0).image
    peak, _ = warm_up(lambda: maker.depth(image), bench)
    rates = [1 / seconds_per_call(lambda: maker.depth(image), 1 if bench.tiny else 3, bench) for _ in range(bench.turns)]
    exports = []
    for turn in range(bench.turns if bench.tiny else 3):
        out = bench.folder / f"{name}-{turn}"
        started = time.perf_counter()
        made = export_maps(config, maker, out, name)
        exports.append(made["maps"] / (time.perf_counter() - started))
    hours = (KITTI_IMAGES + KITTI_TEST_IMAGES) / statistics.median(exports) / 3600
    print_row(name, quartiles(rates), quartiles(exports), f"{hours:.1f}", megabytes(peak))
    weights.unlink()


# -- trials ----------------------------------------------------------------------------------------------------------------


def trials(bench: Bench) -> None:
    sizes, counts = ([(32, 64)], (1, 2)) if bench.tiny else ([(64, 96), (352, 704)], (1, 2, 4))
    print_text(
        """Processes that train the student `small` with TIE-KD, 64 bins and batches of 8 (2 if tiny) that are already on the
        device, at the same time, without NVIDIA's MPS. All processes have started before, and the first ones of them work."""
    )
    print_head("crops, px", *(f"{count} at a time, images/s" for count in counts), *(f"{n} / 1" for n in counts[1:]))
    for size in sizes:
        command = [sys.executable, __file__, "trial", str(bench.facts), "--device", bench.device.type]
        command += ["--size", *map(str, size), *(["--tiny"] if bench.tiny else [])]
        with ExitStack() as stack:
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            processes = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(counts[-1])]
            turns = [[rate_of(processes[:count]) for count in counts] for _ in range(1 + bench.turns)][1:]
        by_count = list(zip(*turns, strict=True))
        ratios = [statistics.median(turn[place] / turn[0] for turn in turns) for place in range(1, len(counts))]
        print_row(f"{size[0]}x{size[1]}", *(quartiles(list(rates)) for rates in by_count), *(f"{r:.2f}" for r in ratios))


def rate_of(processes: list[subprocess.Popen]) -> float:
    """Let processes train at the same time; return the sum of their images/s."""
    for process in processes:
        print("go", file=process.stdin, flush=True)
    answers = [process.stdout.readline() for process in processes if process.stdout]
    if not all(answers):
        raise RuntimeError(f"{answers.count('')} of {len(processes)} processes ended without a result")
    return sum(map(float, answers))


def trial(bench: Bench, size: tuple[int, int]) -> None:
    """Train for a while for each line on stdin, and print images/s."""
    batch = 2 if bench.tiny else 8
    run = step_runs(step_config("small", "fp32", bench, n_bins=64), {"ours": {}}, bench, batch, size)["ours"]
    warm_up(run, bench)
    for _ in sys.stdin:
        started, steps = time.perf_counter(), 0
        while (spent := time.perf_counter() - started) < (0.2 if bench.tiny else 0.7):
            for _ in range(1 if bench.tiny else 5):
                run()
                steps += 1
            bench.synchronize()
        print(batch * steps / spent, flush=True)


PARTS: dict[str, Callable[[Bench], None]] = {
    "tests": tests,
    "head": head,
    "student": student,
    "loader": loader,
    "teachers": teachers,
    "trials": trials,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "trial"])
    parser.add_argument("facts", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--size", type=int, nargs=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tkg") as folder:
        bench = Bench(torch.device(options.device), options.tiny, options.facts, Path(folder))
        if options.part == "trial":
            trial(bench, tuple(options.size))
        else:
            PARTS[options.part](bench)


if __name__ == "__main__":
    main()
