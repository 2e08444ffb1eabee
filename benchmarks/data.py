"""What a training frame costs: read with Pillow as one would write it down, read by us, read from packed data. On one thread.

    OMP_NUM_THREADS=1 python benchmarks/data.py [KITTI_ROOT] [--frames 32] [--rounds 5]

The labelled frames of KITTI_ROOT's lists are copied until there are enough (rendered ones without KITTI_ROOT), and get teacher
maps of smooth depth with noise. A frame is its image, its ground truth and its teacher map; the pipelines take turns, and a
figure is CPU time, the median of the rounds. Files have just been written, and so lie in the page cache. Then the memory of
processes that have all read all frames. Needs Linux.

    plain      crop, flip, conversion to tensors
    augmented  rotation, too, of half of the frames, and other colours of half of them
"""

import argparse
import json
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from frames import copy_frames, make_maps
from PIL import Image
from torch import Tensor

from tiekd.config import AugmentConfig, RunConfig, build, override
from tiekd.data import Inputs, open_inputs
from tiekd.data.dataset import DepthDataset
from tiekd.data.lists import ListedFrames
from tiekd.data.memory import remembered
from tiekd.data.packing import pack
from tiekd.data.synthetic import synthesize
from tiekd.data.transforms import IMAGE_MEAN, IMAGE_STD, Draw, TrainTransform
from tiekd.images import read_rgb, read_uint16
from tiekd.teachers.maps import TeacherMaps

VIEW, CROP = (352, 1216), (352, 704)
PLAIN = AugmentConfig(rotate_p=0, colour_p=0)
AUGMENTED = AugmentConfig()

Item = dict[str, Tensor]

# -- the data --------------------------------------------------------------------------------------------------------------


def make_data(root: Path | None, n_frames: int, folder: Path) -> RunConfig:
    if root is None:
        synthesize(folder / "rendered", "kitti", train_frames=4, test_frames=1)
    copy_frames(root or folder / "rendered", folder / "kitti", n_frames)
    data, teacher = {"dataset": "kitti", "root": str(folder / "kitti")}, {"name": "made", "maps": str(folder / "maps")}
    config = build({"data": data, "teacher": teacher, "execution": {"cache_gb": 100}})
    make_maps(config)
    pack(config, folder / "packed", quiet=True)
    return config


# -- the pipelines ---------------------------------------------------------------------------------------------------------


def read_with_pillow(frames: ListedFrames, maps: TeacherMaps, index: int, draw: Draw) -> Item:
    """Open, convert, crop as KITTI's benchmark does, rotate, to floats, crop, flip, colour, to tensors."""
    image_file, depth_file = frames.files(index)
    image = Image.open(image_file).convert("RGB")
    depths = {"depth_gt": (Image.open(depth_file), 1 / 256)}
    top, left = image.height - VIEW[0], (image.width - VIEW[1]) // 2
    box = (left, top, left + VIEW[1], top + VIEW[0])
    image, depths = image.crop(box), {name: (depth.crop(box), unit) for name, (depth, unit) in depths.items()}
    depths["depth_teacher"] = Image.open(maps.path(frames.keys[index])), maps.manifest.depth_per_unit
    if draw.degrees:
        image = image.rotate(draw.degrees, Image.Resampling.BILINEAR)
        depths = {name: (d.rotate(draw.degrees, Image.Resampling.NEAREST), unit) for name, (d, unit) in depths.items()}
    arrays = {name: np.asarray(depth, np.float32) * np.float32(unit) for name, (depth, unit) in depths.items()}
    arrays["image"] = np.asarray(image, np.float32)
    arrays = {name: a[draw.top : draw.top + CROP[0], draw.left : draw.left + CROP[1]] for name, a in arrays.items()}
    if draw.flip:
        arrays = {name: array[:, ::-1] for name, array in arrays.items()}
    if draw.colour:
        gamma, factor = draw.colour.gamma.item(), draw.colour.factor.flatten().numpy()
        arrays["image"] = ((arrays["image"] / 255) ** gamma * factor * 255).clip(0, 255)
    arrays["image"] = (arrays["image"] - np.float32(IMAGE_MEAN)) / np.float32(IMAGE_STD)
    planes = {name: np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None] for name, array in arrays.items()}
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in planes.items()}


def pillow(inputs: Inputs, augment: AugmentConfig) -> Callable[[int, int], Item]:
    """With the draws that ours makes, too; but a crop is taken before the flip."""
    transform = TrainTransform(augment, CROP)

    def item(round_: int, index: int) -> Item:
        draw = transform.draw(VIEW, torch.Generator().manual_seed(round_ * 10_000 + index))
        return read_with_pillow(inputs.train, inputs.maps, index, draw)

    return item


def ours(inputs: Inputs, augment: AugmentConfig) -> Callable[[int, int], Item]:
    dataset = DepthDataset(inputs.train, inputs.maps, augment, CROP)
    return lambda round_, index: dataset[round_, index]


# -- parts of it -----------------------------------------------------------------------------------------------------------


def files_of(inputs: Inputs, index: int) -> list[Path]:
    return [*inputs.train.files(index), inputs.maps.path(inputs.train.keys[index])]


def inflate(inputs: Inputs, index: int) -> None:
    """What every PNG decoder must do, by Python's zlib."""
    for path in files_of(inputs, index):
        content, place, data = path.read_bytes(), 8, []
        while place < len(content):
            (length,) = struct.unpack(">I", content[place : place + 4])
            if content[place + 4 : place + 8] == b"IDAT":
                data.append(content[place + 8 : place + 8 + length])
            place += 12 + length
        zlib.decompress(b"".join(data))


def decode_with_pillow(inputs: Inputs, index: int) -> None:
    for path in files_of(inputs, index):
        np.asarray(Image.open(path))


