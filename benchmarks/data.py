"""Measure what a training frame costs: read with plain Pillow, by tiekd from files, and from packed data. On one thread.

    OMP_NUM_THREADS=1 python benchmarks/data.py [KITTI_ROOT] [--frames 32] [--rounds 5]

The frames with ground truth in KITTI_ROOT's lists are copied until there are enough (rendered ones without KITTI_ROOT), and
get teacher maps of smooth depth with noise. A frame is its image, its ground truth and its teacher map. Each pipeline runs
in its own process, like a loader process, because a pipeline could reuse memory that another has freed. They take turns. A
number is CPU time, the median over the rounds. The files have just been written, so they are in the page cache. Then
the script measures the memory of processes that have each read all frames. Needs Linux.

    plain      crop, flip, conversion to tensors
    augmented  also rotation and color jitter, each of half of the frames
"""

import argparse
import json
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tiekd.config import AugmentConfig, RunConfig, build, override
from tiekd.data import Inputs, open_inputs
from tiekd.data.cache.in_memory import cache_inputs
from tiekd.data.cache.pack_writer import write_packs
from tiekd.data.dataset import DepthDataset
from tiekd.data.image_io import read_rgb, read_uint16
from tiekd.data.layouts.split_list import ListedFrames
from tiekd.data.synthetic import synthesize
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.data.transforms import IMAGE_MEAN, IMAGE_STD, AugmentParams, TrainTransform

VIEW, CROP = (352, 1216), (352, 704)
AUGMENTS = {"plain": AugmentConfig(rotate_p=0, colour_p=0), "augmented": AugmentConfig()}

PILLOW = "Pillow, from files"
PIPELINES = (PILLOW, "ours, from files", "ours, packed")

Item = dict[str, Tensor]
Work = Callable[[int, int], object]  # on a frame (round, index)

# -- the data --------------------------------------------------------------------------------------------------------------


def make_data(root: Path | None, n_frames: int, folder: Path) -> RunConfig:
    from frames import copy_frames, make_maps  # imports Ray, which the reading processes do not need

    if root is None:
        synthesize(folder / "rendered", "kitti", train_frames=4, test_frames=1)
    copy_frames(root or folder / "rendered", folder / "kitti", n_frames)
    data, teacher = {"dataset": "kitti", "root": str(folder / "kitti")}, {"name": "made", "maps": str(folder / "maps")}
    config = build({"data": data, "teacher": teacher, "execution": {"cache_gb": 100}})
    make_maps(config)
    write_packs(config, folder / "packed")
    (folder / "config.json").write_text(json.dumps(config.document()))
    return config


def read_by_us(config: RunConfig, arrangement: str, folder: Path) -> Inputs:
    if arrangement == "packed":
        return open_inputs(override(config, {"execution.packed": str(folder / "packed")}))
    return cache_inputs(open_inputs(config), 0 if arrangement == "from files" else 100)


# -- the pipelines ---------------------------------------------------------------------------------------------------------


def read_with_pillow(frames: ListedFrames, maps: TeacherMaps, index: int, params: AugmentParams) -> Item:
    """Open, convert, crop as in KITTI's benchmark, rotate, convert to float, crop, flip, change colors, convert to tensors."""
    image_file, depth_file = frames.files(index)
    image = Image.open(image_file).convert("RGB")
    depths = {"depth_gt": (Image.open(depth_file), 1 / 256)}
    top, left = image.height - VIEW[0], (image.width - VIEW[1]) // 2
    box = (left, top, left + VIEW[1], top + VIEW[0])
    image, depths = image.crop(box), {name: (depth.crop(box), unit) for name, (depth, unit) in depths.items()}
    depths["depth_teacher"] = Image.open(maps.path(frames.keys[index])), maps.manifest.depth_per_unit
    if params.degrees:
        image = image.rotate(params.degrees, Image.Resampling.BILINEAR)
        depths = {name: (d.rotate(params.degrees, Image.Resampling.NEAREST), unit) for name, (d, unit) in depths.items()}
    arrays = {name: np.asarray(depth, np.float32) * np.float32(unit) for name, (depth, unit) in depths.items()}
    arrays["image"] = np.asarray(image, np.float32)
    arrays = {name: a[params.top : params.top + CROP[0], params.left : params.left + CROP[1]] for name, a in arrays.items()}
    if params.flip:
        arrays = {name: array[:, ::-1] for name, array in arrays.items()}
    if params.color:
        gamma, factor = params.color.gamma.item(), params.color.factor.flatten().numpy()
        arrays["image"] = ((arrays["image"] / 255) ** gamma * factor * 255).clip(0, 255)
    arrays["image"] = (arrays["image"] - np.float32(IMAGE_MEAN)) / np.float32(IMAGE_STD)
    planes = {name: np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None] for name, array in arrays.items()}
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in planes.items()}


