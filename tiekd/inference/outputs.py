"""Output files of `tiekd predict`: depth, colors, entropy, point clouds, distributions at pixels."""

import csv
import io
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any

import numpy as np

from tiekd.bins import DepthBins
from tiekd.config import DataConfig, RunConfig
from tiekd.data.image_io import encode_png
from tiekd.errors import UserError
from tiekd.inference.colormap import ColorRange, add_legend, depth_colors, entropy_colors, percentile_range
from tiekd.inference.point_cloud import Intrinsics, encode_ply
from tiekd.inference.predict_images import ImagePrediction
from tiekd.store.files import json_text

UINT16_MAX = 2**16 - 1
SUMMARY = "predictions.json"


@dataclass(frozen=True)
class OutputOptions:
    """Optional outputs, beside depth, colors and entropy."""

    color_range: ColorRange | None = None  # m, of all images; None: each image's own
    legend: bool = False
    camera: tuple[float, ...] | None = None  # focal length, or fx, fy, cx, cy, in px; writes a point cloud
    pixels: tuple[tuple[int, int], ...] = ()  # (x, y); writes their distributions


@dataclass
class PredictionReport:
    """The content of predictions.json."""

    config: RunConfig
    images: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        data = self.config.data
        return {
            "depth_scale": depth_scale(data),
            "depth_range": list(data.depth_range),
            "flip_tta": self.config.evaluation.flip_tta,
            "images": self.images,
            "failed": self.failed,
        }

    def to_json(self) -> bytes:
        return (json_text(self.document(), indent=2) + "\n").encode()


def depth_scale(data: DataConfig) -> float:
    """Value of a depth PNG at 1 m: that of the data set's ground truth."""
    if data.spec.layout is None:
        return 1000.0 if data.max_depth * 1000 < 2**16 else 256.0
    return resolve_name(str(data.spec.layout)).depth_scale


def encode_depth(depth: np.ndarray, scale: float) -> tuple[bytes, int]:
    """Encode depth [H, W] m as a 16-bit PNG with `scale` per metre; returns the number of clipped pixels, too.

    The value 0 means "no measurement", so the smallest depth is 1 / scale.
    """
    value = np.rint(depth.astype(np.float64) * scale)
    n_clipped = int(((value < 1) | (value > UINT16_MAX)).sum())
    return encode_png(value.clip(1, UINT16_MAX).astype(np.uint16)), n_clipped


def check_options(options: OutputOptions, config: RunConfig) -> None:
    """Raise UserError if the network has no distributions, but some are to be written."""
    if options.pixels and config.student.head != "dpm":
        raise UserError(
            f"--pixel: a distribution over fixed depth bins comes from student.head dpm; this network has {config.student.head}"
        )


def encode_outputs(
    prediction: ImagePrediction, config: RunConfig, options: OutputOptions
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The content of an image's output files by the suffix of their names, and its row of predictions.json."""
    depth, name = prediction.depth, prediction.image.name
    color_range = options.color_range or percentile_range(depth)
    colors = depth_colors(depth, color_range)
    depth_png, n_clipped = encode_depth(depth, depth_scale(config.data))
    files = {"_depth.png": depth_png, "_colour.png": encode_png(add_legend(colors, color_range) if options.legend else colors)}
    row: dict[str, Any] = {
        "image": name,
        "size": list(depth.shape),
        "seen_as": list(prediction.network_size),
        "depth_min": float(depth.min()),
        "depth_median": float(np.median(depth)),
        "depth_max": float(depth.max()),
        "clipped": n_clipped,
        "colours": list(color_range),
    }
    if prediction.entropy is not None:
        files["_entropy.png"] = encode_png(entropy_colors(prediction.entropy))
        row["entropy_mean"] = float(prediction.entropy.mean())
    if options.camera:
        files[".ply"] = encode_ply(depth, prediction.image.pixels, Intrinsics.from_numbers(options.camera, depth))
    if options.pixels:
        bins, row["pixels"] = DepthBins(config.bins.n_bins, *config.data.depth_range, config.bins.spacing), []
        for x, y in options.pixels:
            dpm = prediction.distribution(x, y)
            files[f"_pixel_{x}_{y}.csv"] = _encode_distribution(dpm, bins)
            row["pixels"].append({"x": x, "y": y, **_summarize_distribution(dpm, bins)})
    return files, row | {"files": [f"{name}{suffix}" for suffix in files]}


def _encode_distribution(dpm: np.ndarray, bins: DepthBins) -> bytes:
    """CSV with one row per bin."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["low_m", "high_m", "center_m", "probability"])
    edges = bins.edges.tolist()
    table.writerows(zip(edges[:-1], edges[1:], bins.centers.tolist(), dpm.tolist(), strict=True))
    return text.getvalue().encode()


def _summarize_distribution(dpm: np.ndarray, bins: DepthBins) -> dict[str, Any]:
    """Mean, mode and a central interval in m; the interval holds at least 90 %, with at most 5 % on either side."""
    centers, edges = bins.centers.numpy(), bins.edges.numpy()
    cumulative = dpm.astype(np.float64).cumsum() / dpm.sum(dtype=np.float64)
    return {
        "expected": float(dpm @ centers),
        "likeliest": float(centers[dpm.argmax()]),
        "interval_90": [float(edges[np.searchsorted(cumulative, 0.05)]), float(edges[np.searchsorted(cumulative, 0.95) + 1])],
    }