def decode(inputs: Inputs, index: int) -> None:
    image, *depths = files_of(inputs, index)
    read_rgb(image)
    for depth in depths:
        read_uint16(depth, "depth")


# -- time ------------------------------------------------------------------------------------------------------------------


def take_turns(works: dict[str, Callable[[int, int], object]], n_frames: int, rounds: int) -> dict[str, float]:
    """CPU ms per frame of each, the median of the rounds; the first round, which warms up, does not count."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(rounds + 1):
        for name, work in works.items():
            started = time.process_time()
            for index in range(n_frames):
                work(round_, index)
            spent[name].append((time.process_time() - started) / n_frames * 1e3)
    return {name: statistics.median(times[1:]) for name, times in spent.items()}


def check_equal(files: Inputs, packed: Inputs) -> None:
    """Packed data give the same bits; Pillow the same image to rounding where nothing is turned or flipped."""
    for augment in (PLAIN, AUGMENTED):
        a, b = ours(files, augment)(0, 1), ours(packed, augment)(0, 1)
        assert all(torch.equal(a[name], b[name]) for name in a)
    still = AugmentConfig(rotate_p=0, flip_p=0, colour_p=0)
    dataset, draw = DepthDataset(files.train, files.maps, still, VIEW), Draw(0.0, False, 0, 0, None)
    whole, read = dataset[0, 1], read_with_pillow(files.train, files.maps, 1, draw)
    for name, part in read.items():
        torch.testing.assert_close(whole[name][..., : CROP[1]], part, rtol=1e-6, atol=1e-6)


def print_times(files: Inputs, packed: Inputs, rounds: int) -> None:
    n_frames = len(files.train)
    for name, augment in (("plain", PLAIN), ("augmented", AUGMENTED)):
        works = {"Pillow, from files": pillow(files, augment), "ours, from files": ours(files, augment)}
        times = take_turns(works | {"ours, packed": ours(packed, augment)}, n_frames, rounds)
        base = times["Pillow, from files"]
        print(f"\n| {name} | CPU ms per frame | frames/s per core | times Pillow's |\n|---|---|---|---|")
        print("\n".join(f"| {what} | {ms:.2f} | {1e3 / ms:.0f} | {base / ms:.1f} |" for what, ms in times.items()), flush=True)
    parts = {"inflate alone (zlib)": inflate, "decode, Pillow": decode_with_pillow, "decode, ours": decode}
    times = take_turns({what: lambda _, index, part=part: part(files, index) for what, part in parts.items()}, n_frames, rounds)
    print("\n| image, ground truth and map | CPU ms per frame |\n|---|---|")
    print("\n".join(f"| {what} | {ms:.2f} |" for what, ms in times.items()), flush=True)


# -- memory ----------------------------------------------------------------------------------------------------------------

ARRANGEMENTS = ("from files", "kept in memory", "packed")


def inputs_of(config: RunConfig, arrangement: str, folder: Path) -> Inputs:
    if arrangement == "packed":
        return remembered(override(config, {"execution.packed": str(folder / "packed")}))
    return remembered(override(config, {"execution.cache_gb": 0 if arrangement == "from files" else 100}))


def memory() -> dict[str, float]:
    """MB of this process: private, and with its share of what it has in common with others."""
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    kb = {words[0].rstrip(":"): int(words[1]) for words in lines}
    return {"private": (kb["Private_Clean"] + kb["Private_Dirty"]) / 1e3, "share": kb["Pss"] / 1e3}


def read_all(folder: Path, arrangement: str) -> None:
    """Read two epochs, as a process of its own; tells its memory before and after, and ends when its input does."""
    torch.set_num_threads(1)
    config = build(json.loads((folder / "config.json").read_text()))
    inputs = inputs_of(config, arrangement, folder)
    item = ours(inputs, AUGMENTED)
    item(0, 0)
    before = memory()
    for round_ in (0, 1):
        for index in range(len(inputs.train)):
            item(round_, index)
    print("read", flush=True)
    sys.stdin.readline()  # until all have read
    print(json.dumps([before, memory()]), flush=True)
    sys.stdin.readline()


def measure_memory(folder: Path, arrangement: str, n_processes: int) -> list[list[dict[str, float]]]:
    words = [sys.executable, __file__, "--child", str(folder), arrangement]
    children = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(n_processes)]
    for child in children:
        assert child.stdout.readline() == "read\n"
    told = []
    for child in children:
        print(file=child.stdin, flush=True)
        told.append(json.loads(child.stdout.readline()))
    for child in children:
        child.communicate("\n")
    return told


def print_memory(config: RunConfig, folder: Path, n_frames: int) -> None:
    (folder / "config.json").write_text(json.dumps(config.document()))
    print(f"\n| memory of 3 processes, {n_frames} frames | private MB each, beyond a process that read one frame |\n|---|---|")
    for arrangement in ARRANGEMENTS:
        told = measure_memory(folder, arrangement, 3)
        grown = statistics.median(after["private"] - before["private"] for before, after in told)
        print(f"| {arrangement} | {grown:.0f} |", flush=True)
    size = sum(path.stat().st_size for path in (folder / "packed").glob("*/pixels.bin")) / 1e6
    print(f"\npacked data: {size:.0f} MB, in the page cache once for all processes")


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return read_all(Path(sys.argv[2]), sys.argv[3])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", metavar="KITTI_ROOT")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="tkd") as place:
        folder = Path(place)
        config = make_data(options.root, options.frames, folder)
        files, packed = open_inputs(config), inputs_of(config, "packed", folder)
        check_equal(files, packed)
        print_times(files, packed, options.rounds)
        print_memory(config, folder, options.frames)


if __name__ == "__main__":
    main()
