"""Simple solids: their intersection with rays in closed form, and their surface.

World coordinates in m: x right, y up, z forward. Vectors are along the first axis: points and rays are [3, ...] float32.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tiekd.data.synthetic.textures import Surface, Texture

Vector = tuple[float, float, float]
NO_HIT = np.float32(np.inf)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot product of vectors [3, ...]; faster than a sum over an axis of length 3."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def column(vector: Vector, ndim: int = 2) -> np.ndarray:
    """Reshape a vector to broadcast with [3, ...] arrays of `ndim` axes."""
    return np.asarray(vector, np.float32).reshape(3, *(1,) * (ndim - 1))


class Solid(Protocol):
    """A solid body of a scene."""

    @property
    def texture(self) -> Texture: ...

    def bounding_sphere(self) -> tuple[Vector, float] | None:
        """Return center and radius of a sphere around the solid; None if it surrounds the scene, and so casts no shadow."""
        ...

    def intersect(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        """Return the ray parameter [...] of the first hit ahead of the origin, infinite if there is none.

        origin and rays [3, ...].
        """
        ...

    def surface(self, points: np.ndarray) -> Surface:
        """Return the surface at points [3, N] on the solid."""
        ...


@dataclass(frozen=True)
class GroundPlane:
    """The plane y = 0."""

    texture: Texture

    def bounding_sphere(self) -> None:
        return None

    def intersect(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        t = -origin[1] / rays[1]
        return np.where(t > 0, t, NO_HIT)

    def surface(self, points: np.ndarray) -> Surface:
        return Surface(np.broadcast_to(column((0, 1, 0)), points.shape), u=points[0], v=points[2])


@dataclass(frozen=True)
class Cuboid:
    """A box, rotated by `yaw` about the vertical axis. With `inside_out` it is a room, seen from inside."""

    center: Vector
    half: Vector  # half of its extent along each of its axes
    texture: Texture
    yaw: float = 0.0
    inside_out: bool = False

    def bounding_sphere(self) -> tuple[Vector, float] | None:
        return None if self.inside_out else (self.center, float(np.linalg.norm(self.half)))

    def intersect(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        start = self._to_local(origin - column(self.center, origin.ndim))
        direction = self._to_local(rays)
        enter, leave = np.asarray(-NO_HIT), np.asarray(NO_HIT)
        for axis in range(3):
            inverse = 1 / direction[axis]  # infinite for rays along a face, which still gives the right order
            one, other = (-self.half[axis] - start[axis]) * inverse, (self.half[axis] - start[axis]) * inverse
            enter, leave = np.fmax(enter, np.minimum(one, other)), np.fmin(leave, np.maximum(one, other))
        if self.inside_out:
            return leave
        return np.where((enter < leave) & (enter > 0), enter, NO_HIT)

    def surface(self, points: np.ndarray) -> Surface:
        local = self._to_local(points - column(self.center))
        half = column(self.half)
        face = np.argmax(np.abs(local) / half, axis=0)  # the axis of the face with the point
        side = np.sign(np.take_along_axis(local, face[None], 0)[0]) * (-1 if self.inside_out else 1)
        normal = np.where(np.arange(3)[:, None] == face, side, 0).astype(np.float32)
        from_corner = local + half
        u = np.where(face == 0, from_corner[2], from_corner[0])
        v = np.where(face == 1, from_corner[2], from_corner[1])
        return Surface(self._to_world(normal), u, v)

    def _to_local(self, vectors: np.ndarray) -> np.ndarray:
        return _rotated(vectors, self.yaw)

    def _to_world(self, vectors: np.ndarray) -> np.ndarray:
        return _rotated(vectors, -self.yaw)


@dataclass(frozen=True)
class Sphere:
    """A sphere."""

    center: Vector
    radius: float
    texture: Texture

    def bounding_sphere(self) -> tuple[Vector, float]:
        return self.center, self.radius

    def intersect(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        start = origin - column(self.center, origin.ndim)
        return _first_root(dot(rays, rays), dot(start, rays), dot(start, start) - self.radius**2)

    def surface(self, points: np.ndarray) -> Surface:
        normal = (points - column(self.center)) / self.radius
        angle = np.arctan2(normal[0], normal[2])
        return Surface(normal, u=angle * self.radius, v=points[1])


@dataclass(frozen=True)
class Cylinder:
    """A vertical cylinder without end caps, from y = `bottom` to `top`."""

    x: float
    z: float
    radius: float
    bottom: float
    top: float
    texture: Texture

    def bounding_sphere(self) -> tuple[Vector, float]:
        half = (self.top - self.bottom) / 2
        return (self.x, self.bottom + half, self.z), float(np.hypot(half, self.radius))

    def intersect(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        x, z = origin[0] - self.x, origin[2] - self.z
        t = _first_root(rays[0] ** 2 + rays[2] ** 2, x * rays[0] + z * rays[2], x**2 + z**2 - self.radius**2)
        height = origin[1] + np.where(np.isfinite(t), t, 0) * rays[1]
        return np.where((height >= self.bottom) & (height <= self.top), t, NO_HIT)

    def surface(self, points: np.ndarray) -> Surface:
        x, z = (points[0] - self.x) / self.radius, (points[2] - self.z) / self.radius
        return Surface(np.stack([x, np.zeros_like(x), z]), u=np.arctan2(x, z) * self.radius, v=points[1] - self.bottom)


def _first_root(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The smaller root of a t^2 + 2 b t + c if it is real and positive, otherwise infinite."""
    discriminant = b * b - a * c
    t = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
    return np.where((discriminant > 0) & (t > 0), t, NO_HIT)


def _rotated(vectors: np.ndarray, yaw: float) -> np.ndarray:
    """Vectors in a coordinate system that is rotated by `yaw` about the vertical axis."""
    if yaw == 0:
        return vectors
    sin, cos = np.float32(np.sin(yaw)), np.float32(np.cos(yaw))
    x, y, z = vectors
    return np.stack(np.broadcast_arrays(cos * x - sin * z, y, sin * x + cos * z))
