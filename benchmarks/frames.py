"""Measure the cost of loading a training frame from disk, page cache, memory and Ray's object store. One thread.

    python benchmarks/frames.py KITTI_ROOT [--frames 200]

The labeled frames in KITTI_ROOT's lists are copied to a temporary folder until there are enough, and get teacher maps of
smooth depth. Then the same is measured for the embedded data, which are rendered instead of read.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

import ablations  # noqa: F401 - sets Ray's environment before Ray is imported
from tiekd.config import RunConfig, build, override
from tiekd.data import Inputs, open_frames, open_inputs
from tiekd.data.cache.in_memory import cache_inputs
from tiekd.data.dataset import DepthDataset
from tiekd.data.teacher_maps import MapWriter
from tiekd.data.transforms import TrainTransform
from tiekd.distill.loop import train_step
from tiekd.distill.optim import apply_schedule, build_optimizer
from tiekd.distill.runtime import LocalRuntime
from tiekd.losses import build_loss
from tiekd.models.registry import build_network
from tiekd.store.run_store import RunStore


def copy_frames(source: Path, root: Path, n_frames: int) -> None:
    """Write a KITTI folder of copies; its test list is the first row."""
    lists = [source / f"kitti_eigen_{split}.txt" for split in ("train", "test")]
    rows = [row for path in lists for line in path.read_text().splitlines() if (row := line.split()) and row[1] != "None"]
    lines = []
    for number in range(n_frames):
        image, depth, focal = rows[number % len(rows)]
        copies = f"copies/drive/{number:010d}.png"
        for folder, name in (("input", image), ("gt_depth", depth)):
            (root / folder / copies).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / folder / name, root / folder / copies)
        lines.append(f"{copies} {copies} {focal}\n")
    (root / lists[0].name).write_text("".join(lines))
    (root / lists[1].name).write_text(lines[0])


def make_maps(config: RunConfig) -> None:
    """Write depth that increases from the bottom to the top of the view, with noise like that of a network."""
    frames, rng = open_frames(config.data, "train"), np.random.default_rng(0)
    with MapWriter(config.teacher.maps, config.data.max_depth, {}) as writer:
        for key in frames.keys:
            height, width = frames.size(0)
            writer.write(key, np.linspace(70, 4, height)[:, None] + rng.normal(0, 0.02, (height, width)))


def load_all(inputs: Inputs, size: tuple[int, int]) -> int:
    """Load every training frame with its map; return their number."""
    for index, key in enumerate(inputs.train.keys):
        inputs.train.load(index)
        inputs.maps.load_stored(key, size).to_meters()
    return len(inputs.train)


MEMORY = "copy from memory"  # the row that the others are compared with

Cost = tuple[float, float]  # ms per frame: wall time, CPU time of this process


def cost(work: Callable[[], int]) -> Cost:
    """Measure `work`, which returns the number of frames it processed."""
    started, cpu = time.perf_counter(), time.process_time()
    count = work()
    return (time.perf_counter() - started) / count * 1e3, (time.process_time() - cpu) / count * 1e3


def forget_files(folder: Path) -> None:
    """Drop the files of a folder from the page cache."""
    os.sync()
    for path in filter(Path.is_file, folder.rglob("*")):
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def from_object_store(inputs: Inputs, size: tuple[int, int]) -> tuple[Cost, Cost]:
    """Measure putting decoded frames into Ray's object store, and getting them with a copy of each array."""
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=1)
    frames = [inputs.train.load(index) for index in range(len(inputs.train))]
    decoded = [(f.image, f.depth_gt, inputs.maps.load(k, size)) for f, k in zip(frames, inputs.train.keys, strict=True)]
    kept: list = []

    def put() -> int:
        kept.extend(map(ray.put, decoded))
        return len(kept)

    def get() -> int:
        return sum(bool([array.copy() for array in ray.get(item)]) for item in kept)

    times = cost(put), cost(get)
    ray.shutdown()
    return times


