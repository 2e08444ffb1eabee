"""Measure time and memory of `tiekd report` by phase, as a store grows.

    python benchmarks/report.py [--runs 1250 2500 5000 10000] [--store FOLDER]

The store is written by the store's own writers: three studies whose runs have 24 epochs and 700 test images in 28 groups,
with random numbers. It grows from one size to the next; each size is reported by a new process. Its files have just been
written or read and are in the page cache. Needs Linux.

    tables   everything except the figures: reading, statistics, pages, and the Parquet files with a row per image
    reading  part of it: the store's files, up to the frames of `reports.loading.collect`, and images.parquet
    figures  the rest
    peak     memory of the command's process and of the process that reads the images, together
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from tiekd.config import RunConfig, build
from tiekd.config.documents import with_values
from tiekd.config.labels import METRICS
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

EPOCHS, IMAGES, GROUPS = 24, 700, 28
PHASES = ("tables", "reading", "figures", "total")
BASE = {"data": {"dataset": "kitti", "root": "kitti"}, "teacher": {"name": "adabins", "maps": "maps/adabins"}}
BASELINE = {"loss.name": "si", "loss.target": "ground_truth"}
LOST = {
    7: Status("failed", "RuntimeError: out of memory"),
    57: Status("diverged", "loss is nan at step 7"),
}  # per 100 runs


# -- the store -------------------------------------------------------------------------------------------------------------


def methods(n_cells: int) -> list[dict]:
    """Losses, teachers, backbones and learning rates, each with its baseline."""
    losses = (BASELINE, *({"loss.name": name} for name in ("si", "mse", "ssim", "ssim_si", "l_dpm", "l_depth", "tie_kd")))
    teachers, backbones = ("adabins", "bts", "depthformer"), ("mobilenetv2", "resnet18", "resnet50")
    rates = (round(1e-3 * (1 + number / 10), 6) for number in range(n_cells))
    cells = (
        loss | {"optim.lr": rate, "student.name": backbone} | ({} if loss is BASELINE else {"teacher.name": teacher})
        for rate, backbone, teacher, loss in product(rates, backbones, teachers, losses)
        if loss is not BASELINE or teacher == teachers[0]
    )
    return [cell for cell, _ in zip(cells, range(n_cells), strict=False)]


def grid(n_cells: int) -> list[dict]:
    """Bins, temperature and sigma, and a baseline."""
    temperatures = [0.25, 0.5, 1.0, 2.0, 4.0]
    cells = (
        {"loss.sigma": round(0.1 * (number + 1), 3), "loss.temperature": temperature, "bins.n_bins": bins}
        for number, temperature, bins in product(range(n_cells), temperatures, (65, 129, 257, 513))
    )
    return [BASELINE, *(cell for cell, _ in zip(cells, range(n_cells - 1), strict=False))]


def trials(n_trials: int) -> list[dict]:
    """Random trials of a search; fewer trials are the first ones of more."""
    drawn = np.random.default_rng(0).random((n_trials, 3))
    return [
        {"loss.temperature": float(10 ** (2 * t - 1)), "loss.alpha": float(a), "loss.sigma": float(0.1 + 2 * s)}
        for t, a, s in drawn
    ]


def studies(n_runs: int) -> Iterator[tuple[dict, list[dict], int]]:
    """Yield document, cells and seeds: a fifth of the runs have ten seeds, a fifth are trials, the others have three seeds."""
    yield {"name": "methods", "title": "Methods"}, methods(n_runs // 50), 10
    yield {"name": "dpm", "title": "Bins, temperature and sigma"}, grid(n_runs // 5), 3
    yield {"name": "hunt", "kind": "search", "search": {"objectives": ["abs_rel"]}}, trials(n_runs // 5), 1


def grow(store: RunStore, n_runs: int) -> int:
    """Write studies of about n_runs runs and their missing runs; return the number of runs."""
    known, new = {record.run_id for record in store.runs()}, []
    for document, cells, seeds in studies(n_runs):
        rows = []
        for changes, seed in product(cells, range(seeds)):
            config = build(with_values(BASE, {**changes, "seed": seed}))
            factors = {path: level for path, level in changes.items() if path != "loss.target"}
            rows.append({"run_id": config.fingerprint(), "config": config.document(), "factors": factors, "seed": seed})
            if rows[-1]["run_id"] not in known:
                known.add(rows[-1]["run_id"])
                new.append(config)
        store.write_study(document["name"], {"study": document, "cells": rows})
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as writers:
        list(writers.map(write_runs, [str(store.uri)] * cores, [new[core::cores] for core in range(cores)]))
    return len(known)


def write_runs(uri: str, configs: list[RunConfig]) -> None:
    os.fsync = lambda descriptor: None  # a made store need not outlive a power cut
    for config in configs:
        write_run(RunStore(uri), config)


def write_run(store: RunStore, config: RunConfig) -> None:
    """One run's folder as training leaves it."""
    run_id = config.fingerprint()
    rng, record = np.random.default_rng(int(run_id, 16)), store.run(run_id)
    status = LOST.get(int(run_id, 16) % 100, Status("done"))
    record.write_config(config)
    inputs = {name: f"{name:0<64}" for name in ("train", "test", "maps")}
    origin = {"git_commit": "0" * 40, "dirty": "", "versions": {"torch": "2.15.0", "timm": "1.0.31"}, "inputs": inputs}
    record.write_json("provenance.json", origin | {"hardware": {"machine": "x86_64", "cpus": 2, "device": "cpu"}})
    record.write_table("epochs.parquet", random_epochs(rng))
    if status.state == "done":
        images = random_images(rng)
        record.write_table("images.parquet", images)
        blank = int((images["n_valid"] == 0).sum())
        summary = {"run_id": run_id, "protocol": config.evaluation.protocol, "n_images": IMAGES - blank}
        metrics = {name: float(images[name].mean()) for name in METRICS}
        record.write_json("summary.json", summary | {"n_images_without_ground_truth": blank, "metrics": metrics})
    record.write_status(replace(status, epoch=EPOCHS, epochs=EPOCHS, device_seconds=3600.0))


