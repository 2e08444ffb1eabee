"""Measure how much faster 8-bit integers are than float32 in onnxruntime, for whole students and for kinds of convolutions.

    python benchmarks/int8.py [--students lite0 mobilenetv4 fastdepth] [--head regression] [--size 352 704] [--images 20]

One thread. The float32 and the int8 file take turns in one process, and a number is CPU time, the median over the images.
Weights and images are random: they do not change the time. Prints Markdown and writes no files.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from tiekd.config import build
from tiekd.deploy.hub import DepthModel
from tiekd.deploy.onnx import export_onnx, open_session
from tiekd.deploy.profile import count_macs
from tiekd.deploy.quantize import quantize
from tiekd.models.registry import count_parameters

WARM_UP = 3
LAYERS = 4  # equal convolutions with ReLU, one after the other
# kernel, groups of one channel, channels, height, width
KINDS = {
    f"{name}, {channels} channels, {height} x {width} px": (kernel, depthwise, channels, height, width)
    for channels, height, width in ((32, 176, 352), (128, 44, 88), (512, 11, 22))
    for name, kernel, depthwise in (
        ("1x1", 1, False),
        ("3x3", 3, False),
        ("depthwise 3x3", 3, True),
        ("depthwise 5x5", 5, True),
    )
}


def milliseconds(files: tuple[Path, Path], image: np.ndarray, images: int) -> tuple[float, float]:
    """CPU time of one image with each file, ms: they take turns."""
    sessions = [open_session(file, threads=1) for file in files]
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(WARM_UP + images):
        for session, seconds in zip(sessions, taken, strict=True):
            started = time.process_time()
            session.run(None, {"image": image})
            seconds.append(time.process_time() - started)
    exact, coarse = (1000 * statistics.median(seconds[WARM_UP:]) for seconds in taken)
    return exact, coarse


def student_row(name: str, head: str, size: tuple[int, int], images: int, folder: Path) -> str:
    data = {"dataset": "synthetic-outdoor", "frame_size": size, "train_crop": size}
    student = {"name": name, "head": head}
    config = build({"data": data, "student": student, "bins": {"n_bins": 64}, "loss": {"name": "si", "target": "ground_truth"}})
    model = DepthModel(config.document()).eval().requires_grad_(False)
    files = folder / f"{name}.onnx", folder / f"{name}-int8.onnx"
    export_onnx(model, files[0])
    image = np.random.default_rng(0).random((1, 3, *size), dtype=np.float32)
    quantize(files[0], files[1], [image])
    with torch.inference_mode():
        macs = count_macs(model.network, torch.from_numpy(image))
    exact, coarse = milliseconds(files, image, images)
    about = f"{count_parameters(model.network) / 1e6:.2f} M | {macs / 1e9:.2f} G"
    return f"| {name}, {head} | {about} | {exact:.2f} | {coarse:.2f} | {exact / coarse:.2f} |"


def kind_row(name: str, images: int, folder: Path) -> str:
    kernel, depthwise, channels, height, width = KINDS[name]
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "image"
    for layer in range(LAYERS + 1):  # the last one is the head, which is not quantized
        last = layer == LAYERS
        shape = (1, channels, 1, 1) if last else (channels, 1 if depthwise else channels, kernel, kernel)
        weights.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) / channels, f"weight{layer}"))
        settings = {"pads": [0 if last else kernel // 2] * 4, "group": channels if depthwise and not last else 1}
        nodes.append(helper.make_node("Conv", [x, f"weight{layer}"], [f"conv{layer}"], name=f"conv{layer}", **settings))
        nodes.append(helper.make_node("Relu", [f"conv{layer}"], [f"relu{layer}"], name=f"relu{layer}"))
        x = f"relu{layer}"
    ends = [
        helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, number, height, width])
        for end, number in (("image", channels), (x, 1))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, name, ends[:1], ends[1:], weights), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    files = folder / "kind.onnx", folder / "kind-int8.onnx"
    onnx.save(model, files[0])
    image = rng.random((1, channels, height, width), dtype=np.float32)
    quantize(files[0], files[1], [image])
    exact, coarse = milliseconds(files, image, images)
    return f"| {name} | {exact:.2f} | {coarse:.2f} | {exact / coarse:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="*", default=["lite0", "mobilenetv4", "fastdepth"])
    parser.add_argument("--head", choices=("regression", "dpm"), default="regression")
    parser.add_argument("--size", type=int, nargs=2, default=(352, 704), help="height and width of an image, px")
    parser.add_argument("--images", type=int, default=20, help="timed images per file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print("| student | parameters | MACs | float32, ms | int8, ms | ratio |\n|---|---|---|---|---|---|")
        for name in options.students:
            print(student_row(name, options.head, (options.size[0], options.size[1]), options.images, Path(folder)), flush=True)
        print("\n| convolutions | float32, ms | int8, ms | ratio |\n|---|---|---|---|")
        for name in KINDS:
            print(kind_row(name, options.images, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