def step_time(config: RunConfig, inputs: Inputs, folder: Path) -> tuple[Cost, Cost]:
    """Measure augmentation, and a training step at the config's batch size."""
    runtime = LocalRuntime(config.execution, RunStore(folder / "store").run("none"))
    dataset = DepthDataset(inputs.train, inputs.maps, TrainTransform(config.augment, config.data.train_crop), config.seed)
    count = min(8, len(inputs.train))
    augment = cost(lambda: sum(bool(dataset[1, index]) for index in range(count)))
    network, loss = build_network(config), build_loss(config)
    optimizer, batch = build_optimizer(network, config.optim), next(iter(DataLoader(dataset, config.optim.batch_size)))
    apply_schedule(optimizer, 0, 10, config.optim)
    train_step(network, loss, batch, optimizer, config.optim, runtime)

    def step() -> int:
        train_step(network, loss, batch, optimizer, config.optim, runtime)
        return config.optim.batch_size

    return augment, cost(step)


def epochs_with_loaders(config: RunConfig, n_frames: int, kept: bool) -> list[float]:
    """Measure epochs over all but one frame in s: three of a first run, two of a second, with two loader processes each."""
    inputs = cache_inputs(open_inputs(override(config, {"data.train_frames": n_frames - 1})), 100 if kept else 0)
    seconds = []
    for run in range(2):
        dataset = DepthDataset(inputs.train, inputs.maps, TrainTransform(config.augment, config.data.train_crop), run)
        loader = DataLoader(dataset, 4, num_workers=2, persistent_workers=True)
        for _ in range(3 - run):
            started = time.perf_counter()
            for _ in loader:
                pass
            seconds.append(time.perf_counter() - started)
    return seconds


def report(name: str, config: RunConfig, folder: Path, on_disk: bool) -> None:
    plain, kept = open_inputs(config), cache_inputs(open_inputs(config), 100)
    size = plain.train.size(0)
    rows = {}
    if on_disk:
        forget_files(folder)
        rows["decode, from disk"] = cost(lambda: load_all(plain, size))
    rows["decode, from page cache" if on_disk else "render, and decode the map"] = cost(lambda: load_all(plain, size))
    load_all(kept, size)
    rows[MEMORY] = cost(lambda: load_all(kept, size))
    rows["put into Ray's object store"], rows["get from Ray's object store, with a copy"] = from_object_store(plain, size)
    rows["load from memory, augment"], rows[f"train {config.student.name}"] = step_time(config, kept, folder)
    print(f"\n{name}, {len(plain.train)} frames, view {size[0]}x{size[1]}\n")
    print(f"| | ms per frame | CPU ms | CPU, relative to a {MEMORY} |\n|---|---|---|---|")
    print("\n".join(f"| {what} | {wall:.2f} | {cpu:.2f} | {cpu / rows[MEMORY][1]:.1f} |" for what, (wall, cpu) in rows.items()))
    for kept_in_memory in (False, True):
        seconds = ", ".join(f"{s:.1f}" for s in epochs_with_loaders(config, len(plain.train), kept_in_memory))
        memory = "kept in memory" if kept_in_memory else "not kept"
        print(f"\ntwo loader processes, frames {memory}: epochs take {seconds} s (the second run starts with the fourth)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--frames", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="tkf", dir="/tmp") as place:
        folder = Path(place)
        (folder / "store").mkdir()
        copy_frames(options.root, folder / "kitti", options.frames)
        base = {"teacher": {"name": "made", "maps": str(folder / "maps")}, "optim": {"batch_size": 1}}
        kitti = build(base | {"data": {"dataset": "kitti", "root": str(folder / "kitti")}})
        make_maps(kitti)
        report("KITTI", kitti, folder, on_disk=True)
        embedded = {"data": {"dataset": "synthetic-outdoor"}, "student": {"name": "tiny"}}
        rendered = build(base | embedded | {"teacher": {"name": "made", "maps": str(folder / "rendered")}})
        make_maps(rendered)
        report("embedded", rendered, folder, on_disk=False)


if __name__ == "__main__":
    main()
