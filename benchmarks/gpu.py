"""Measure tiekd on one GPU and write the page `benchmarks/gpu_<card>_<date>.md`. Offline, without Ray, in less than 9 minutes.

    python benchmarks/gpu.py [--parts head,student] [--out PAGE]
    python benchmarks/gpu.py --device cpu --tiny       a trial of the same code without a GPU, in about a minute

It needs PyTorch, torchvision, timm, pydantic, pandas, pyarrow, PyYAML, Pillow, kornia-rs, safetensors, rich and pytest.
Each part is measured by `gpu_parts.py` in a process of its own. If one fails, or takes longer than its limit, the page says
why, keeps its rows so far, and the next part follows. The page is rewritten after each part.

    tests      `pytest -m gpu`: losses, students, teachers and kernels on CUDA against the CPU
    head       the DPM head with its loss: plain, compiled, in chunks, Triton; time, memory, share of the hardware's limit
    student    the published training step, plain and ours: time, memory, images/s, GPU-hours of a KITTI run
    loader     frames/s that the loader gives, and what the step needs
    teachers   frames/s of a teacher's export
    trials     images/s of several trainings of a small student on one GPU
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

HERE = Path(__file__).parent
TITLES = {
    "tests": "Correctness: `pytest -m gpu`",
    "head": "The DPM head",
    "student": "The published student's step",
    "loader": "Frames that the loader gives, and that the step needs",
    "teachers": "Export of a teacher's maps",
    "trials": "Trials on one GPU",
}
LIMITS = {"tests": 120, "head": 100, "student": 170, "loader": 60, "teachers": 70, "trials": 60}  # s
TOTAL = 520  # s, of all parts
TINY_LIMIT = 300  # s of a part; a test may run it on a busy machine
PACKAGES = ("torch", "triton", "timm", "numpy", "pydantic", "kornia-rs")


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def card_of(device: str) -> str:
    """Return the name of the GPU, or of the processor's architecture."""
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU {platform.machine()}"


def driver() -> str:
    """Return what the driver tells of the GPU; PyTorch's first GPU may be another one if CUDA_VISIBLE_DEVICES is set."""
    query = "name,driver_version,memory.total,clocks.max.sm,power.limit"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "nvidia-smi reports nothing"
    return "; ".join(told.strip().splitlines())


def header(options: argparse.Namespace) -> str:
    arguments = shlex.join(sys.argv[1:])
    tiny = (
        "\n**Tiny sizes: this page shows that the command works. Its times say nothing about the speed of a GPU.**\n"
        if options.tiny
        else ""
    )
    precision = (
        f"matrix products of float32 {'with' if torch.backends.cuda.matmul.allow_tf32 else 'without'} TF32, "
        f"convolutions {'with' if torch.backends.cudnn.allow_tf32 else 'without'}"
    )
    return f"""# One {card_of(options.device)}: correctness and speed
{tiny}
    python benchmarks/gpu.py {arguments}

| | |
|---|---|
| date | {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC |
| driver (GPU, version, memory, clock, power) | {driver() if options.device == "cuda" else "no GPU"} |
| CUDA of PyTorch, cuDNN | {torch.version.cuda}, {torch.backends.cudnn.version()} |
| precision | {precision} |
| packages | {", ".join(f"{name} {version_of(name)}" for name in PACKAGES)} |
| Python, system, CPUs | {platform.python_version()}, {platform.system()}, {os.cpu_count()} |

Times are medians with their quartiles, after a warm-up; alternatives take turns in one process, and a ratio is the median over
the turns. The device has finished when a time is taken.
"""


def run_part(part: str, options: argparse.Namespace, facts: Path, limit: float) -> str:
    """Run a part in a process of its own, which ends with its children after `limit` s; return its section of the page."""
    started = time.perf_counter()
    command = [sys.executable, str(HERE / "gpu_parts.py"), part, str(facts), "--device", options.device]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    failure = ""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*command, *(["--tiny"] if options.tiny else [])],
            stdout=out,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
        try:
            if process.wait(limit):
                failure = f"exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            failure = f"not finished after {limit:.0f} s"
        finally:
            end_with_children(process)
        for stream in (out, errors):
            stream.seek(0)
        section, told = out.read(), [line for line in errors.read().splitlines() if line.strip()]
    if failure:
        section += f"\n**This part failed: {failure}.**" + (f" Its last message: `{told[-1].strip()[:500]}`" if told else "")
    return f"\n## {TITLES[part]}\n\n{section.strip()}\n\n{time.perf_counter() - started:.0f} s\n"


def end_with_children(process: subprocess.Popen) -> None:
    """End a process that leads its own session, and what is left of the session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, to try the command")
    parser.add_argument("--parts", default=",".join(TITLES), help="comma-separated; default: all")
    parser.add_argument("--out", type=Path, help="the page; default: benchmarks/gpu_<card>_<date>.md")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := sorted(set(parts) - set(TITLES)):
        parser.error(f"--parts: unknown {', '.join(unknown)}; valid: {', '.join(TITLES)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU here; valid here: --device cpu --tiny")
    if options.device == "cpu" and not options.tiny:
        parser.error("--device cpu needs --tiny: the published sizes take hours on a CPU")

    started = time.monotonic()
    card = re.sub(r"[^a-z0-9]+", "-", card_of(options.device).lower()).strip("-") + ("-tiny" if options.tiny else "")
    page = options.out or HERE / f"gpu_{card}_{datetime.datetime.now(datetime.UTC):%Y-%m-%d}.md"
    text = header(options)
    with tempfile.TemporaryDirectory(prefix="tkg") as folder:
        facts = Path(folder) / "facts.json"
        facts.write_text(json.dumps({}))
        for part in (part for part in TITLES if part in parts):
            print(f"{part} ...", file=sys.stderr, flush=True)
            left = TOTAL - (time.monotonic() - started)
            if options.tiny:
                text += run_part(part, options, facts, TINY_LIMIT)
            elif left > 10:
                text += run_part(part, options, facts, min(LIMITS[part], left))
            else:
                text += f"\n## {TITLES[part]}\n\nNot run: the {TOTAL} s of all parts were over.\n"
            page.write_text(text)
    print(f"{page}: {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