def random_epochs(rng: np.random.Generator) -> pd.DataFrame:
    epoch = np.arange(1, EPOCHS + 1)
    columns = {"epoch": epoch, "step": 1448 * epoch, "lr": rng.random(EPOCHS), "loss": 1 / epoch, "part_l_dpm": 0.5 / epoch}
    return pd.DataFrame(columns | {"seconds": rng.random(EPOCHS)} | {name: rng.random(EPOCHS) for name in METRICS})


def random_images(rng: np.random.Generator) -> pd.DataFrame:
    """Metrics with a random effect per drive; every hundredth image has no ground truth."""
    drive = np.arange(IMAGES) * GROUPS // IMAGES
    names = [f"2011_09_26/2011_09_26_drive_{d:04d}_sync" for d in range(GROUPS)]
    blank = np.arange(IMAGES) % 100 == 99
    columns = {
        "image": [f"{names[d]}/image_02/data/{number:010d}.png" for number, d in enumerate(drive)],
        "group": [names[d] for d in drive],
        "n_valid": np.where(blank, 0, rng.integers(9000, 30000, IMAGES)),
    }
    drive_effect = 0.06 + 0.01 * rng.random() + 0.01 * rng.random(GROUPS)[drive]
    columns |= {name: np.where(blank, np.nan, drive_effect + 0.02 * rng.random(IMAGES)) for name in METRICS}
    return pd.DataFrame(columns | {"depth_min": rng.uniform(2, 4, IMAGES), "depth_max": rng.uniform(60, 80, IMAGES)})


# -- the measurement -------------------------------------------------------------------------------------------------------


class Clock:
    """Sum wall and CPU seconds inside functions by phase; CPU includes all threads and ended child processes."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    def of(self, phase: str, function: Callable) -> Callable:
        spent = self.spent.setdefault(phase, [0.0, 0.0])

        def clocked(*args: Any, **options: Any) -> Any:
            started = time.perf_counter(), sum(os.times()[:4])
            try:
                return function(*args, **options)
            finally:
                ended = time.perf_counter(), sum(os.times()[:4])
                spent[:] = [s + end - start for s, start, end in zip(spent, started, ended, strict=True)]

        return clocked


def report_clocked(store: str, out: str) -> None:
    """Run the command in this process; print the seconds of its phases as JSON in the last line."""
    import reports.loading.collect
    from reports.cli import report

    clock, collect = Clock(), reports.loading.collect.collect

    def collected(store: RunStore, study: str | None, images_to: Path, while_waiting: Callable[[], Any]) -> Any:
        return collect(store, study, images_to, lambda: clock_figures(clock, while_waiting()))

    reports.loading.collect.collect = clock.of("reading", collected)
    clock.of("command", report)([store], out=Path(out), as_json=True)
    print(json.dumps(clock.spent))


def clock_figures(clock: Clock, writer: Any) -> None:
    figures_of = writer.figures_of
    writer.figures_of = clock.of("figures", lambda *words: list(figures_of(*words)))  # a generator works only when consumed
    writer.save_figure = clock.of("figures", writer.save_figure)


def measure(store: Path, out: Path) -> dict[str, Any]:
    """Run the command in a new process; return (wall, CPU) s of its phases and its peak memory in bytes."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--clocked", str(store), str(out)]
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(command, stdout=output)
        peak = 0
        while not (ended := os.wait4(child.pid, os.WNOHANG))[0]:
            peak = max(peak, resident(child.pid))
            time.sleep(0.02)
        _, status, usage = ended
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
        if child.returncode:
            raise SystemExit(f"the report of {store} failed with exit code {child.returncode}")
        output.seek(0)
        phases = json.loads(output.read().splitlines()[-1])
    total = [wall, usage.ru_utime + usage.ru_stime]
    tables = [w - f for w, f in zip(total, phases["figures"], strict=True)]
    return phases | {"total": total, "tables": tables, "peak": peak}


def resident(pid: int) -> int:
    """Return the resident memory of a process and its children in bytes."""
    total = 0
    for each in (pid, *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        with contextlib.suppress(OSError):  # the process has ended
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return total


def row(n_runs: int, store: Path, out: Path) -> str:
    result, load = measure(store, out), os.getloadavg()[0]
    images = pq.ParquetFile(out / "images.parquet").metadata
    cells = len(pd.read_parquet(out / "tables.parquet", columns=["metric"])) // len(METRICS)
    seconds = (f"{wall:.1f} ({cpu:.1f})" for wall, cpu in (result[name] for name in PHASES))
    return f"| {n_runs} | {cells} | {images.num_rows} | {' | '.join(seconds)} | {result['peak'] / 1e6:.0f} | {load:.1f} |"


def main() -> None:
    if sys.argv[1:2] == ["--clocked"]:
        return report_clocked(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[1250, 2500, 5000, 10000])
    parser.add_argument("--store", type=Path, help="folder to keep the store in [default: temporary]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tkr") as place:
        store = options.store or Path(place) / "store"
        phases = " | ".join(f"{name}, s (CPU)" for name in PHASES)
        print(f"| runs | cells | images | {phases} | peak MB | load |\n|---{'|---' * (len(PHASES) + 4)}|")
        for n_runs in sorted(options.runs):
            n_made = grow(RunStore(store), n_runs)
            print(row(n_made, store, Path(place) / f"report-{n_runs}"), flush=True)


if __name__ == "__main__":
    main()
