"""Exact depth of a scene by ray casting, and shadows.

The rays of a camera have length 1 along its optical axis, so that the ray parameter t of a hit is the depth.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tiekd.data.image_io import Size
from tiekd.data.synthetic.solids import NO_HIT, Solid, Vector, column, dot


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; positive yaw is to the right, positive pitch up (radians)."""

    position: Vector
    yaw: float
    pitch: float
    focal: float  # px
    size: Size

    @cached_property
    def axes(self) -> np.ndarray:
        """Right, up and forward direction of the camera in world coordinates, as columns [3, 3]."""
        sin_yaw, cos_yaw, sin_pitch, cos_pitch = np.sin(self.yaw), np.cos(self.yaw), np.sin(self.pitch), np.cos(self.pitch)
        right = (cos_yaw, 0.0, -sin_yaw)
        up = (-sin_yaw * sin_pitch, cos_pitch, -cos_yaw * sin_pitch)
        forward = (sin_yaw * cos_pitch, sin_pitch, cos_yaw * cos_pitch)
        return np.stack([right, up, forward], axis=1)

    @cached_property
    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """Meters to the right [1, W] and up [H, 1] per meter of depth, for each ray."""
        height, width = self.size
        across = (np.arange(width, dtype=np.float32) - (width - 1) / 2) / self.focal
        upward = ((height - 1) / 2 - np.arange(height, dtype=np.float32)) / self.focal
        return across[None], upward[:, None]

    @cached_property
    def rays(self) -> np.ndarray:
        """Direction of the ray of each pixel, [3, H, W]."""
        across, upward = self.slopes
        right, up, forward = (axis.reshape(3, 1, 1) for axis in self.axes.T.astype(np.float32))
        return right * across + up * upward + forward

    def window(self, center: Vector, radius: float) -> tuple[slice, slice] | None:
        """Return the rows and columns that a sphere may cover; None if it is behind the camera or outside its view."""
        right, up, depth = (float(part) for part in self.axes.T @ np.subtract(center, self.position))
        if depth + radius <= 0:
            return None
        if depth - radius <= 0.1:
            return slice(None), slice(None)
        height, width = self.size
        depths = (depth - radius, depth + radius)
        columns = _pixel_range([self.focal * (right + s) / d for s in (-radius, radius) for d in depths], width)
        rows = _pixel_range([-self.focal * (up + s) / d for s in (-radius, radius) for d in depths], height)
        return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def _pixel_range(bounds: list[float], length: int) -> slice:
    """The pixels of a row of `length` between the extremes of `bounds`, in px from the center of the row."""
    middle = (length - 1) / 2
    return slice(max(math.floor(middle + min(bounds)), 0), min(math.ceil(middle + max(bounds)) + 1, length))


def cast(camera: Camera, solids: list[Solid]) -> tuple[np.ndarray, np.ndarray]:
    """Cast the ray of each pixel.

    Returns depth, float32 [H, W] m, infinite for the sky; and the index of the solid, [H, W], -1 for the sky.
    """
    depth = np.full(camera.size, NO_HIT)
    owner = np.full(camera.size, -1, np.int16)
    origin = column(camera.position, 3)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # rays along a face
        for number, solid in enumerate(solids):
            sphere = solid.bounding_sphere()
            window = camera.window(*sphere) if sphere else (slice(None), slice(None))
            if window is None:
                continue
            t = solid.intersect(origin, camera.rays[:, *window])
            nearer = t < depth[window]
            depth[window][nearer] = t[nearer]
            owner[window][nearer] = number
    return depth, owner


def in_shadow(points: np.ndarray, light: Vector, solids: list[Solid]) -> np.ndarray:
    """Return whether a solid is between points [3, N] and a light, [N] bool. Solids that surround the scene are ignored."""
    source = column(light).astype(np.float64)  # from the sun, the scene is within a thousandth of a radian
    away = points - source
    distance = np.sqrt(dot(away, away))
    away /= distance
    dark = np.zeros(points.shape[1], bool)
    for solid in solids:
        sphere = solid.bounding_sphere()
        if sphere is None:
            continue
        center, radius = sphere
        to_center = np.asarray(center) - light
        reach = np.linalg.norm(to_center)
        cone = np.sqrt(np.maximum(1 - (radius / reach) ** 2, 0))
        behind = np.flatnonzero((to_center / reach @ away > cone) & (distance > reach - radius))
        behind = behind[~dark[behind]]
        if len(behind):
            candidates = points[:, behind]
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                dark[behind] = solid.intersect(candidates, column(light) - candidates) < 1
    return dark
