"""Simple solids: where rays hit them, in closed form, and their surface there.

World: x right, y up, z forward, metres. Vectors lie along the first axis: points and rays are [3, ...] float32.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tiekd.data.synthetic.textures import Surface, Texture

Vector = tuple[float, float, float]
NOTHING = np.float32(np.inf)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of vectors [3, ...] with vectors [3, ...]; quicker than a sum over so short an axis."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def column(vector: Vector, ndim: int = 2) -> np.ndarray:
    """A vector, shaped to combine with [3, ...] arrays of `ndim` axes."""
    return np.asarray(vector, np.float32).reshape(3, *(1,) * (ndim - 1))


class Solid(Protocol):
    """Something that rays hit."""

    texture: Texture

    def ball(self) -> tuple[Vector, float] | None:
        """Centre and radius of a ball around it; None if it surrounds everything, and so shades nothing."""

    def hit(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        """Ray parameter [...] of the first hit ahead, infinite where there is none; origin and rays [3, ...]."""

    def surface(self, points: np.ndarray) -> Surface:
        """The surface at points [3, N] on it."""


@dataclass(frozen=True)
class Ground:
    """The plane y = 0."""

    texture: Texture

    def ball(self) -> None:
        return None

    def hit(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        t = -origin[1] / rays[1]
        return np.where(t > 0, t, NOTHING)

    def surface(self, points: np.ndarray) -> Surface:
        return Surface(np.broadcast_to(column((0, 1, 0)), points.shape), u=points[0], v=points[2])


@dataclass(frozen=True)
class Block:
    """A box, turned by `yaw` about the vertical. `inside_out` is a room: seen from within."""

    centre: Vector
    half: Vector  # half its extent along each of its axes
    texture: Texture
    yaw: float = 0.0
    inside_out: bool = False

    def ball(self) -> tuple[Vector, float] | None:
        return None if self.inside_out else (self.centre, float(np.linalg.norm(self.half)))

    def hit(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        start = self._own(origin - column(self.centre, origin.ndim))
        direction = self._own(rays)
        enter, leave = np.float32(-np.inf), NOTHING
        for axis in range(3):
            inverse = 1 / direction[axis]  # infinite along a face, which gives the right order of the two
            one, other = (-self.half[axis] - start[axis]) * inverse, (self.half[axis] - start[axis]) * inverse
            enter, leave = np.fmax(enter, np.minimum(one, other)), np.fmin(leave, np.maximum(one, other))
        if self.inside_out:
            return leave
        return np.where((enter < leave) & (enter > 0), enter, NOTHING)

    def surface(self, points: np.ndarray) -> Surface:
        own = self._own(points - column(self.centre))
        half = column(self.half)
        face = np.argmax(np.abs(own) / half, axis=0)  # the axis on whose face a point lies
        side = np.sign(np.take_along_axis(own, face[None], 0)[0]) * (-1 if self.inside_out else 1)
        normal = np.where(np.arange(3)[:, None] == face, side, 0).astype(np.float32)
        from_floor = own + half
        u = np.where(face == 0, from_floor[2], from_floor[0])
        v = np.where(face == 1, from_floor[2], from_floor[1])
        return Surface(self._world(normal), u, v)

    def _own(self, vectors: np.ndarray) -> np.ndarray:
        return _turned(vectors, self.yaw)

    def _world(self, vectors: np.ndarray) -> np.ndarray:
        return _turned(vectors, -self.yaw)


@dataclass(frozen=True)
class Ball:
    centre: Vector
    radius: float
    texture: Texture

    def ball(self) -> tuple[Vector, float]:
        return self.centre, self.radius

    def hit(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        start = origin - column(self.centre, origin.ndim)
        return _first_root(dot(rays, rays), dot(start, rays), dot(start, start) - self.radius**2)

    def surface(self, points: np.ndarray) -> Surface:
        normal = (points - column(self.centre)) / self.radius
        turn = np.arctan2(normal[0], normal[2])
        return Surface(normal, u=turn * self.radius, v=points[1])


@dataclass(frozen=True)
class Post:
    """An upright cylinder without its ends, from y = `bottom` to `top`."""

    x: float
    z: float
    radius: float
    bottom: float
    top: float
    texture: Texture

    def ball(self) -> tuple[Vector, float]:
        half = (self.top - self.bottom) / 2
        return (self.x, self.bottom + half, self.z), float(np.hypot(half, self.radius))

    def hit(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        x, z = origin[0] - self.x, origin[2] - self.z
        t = _first_root(rays[0] ** 2 + rays[2] ** 2, x * rays[0] + z * rays[2], x**2 + z**2 - self.radius**2)
        height = origin[1] + np.where(np.isfinite(t), t, 0) * rays[1]
        return np.where((height >= self.bottom) & (height <= self.top), t, NOTHING)

    def surface(self, points: np.ndarray) -> Surface:
        x, z = (points[0] - self.x) / self.radius, (points[2] - self.z) / self.radius
        return Surface(np.stack([x, np.zeros_like(x), z]), u=np.arctan2(x, z) * self.radius, v=points[1] - self.bottom)


def _first_root(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The smaller root of a t^2 + 2 b t + c where it is real and ahead, else infinite."""
    under = b * b - a * c
    t = (-b - np.sqrt(np.maximum(under, 0))) / a
    return np.where((under > 0) & (t > 0), t, NOTHING)


def _turned(vectors: np.ndarray, yaw: float) -> np.ndarray:
    """`vectors` as seen by something that is turned by `yaw`."""
    if yaw == 0:
        return vectors
    sin, cos = np.float32(np.sin(yaw)), np.float32(np.cos(yaw))
    x, y, z = vectors
    return np.stack(np.broadcast_arrays(cos * x - sin * z, y, sin * x + cos * z))
