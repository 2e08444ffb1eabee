"""What `tiekd predict` leaves of each image: depth, colours, entropy, points in space, distributions at pixels."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from torch import nn

from tiekd.bins import DepthBins
from tiekd.config import DataConfig, RunConfig
from tiekd.data.image_io import encode_png
from tiekd.errors import UserError
from tiekd.inference.colormap import ColorRange, add_legend, depth_colors, entropy_colors, percentile_range
from tiekd.inference.inputs import InputImage
from tiekd.inference.point_cloud import Intrinsics, encode_ply
from tiekd.inference.predict import ImagePrediction, predict_images
from tiekd.store.files import write_atomically

UINT16_MAX = 2**16 - 1
SUMMARY = "predictions.json"


@dataclass(frozen=True)
class OutputOptions:
    """What a person asks for beside depth, colours and entropy."""

    scale: ColorRange | None = None  # of the colours of all images; None: each image's own
    legend: bool = False
    camera: tuple[float, ...] | None = None  # a focal length, or fx, fy, cx, cy, in px: for points
    pixels: tuple[tuple[int, int], ...] = ()  # x, y: for distributions


@dataclass
class PredictionReport:
    """What became of all images."""

    config: RunConfig
    images: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        data = self.config.data
        return {
            "depth_scale": depth_scale(data),
            "depth_range": [data.min_depth, data.max_depth],
            "flip_tta": self.config.evaluation.flip_tta,
            "images": self.images,
            "failed": self.failed,
        }


def depth_scale(data: DataConfig) -> float:
    """Value of a depth PNG at 1 m: that of the data set's ground truth."""
    return resolve_name(data.spec.layout).depth_scale


def encode_depth(depth: np.ndarray, scale: float) -> tuple[bytes, int]:
    """Depth [H, W] m as a 16-bit PNG of `scale` per metre, and how many pixels had to be clipped to what that can hold.

    0 means that nothing was measured, so that the smallest depth is 1 / scale.
    """
    value = np.rint(depth.astype(np.float64) * scale)
    clipped = int(((value < 1) | (value > UINT16_MAX)).sum())
    return encode_png(value.clip(1, UINT16_MAX).astype(np.uint16)), clipped


def check_options(options: OutputOptions, config: RunConfig) -> None:
    """Raise a `UserError` where the network cannot give what is asked for."""
    if options.pixels and config.student.head != "dpm":
        raise UserError(
            f"--pixel: a distribution over fixed depth bins comes from student.head dpm; this network has {config.student.head}"
        )


def write_predictions(
    network: nn.Module,
    photos: Iterable[InputImage],
    config: RunConfig,
    device: torch.device,
    options: OutputOptions,
    out: Path,
    batch_size: int,
    report: PredictionReport,
) -> Iterable[dict[str, Any]]:
    """Write what is made of each image below `out`; yields a row per image, which `report` collects, too.

    OUT/<name>_depth.png, _colour.png, _entropy.png, .ply and _pixel_X_Y.csv; at last OUT/predictions.json.
    """
    for found in predict_images(network, photos, config, device, report.failed.append, batch_size):
        try:
            files, row = _made(found, config, options)
        except UserError as error:
            report.failed.append(f"{found.photo.name}: {error}")
            continue
        for suffix, content in files.items():
            write_atomically(out / f"{found.photo.name}{suffix}", content)
        report.images.append(row)
        yield row
    write_atomically(out / SUMMARY, (json.dumps(report.document(), indent=2) + "\n").encode())


def _made(found: ImagePrediction, config: RunConfig, options: OutputOptions) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The content of an image's files by how their names end, and its row."""
    depth, name = found.depth, found.photo.name
    scale = options.scale or percentile_range(depth)
    colour = depth_colors(depth, scale)
    depth_png, clipped = encode_depth(depth, depth_scale(config.data))
    files = {
        "_depth.png": depth_png,
        "_colour.png": encode_png(add_legend(colour, scale) if options.legend else colour),
    }
    row: dict[str, Any] = {
        "image": name,
        "size": list(depth.shape),
        "seen_as": list(found.seen),
        "depth_min": float(depth.min()),
        "depth_median": float(np.median(depth)),
        "depth_max": float(depth.max()),
        "clipped": clipped,
        "colours": list(scale),
    }
    if found.entropy is not None:
        files["_entropy.png"] = encode_png(entropy_colors(found.entropy))
        row["entropy_mean"] = float(found.entropy.mean())
    if options.camera:
        image = found.photo.image
        camera = Intrinsics(*options.camera) if len(options.camera) == 4 else Intrinsics.centered(options.camera[0], image)
        files[".ply"] = encode_ply(depth, image, camera)
    if options.pixels:
        row["pixels"] = []
        for pixel in options.pixels:
            dpm = found.distribution(pixel)
            files[f"_pixel_{pixel[0]}_{pixel[1]}.csv"] = _table(dpm, DepthBins.from_config(config.data, config.bins))
            row["pixels"].append(_told(pixel, dpm, DepthBins.from_config(config.data, config.bins)))
    return files, row | {"files": [f"{name}{suffix}" for suffix in files]}


def _table(dpm: np.ndarray, bins: DepthBins) -> bytes:
    """A distribution as CSV: a row per bin."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["low_m", "high_m", "center_m", "probability"])
    edges = bins.edges.tolist()
    table.writerows(zip(edges[:-1], edges[1:], bins.centers.tolist(), dpm.tolist(), strict=True))
    return text.getvalue().encode()


def _told(pixel: tuple[int, int], dpm: np.ndarray, bins: DepthBins) -> dict[str, Any]:
    """A distribution in five numbers; the interval has at least 90 % of it, 5 % at most at either side."""
    centers, edges = bins.centers.numpy(), bins.edges.numpy()
    below = dpm.astype(np.float64).cumsum() / dpm.sum(dtype=np.float64)
    return {
        "x": pixel[0],
        "y": pixel[1],
        "expected": float(dpm @ centers),
        "likeliest": float(centers[dpm.argmax()]),
        "interval_90": [float(edges[np.searchsorted(below, 0.05)]), float(edges[np.searchsorted(below, 0.95) + 1])],
    }
