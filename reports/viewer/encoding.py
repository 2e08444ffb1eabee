"""Depth maps and distributions as small data files, with a known error.

Depth maps      one uint16 code per stored pixel, with equal steps of log depth; 0 without a depth
distributions   per stored pixel the exact expected depth and, per bin, the probability in steps of 1 / DPM_LEVELS

Both are compressed with zlib, encoded in base64 and written as a call of the page's function `arrived`: a page opened as a file
can load scripts, but no other files.
"""

import base64
import json
import math
import zlib
from typing import Any

import numpy as np

LOG_STEP = 0.004  # between two codes, in log depth; the relative error of a depth is at most DEPTH_ERROR
DEPTH_ERROR = math.expm1(LOG_STEP / 2)
MIN_CODED_DEPTH = 1e-3  # m; the depth of code 1, also used for smaller depths
DPM_LEVELS = 4095
MAX_MAP_PIXELS, MAX_DPM_PIXELS = 120_000, 1000  # stored per frame


def map_stride(size: tuple[int, int]) -> int:
    """Return the stride, in px along both axes, at which a depth map of `size` (height, width) is stored."""
    return _stride(size, MAX_MAP_PIXELS)


def dpm_stride(size: tuple[int, int]) -> int:
    """Return the stride for distributions: a multiple of `map_stride`, so that each has its pixel in the depth map."""
    stride = map_stride(size)
    return stride * math.ceil(_stride(size, MAX_DPM_PIXELS) / stride)


def _stride(size: tuple[int, int], max_pixels: int) -> int:
    return max(1, math.ceil(math.sqrt(size[0] * size[1] / max_pixels)))


def dpm_grid(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and the columns, in px of the frame, of the pixels whose distributions are stored."""
    stride = dpm_stride(size)
    first = dpm_grid_step(size) // 2 * map_stride(size)
    return np.arange(first, size[0], stride), np.arange(first, size[1], stride)


def dpm_grid_step(size: tuple[int, int]) -> int:
    """Return the stride of `dpm_grid` in stored pixels of the depth map; the grid starts at half of it, rounded down."""
    return dpm_stride(size) // map_stride(size)


def subsample(depth: np.ndarray) -> np.ndarray:
    """Keep every `map_stride`-th row and column of a depth map [H, W]."""
    stride = map_stride(_size(depth))
    return depth[::stride, ::stride]


def subsample_sparse(depth: np.ndarray) -> np.ndarray:
    """Subsample a depth map [H, W] in m with holes (0), such as projected LiDAR, without losing most measurements.

    Each block of pixels is represented by its first pixel if that was measured, else by the smallest depth in the block.
    """
    stride = map_stride(_size(depth))
    padded = np.pad(depth, [(0, -side % stride) for side in depth.shape])
    blocks = padded.reshape(padded.shape[0] // stride, stride, padded.shape[1] // stride, stride)
    nearest = np.where(blocks > 0, blocks, np.inf).min(axis=(1, 3))
    first = subsample(depth)
    return np.where(first > 0, first, np.where(np.isfinite(nearest), nearest, 0))


def _size(depth: np.ndarray) -> tuple[int, int]:
    height, width = depth.shape
    return height, width


def quantize_depth(depth: np.ndarray) -> np.ndarray:
    """Convert depths in m to uint16 codes; 0 without a depth."""
    with np.errstate(divide="ignore"):
        steps = np.rint(np.log(depth.astype(np.float64) / MIN_CODED_DEPTH) / LOG_STEP)
    return np.where(depth > 0, np.clip(steps + 1, 1, 2**16 - 1), 0).astype(np.uint16)


def dequantize_depth(codes: np.ndarray) -> np.ndarray:
    """Convert codes to depths in m, as the page does; 0 without a depth."""
    return np.where(codes > 0, MIN_CODED_DEPTH * np.exp((codes.astype(np.float64) - 1) * LOG_STEP), 0)


def compress_map(codes: np.ndarray, dense: bool) -> bytes:
    """Compress uint16 codes [h, w]. In dense maps each code is stored as its difference from a prediction."""
    return _compress(_zigzag(codes - _predict(codes.astype(np.int32))) if dense else codes)


def _predict(codes: np.ndarray) -> np.ndarray:
    """Predict each code by the plane through its left, upper and upper left neighbors, clipped to the first two (JPEG-LS)."""
    grid = np.pad(codes, ((1, 0), (1, 0)))
    left, above, corner = grid[1:, :-1], grid[:-1, 1:], grid[:-1, :-1]
    return np.clip(left + above - corner, np.minimum(left, above), np.maximum(left, above))


def _zigzag(differences: np.ndarray) -> np.ndarray:
    """Map 0, -1, 1, -2, 2, ... to 0, 1, 2, 3, 4, ..."""
    return np.where(differences < 0, -2 * differences - 1, 2 * differences)


def quantize_dpm(dpm: np.ndarray) -> np.ndarray:
    """Round probabilities [P, K], which sum to 1 over K, to uint16 [P, K], which sum to DPM_LEVELS.

    The cumulative sums are rounded, which shifts the expected depth by at most `dpm_error`.
    """
    steps = np.rint(np.cumsum(dpm.astype(np.float64), axis=1) * DPM_LEVELS)
    steps[:, -1] = DPM_LEVELS
    return np.diff(steps, axis=1, prepend=0).clip(0).astype(np.uint16)


def dpm_error(centers: np.ndarray) -> float:
    """Return the largest error in m of the expected depth of a quantized distribution over bins with `centers` [K] in m."""
    return float(centers[-1] - centers[0]) / (2 * DPM_LEVELS)


def compress_dpm(depth: np.ndarray, levels: np.ndarray) -> bytes:
    """Compress expected depths [P] in m (as float32) and `levels` [P, K] from `quantize_dpm`."""
    return zlib.compress(depth.astype("<f4").tobytes() + _byte_planes(levels), 9)


def _compress(values: np.ndarray) -> bytes:
    return zlib.compress(_byte_planes(values), 9)


def _byte_planes(values: np.ndarray) -> bytes:
    """Lay out numbers below 2^16 as all low bytes followed by all high bytes, which compresses better."""
    return (values & 255).astype(np.uint8).tobytes() + (values >> 8).astype(np.uint8).tobytes()


def data_script(name: str, content: bytes, **header: Any) -> bytes:
    """Return a script that passes `content` to the page under `name`, with the `header` needed to decode it."""
    arguments = (json.dumps(name), json.dumps(header, separators=(",", ":")), json.dumps(base64.b64encode(content).decode()))
    return f"arrived({', '.join(arguments)});\n".encode()