def pillow(inputs: Inputs, augment: AugmentConfig) -> Callable[[int, int], Item]:
    """The Pillow pipeline with our random parameters, except that it crops before the flip."""
    transform = TrainTransform(augment, CROP)

    def item(round_: int, index: int) -> Item:
        params = transform.draw(VIEW, torch.Generator().manual_seed(round_ * 10_000 + index))
        return read_with_pillow(inputs.train, inputs.maps, index, params)

    return item


def ours(inputs: Inputs, augment: AugmentConfig) -> Callable[[int, int], Item]:
    dataset = DepthDataset(inputs.train, inputs.maps, TrainTransform(augment, CROP))
    return lambda round_, index: dataset[round_, index]


# -- parts of a pipeline ---------------------------------------------------------------------------------------------------


def files_of(inputs: Inputs, index: int) -> list[Path]:
    return [*inputs.train.files(index), inputs.maps.path(inputs.train.keys[index])]


def inflate(inputs: Inputs, index: int) -> None:
    """Inflate the PNG data with zlib, the work that no decoder can avoid."""
    for path in files_of(inputs, index):
        content, offset, data = path.read_bytes(), 8, []
        while offset < len(content):
            (length,) = struct.unpack(">I", content[offset : offset + 4])
            if content[offset + 4 : offset + 8] == b"IDAT":
                data.append(content[offset + 8 : offset + 8 + length])
            offset += 12 + length
        zlib.decompress(b"".join(data))


def decode_with_pillow(inputs: Inputs, index: int) -> None:
    for path in files_of(inputs, index):
        np.asarray(Image.open(path))


def decode(inputs: Inputs, index: int) -> None:
    image, *depths = files_of(inputs, index)
    read_rgb(image)
    for depth in depths:
        read_uint16(depth, "depth")


PARTS = {"inflate alone (zlib)": inflate, "decode, Pillow": decode_with_pillow, "decode, ours": decode}

# -- reading processes -----------------------------------------------------------------------------------------------------


def work_of(folder: Path, name: str, augment: str) -> tuple[Work, int]:
    """Return the work of a process per frame, and the number of frames."""
    config = build(json.loads((folder / "config.json").read_text()))
    reader, _, arrangement = name.partition(", ")
    if reader == "ours":
        inputs = read_by_us(config, arrangement, folder)
        return ours(inputs, AUGMENTS[augment]), len(inputs.train)
    inputs = open_inputs(config)
    if name in PARTS:
        return lambda _, index: PARTS[name](inputs, index), len(inputs.train)
    return pillow(inputs, AUGMENTS[augment]), len(inputs.train)


class Measured(NamedTuple):
    """The last round of a reading process."""

    cpu: float  # ms per frame
    faults: float  # page faults per frame
    private: float  # MB of private memory


def serve_rounds(folder: Path, name: str, augment: str) -> None:
    """Read one frame, then a round for each number on stdin. Prints `Measured` after each line, also after an empty one."""
    torch.set_num_threads(1)
    work, n_frames = work_of(folder, name, augment)
    work(0, 0)
    cpu = faults = 0.0
    print(json.dumps(Measured(cpu, faults, private_memory())), flush=True)
    for line in sys.stdin:
        if line.strip():
            cpu, faults = read_round(work, int(line), n_frames)
        print(json.dumps(Measured(cpu, faults, private_memory())), flush=True)


