"""Exact depth of a scene, ray by ray, and who stands in whose light.

A camera's rays have length 1 along its optical axis, so that the ray parameter t of a hit *is* the depth.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tiekd.data.image_io import Size
from tiekd.data.synthetic.solids import NOTHING, Solid, Vector, column, dot


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; yaw turns it right, pitch up (radians)."""

    position: Vector
    yaw: float
    pitch: float
    focal: float  # px
    size: Size

    @cached_property
    def axes(self) -> np.ndarray:
        """[3, 3]: the camera's right, up and forward in the world, as columns."""
        sin_yaw, cos_yaw, sin_pitch, cos_pitch = np.sin(self.yaw), np.cos(self.yaw), np.sin(self.pitch), np.cos(self.pitch)
        right = (cos_yaw, 0.0, -sin_yaw)
        up = (-sin_yaw * sin_pitch, cos_pitch, -cos_yaw * sin_pitch)
        forward = (sin_yaw * cos_pitch, sin_pitch, cos_yaw * cos_pitch)
        return np.stack([right, up, forward], axis=1)

    @cached_property
    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each ray, metres right [1, W] and up [H, 1] per metre of depth."""
        height, width = self.size
        across = (np.arange(width, dtype=np.float32) - (width - 1) / 2) / self.focal
        upward = ((height - 1) / 2 - np.arange(height, dtype=np.float32)) / self.focal
        return across[None], upward[:, None]

    @cached_property
    def rays(self) -> np.ndarray:
        """[3, H, W]."""
        across, upward = self.slopes
        right, up, forward = (axis.reshape(3, 1, 1) for axis in self.axes.T.astype(np.float32))
        return right * across + up * upward + forward

    def window(self, centre: Vector, radius: float) -> tuple[slice, slice] | None:
        """Rows and columns that a ball may cover; None where it is behind the camera or out of sight."""
        right, up, depth = (float(part) for part in self.axes.T @ np.subtract(centre, self.position))
        if depth + radius <= 0:
            return None
        if depth - radius <= 0.1:
            return slice(None), slice(None)
        height, width = self.size
        depths = (depth - radius, depth + radius)
        columns = _covered([self.focal * (right + s) / d for s in (-radius, radius) for d in depths], width)
        rows = _covered([-self.focal * (up + s) / d for s in (-radius, radius) for d in depths], height)
        return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def _covered(bounds: list[float], length: int) -> slice:
    """The pixels of `length` in a row that lie between the extremes of `bounds`, given in px from the middle."""
    middle = (length - 1) / 2
    return slice(max(math.floor(middle + min(bounds)), 0), min(math.ceil(middle + max(bounds)) + 1, length))


def cast(camera: Camera, solids: list[Solid]) -> tuple[np.ndarray, np.ndarray]:
    """What each pixel sees: depth float32 [H, W] m, infinite for the sky, and the solid's place in the list, -1 for the sky."""
    depth = np.full(camera.size, NOTHING)
    owner = np.full(camera.size, -1, np.int16)
    origin = column(camera.position, 3)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # rays that run along a face
        for number, solid in enumerate(solids):
            ball = solid.ball()
            window = camera.window(*ball) if ball else (slice(None), slice(None))
            if window is None:
                continue
            t = solid.hit(origin, camera.rays[:, *window])
            nearer = t < depth[window]
            depth[window][nearer] = t[nearer]
            owner[window][nearer] = number
    return depth, owner


def in_shadow(points: np.ndarray, light: Vector, solids: list[Solid]) -> np.ndarray:
    """Whether one of the solids, each within a ball, stands between points [3, N] and a light, [N] bool."""
    place = column(light).astype(np.float64)  # seen from the sun, all that matters happens within a thousandth of a radian
    away = points - place
    distance = np.sqrt(dot(away, away))
    away /= distance
    dark = np.zeros(points.shape[1], bool)
    for solid in solids:
        centre, radius = solid.ball()
        to_centre = np.asarray(centre) - light
        reach = np.linalg.norm(to_centre)
        cone = np.sqrt(max(1 - (radius / reach) ** 2, 0))
        behind = np.flatnonzero((to_centre / reach @ away > cone) & (distance > reach - radius))
        behind = behind[~dark[behind]]
        if len(behind):
            some = points[:, behind]
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                dark[behind] = solid.hit(some, column(light) - some) < 1
    return dark
