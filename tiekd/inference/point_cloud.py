"""Depth maps as coloured points in space, in binary PLY files."""

from typing import NamedTuple

import numpy as np

_POINT = np.dtype([(axis, "<f4") for axis in "xyz"] + [(colour, "u1") for colour in ("red", "green", "blue")])
_TYPES = {"<f4": "float", "|u1": "uchar"}


class Intrinsics(NamedTuple):
    """A pinhole camera, in pixels of the image; the centre of the top left pixel is (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def centered(cls, focal: float, image: np.ndarray) -> "Intrinsics":
        """Square pixels, and an optical axis through the middle of the image [H, W, ...]."""
        height, width = image.shape[:2]
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2)


def backproject(depth: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """Depth [H, W] m along the optical axis to points [H, W, 3] m: x to the right, y down, z forward."""
    rows, columns = np.indices(depth.shape)
    x, y = (columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
    return np.stack([x * depth, y * depth, depth], axis=-1).astype(np.float32)


def encode_ply(depth: np.ndarray, image: np.ndarray, camera: Intrinsics) -> bytes:
    """A point for each pixel, row by row. depth [H, W] m, image uint8 [H, W, 3] RGB."""
    cloud = np.empty(depth.size, _POINT)
    for field, values in zip("xyz", backproject(depth, camera).reshape(-1, 3).T, strict=True):
        cloud[field] = values
    for field, values in zip(_POINT.names[3:], image.reshape(-1, 3).T, strict=True):
        cloud[field] = values
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment metres; x to the right, y down, z forward",
        f"element vertex {depth.size}",
        *(f"property {_TYPES[_POINT[field].str]} {field}" for field in _POINT.names),
        "end_header",
    ]
    return "\n".join(header).encode() + b"\n" + cloud.tobytes()