def read_round(work: Work, round_: int, n_frames: int) -> tuple[float, float]:
    """Read all frames; return CPU ms and page faults per frame."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
    for index in range(n_frames):
        work(round_, index)
    cpu = (time.process_time() - started) * 1e3
    return cpu / n_frames, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / n_frames


def private_memory() -> float:
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    kb = {words[0].rstrip(":"): int(words[1]) for words in lines}
    return (kb["Private_Clean"] + kb["Private_Dirty"]) / 1e3


class Reader:
    """A process that reads with one pipeline on request."""

    def __init__(self, folder: Path, name: str, augment: str):
        command = [sys.executable, __file__, "--child", str(folder), name, augment]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first = self._answer()

    def _answer(self) -> Measured:
        return Measured(*json.loads(self._process.stdout.readline()))

    def read(self, round_: int | None) -> Measured:
        print("" if round_ is None else round_, file=self._process.stdin, flush=True)
        return self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


# -- the tables ------------------------------------------------------------------------------------------------------------


def take_turns(folder: Path, names: Iterable[str], augment: str, rounds: int) -> dict[str, Measured]:
    """Return the medians over the rounds, without the first, which is a warm-up."""
    with ExitStack() as stack:
        readers = {name: stack.enter_context(Reader(folder, name, augment)) for name in names}
        measured = [{name: reader.read(round_) for name, reader in readers.items()} for round_ in range(rounds + 1)][1:]
    return {name: Measured(*map(statistics.median, zip(*(row[name] for row in measured), strict=True))) for name in readers}


def check_equal(files: Inputs, packed: Inputs) -> None:
    """Check that packed data give the same bits, and Pillow the same values up to rounding without rotation and flip."""
    for augment in AUGMENTS.values():
        a, b = ours(files, augment)(0, 1), ours(packed, augment)(0, 1)
        assert all(torch.equal(a[name], b[name]) for name in a)
    still = AugmentConfig(rotate_p=0, flip_p=0, colour_p=0)
    dataset, params = DepthDataset(files.train, files.maps, TrainTransform(still, VIEW)), AugmentParams(0.0, False, 0, 0, None)
    whole, read = dataset[0, 1], read_with_pillow(files.train, files.maps, 1, params)
    for name, part in read.items():
        torch.testing.assert_close(whole[name][..., : CROP[1]], part, rtol=1e-6, atol=1e-6)


def print_times(folder: Path, rounds: int) -> None:
    for augment in AUGMENTS:
        measured = take_turns(folder, PIPELINES, augment, rounds)
        print(f"\n| {augment} | CPU ms per frame | page faults | frames/s per core | times Pillow's |\n|---|---|---|---|---|")
        for name, (cpu, faults, _) in measured.items():
            print(f"| {name} | {cpu:.2f} | {faults:.0f} | {1e3 / cpu:.0f} | {measured[PILLOW].cpu / cpu:.1f} |", flush=True)
    print("\n| image, ground truth and map | CPU ms per frame |\n|---|---|")
    for name, (cpu, *_) in take_turns(folder, PARTS, "plain", rounds).items():
        print(f"| {name} | {cpu:.2f} |", flush=True)


def print_memory(folder: Path, n_frames: int) -> None:
    print(f"\n| memory of 3 processes, {n_frames} frames | private MB each, beyond a process that read one frame |\n|---|---|")
    for arrangement in ("from files", "in memory", "packed"):
        with ExitStack() as stack:
            readers = [stack.enter_context(Reader(folder, f"ours, {arrangement}", "augmented")) for _ in range(3)]
            for reader, round_ in product(readers, (0, 1)):
                reader.read(round_)
            grown = statistics.median(reader.read(None).private - reader.first.private for reader in readers)
        print(f"| {arrangement} | {grown:.0f} |", flush=True)
    size = sum(path.stat().st_size for path in (folder / "packed").glob("*/pixels.bin")) / 1e6
    print(f"\npacked data: {size:.0f} MB, in the page cache once for all processes")


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return serve_rounds(Path(sys.argv[2]), *sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", metavar="KITTI_ROOT")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="tkd") as place:
        folder = Path(place)
        config = make_data(options.root, options.frames, folder)
        check_equal(read_by_us(config, "from files", folder), read_by_us(config, "packed", folder))
        print_times(folder, options.rounds)
        print_memory(folder, options.frames)


if __name__ == "__main__":
    main()
