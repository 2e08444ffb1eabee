"""Numbers as the page reads them: small, with a stated error, and in scripts, since a page opened as a file may load no others.

Depth maps    one code per kept pixel, equal steps of log depth; 0 where there is no depth
DPMs          of each kept pixel the exact expected depth, and for each bin how many of MASS parts lie in it

Both are compressed by zlib and written in base64 into a call of the page's function `arrived`.
"""

import base64
import json
import math
import zlib
from typing import Any

import numpy as np

STEP = 0.004  # of log depth between two codes, so that a depth is off by at most DEPTH_ERROR of itself
DEPTH_ERROR = math.expm1(STEP / 2)
NEAREST = 1e-3  # m; depth of code 1, and of all that is nearer
MASS = 4095  # parts of a distribution
MAP_PIXELS, DPM_PIXELS = 120_000, 1000  # at most so many of a map's pixels are kept


def map_stride(size: tuple[int, int]) -> int:
    """Every so many-th pixel of every so many-th row of a depth map is kept."""
    return _stride(size, MAP_PIXELS)


def dpm_stride(size: tuple[int, int]) -> int:
    """The same for distributions: a multiple, so that each kept distribution has its pixel in the depth map."""
    stride = map_stride(size)
    return stride * math.ceil(_stride(size, DPM_PIXELS) / stride)


def _stride(size: tuple[int, int], most: int) -> int:
    return max(1, math.ceil(math.sqrt(size[0] * size[1] / most)))


def lattice(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels whose distributions are kept, in px of the frame's view."""
    stride = dpm_stride(size)
    first = lattice_every(size) // 2 * map_stride(size)
    return np.arange(first, size[0], stride), np.arange(first, size[1], stride)


def lattice_every(size: tuple[int, int]) -> int:
    """The lattice's step in kept pixels of the depth map; it begins at half of it, rounded down."""
    return dpm_stride(size) // map_stride(size)


def thin(depth: np.ndarray) -> np.ndarray:
    """The kept pixels of a depth map [H, W]."""
    stride = map_stride(depth.shape)
    return depth[::stride, ::stride]


def thin_sparse(depth: np.ndarray) -> np.ndarray:
    """The kept pixels of a map [H, W] m with holes (0): of each block of pixels the one itself, else the nearest in depth.

    Of LiDAR most would be lost otherwise.
    """
    stride = map_stride(depth.shape)
    padded = np.pad(depth, [(0, -side % stride) for side in depth.shape])
    blocks = padded.reshape(padded.shape[0] // stride, stride, padded.shape[1] // stride, stride)
    nearest = np.where(blocks > 0, blocks, np.inf).min(axis=(1, 3))
    itself = thin(depth)
    return np.where(itself > 0, itself, np.where(np.isfinite(nearest), nearest, 0))


def quantise(depth: np.ndarray) -> np.ndarray:
    """Codes, uint16, of depths in m; 0 for none."""
    with np.errstate(divide="ignore"):
        steps = np.rint(np.log(depth.astype(np.float64) / NEAREST) / STEP)
    return np.where(depth > 0, np.clip(steps + 1, 1, 2**16 - 1), 0).astype(np.uint16)


def restore(codes: np.ndarray) -> np.ndarray:
    """Depths in m of codes, as the page reads them; 0 for none."""
    return np.where(codes > 0, NEAREST * np.exp((codes.astype(np.float64) - 1) * STEP), 0)


def pack_map(codes: np.ndarray, dense: bool) -> bytes:
    """Codes uint16 [h, w] in two planes of bytes; of a dense map each less what its neighbours let expect."""
    return _planes(_folded(codes - _expected(codes.astype(np.int32))) if dense else codes)


def _expected(codes: np.ndarray) -> np.ndarray:
    """Of each code the plane through its neighbours to the left, above and between, within the first two (as in JPEG-LS)."""
    grid = np.pad(codes, ((1, 0), (1, 0)))
    left, above, corner = grid[1:, :-1], grid[:-1, 1:], grid[:-1, :-1]
    return np.clip(left + above - corner, np.minimum(left, above), np.maximum(left, above))


def _folded(differences: np.ndarray) -> np.ndarray:
    """0, -1, 1, -2, 2 ... as 0, 1, 2, 3, 4 ..."""
    return np.where(differences < 0, -2 * differences - 1, 2 * differences)


def parts_of(dpm: np.ndarray) -> np.ndarray:
    """How many of MASS parts lie in each bin: dpm [P, K], sums to 1 over K, to uint16 [P, K], sums to MASS.

    The cumulative sums are rounded, so that the expected depth moves by at most `dpm_error`.
    """
    steps = np.rint(np.cumsum(dpm.astype(np.float64), axis=1) * MASS)
    steps[:, -1] = MASS
    return np.diff(steps, axis=1, prepend=0).clip(0).astype(np.uint16)


def dpm_error(centers: np.ndarray) -> float:
    """m; how far the expected depth of a kept distribution over bins [K] m may lie from the exact one."""
    return float(centers[-1] - centers[0]) / (2 * MASS)


def pack_dpm(depth: np.ndarray, parts: np.ndarray) -> bytes:
    """Expected depths [P] m as float32, then `parts` [P, K] in two planes, point after point."""
    return zlib.compress(depth.astype("<f4").tobytes() + zlib.decompress(_planes(parts)), 9)


def _planes(values: np.ndarray) -> bytes:
    """Numbers below 2^16 as all their low bytes, then all their high ones."""
    low, high = (values & 255).astype(np.uint8), (values >> 8).astype(np.uint8)
    return zlib.compress(low.tobytes() + high.tobytes(), 9)


def script(name: str, content: bytes, **about: Any) -> bytes:
    """A script that hands content to the page under a name, with what it takes to read it."""
    words = (json.dumps(name), json.dumps(about, separators=(",", ":")), json.dumps(base64.b64encode(content).decode()))
    return f"arrived({', '.join(words)});\n".encode()
