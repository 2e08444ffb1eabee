"""Colored point clouds of depth maps, as binary PLY files."""

from typing import NamedTuple, Self

import numpy as np

_POSITION, _COLOR = ("x", "y", "z"), ("red", "green", "blue")
_POINT = np.dtype([(axis, "<f4") for axis in _POSITION] + [(color, "u1") for color in _COLOR])


class Intrinsics(NamedTuple):
    """A pinhole camera in px; the center of the top left pixel is (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def from_numbers(cls, numbers: tuple[float, ...], image: np.ndarray) -> Self:
        """Build a camera from fx, fy, cx, cy, or from one focal length.

        One focal length means square pixels and an optical axis through the middle of the image [H, W, ...].
        """
        if len(numbers) == 4:
            return cls(*numbers)
        (focal,) = numbers
        height, width = image.shape[:2]
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2)


def backproject(depth: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """Depth [H, W] m along the optical axis to points [H, W, 3] m: x to the right, y down, z forward."""
    rows, columns = np.indices(depth.shape)
    x, y = (columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
    return np.stack([x * depth, y * depth, depth], axis=-1).astype(np.float32)


def encode_ply(depth: np.ndarray, image: np.ndarray, camera: Intrinsics) -> bytes:
    """Encode one point per pixel, row by row. depth [H, W] m, image uint8 [H, W, 3] RGB."""
    cloud = np.empty(depth.size, _POINT)
    for axis, values in zip(_POSITION, backproject(depth, camera).reshape(-1, 3).T, strict=True):
        cloud[axis] = values
    for color, values in zip(_COLOR, image.reshape(-1, 3).T, strict=True):
        cloud[color] = values
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment metres; x to the right, y down, z forward",
        f"element vertex {depth.size}",
        *(f"property float {axis}" for axis in _POSITION),
        *(f"property uchar {color}" for color in _COLOR),
        "end_header",
    ]
    return "\n".join(header).encode() + b"\n" + cloud.tobytes()
