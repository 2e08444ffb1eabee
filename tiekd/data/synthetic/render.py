"""Render a scene: exact depth, and an image that agrees with it in occlusion, shading, shadows, texture and haze."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tiekd.data.synthetic.raycast import Camera, cast, in_shadow
from tiekd.data.synthetic.solids import Solid, Vector, column, dot

DISPLAY_GAMMA = 2.2
SHADOW_RANGE = 60.0  # m; shadows of solids beyond would cover a pixel or two


@dataclass(frozen=True)
class Light:
    """The sun or a lamp, and ambient light."""

    position: Vector  # m; the sun is a lamp far away
    color: Vector
    ambient: Vector


@dataclass(frozen=True)
class Atmosphere:
    """Haze and sky; a room has neither."""

    haze_length: float  # m after which 1/e of the light remains
    horizon: Vector
    zenith: Vector

    def sky(self, rays: np.ndarray) -> np.ndarray:
        """Return the colors [3, N] of rays [3, N] that hit no solid."""
        height = np.clip(rays[1] / np.linalg.norm(rays, axis=0) * 3, 0, 1)
        return column(self.horizon) * (1 - height) + column(self.zenith) * height


@dataclass(frozen=True)
class Scene:
    """The solids of a scene, its light, and the path of its camera."""

    solids: list[Solid]
    light: Light
    atmosphere: Atmosphere
    exposure: float
    camera: Callable[[int], tuple[Vector, float, float]]  # frame -> position, yaw, pitch


def render(scene: Scene, camera: Camera, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Render the image, uint8 [H, W, 3], and the exact depth, float32 [H, W] m, 0 for the sky."""
    depth, owner = cast(camera, scene.solids)
    seen = owner >= 0
    colors = np.empty((3, *camera.size), np.float32)
    colors[:, ~seen] = scene.atmosphere.sky(camera.rays[:, ~seen])
    colors[:, seen] = _shade(scene, camera, depth[seen], owner[seen], camera.rays[:, seen])
    return _develop(colors * scene.exposure, rng), np.where(seen, depth, 0).astype(np.float32)


def _shade(scene: Scene, camera: Camera, depth: np.ndarray, owner: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Colors [3, N] of the points where rays [3, N] hit a solid at depth [N]."""
    points = column(camera.position) + depth * rays
    normals, albedo = np.empty_like(points), np.empty_like(points)
    order = np.argsort(owner, kind="stable")
    numbers, starts = np.unique(owner[order], return_index=True)
    for number, these in zip(numbers, np.split(order, starts[1:]), strict=True):
        solid = scene.solids[number]
        surface = solid.surface(points[:, these])
        facing = np.abs(dot(surface.normal, rays[:, these])).clip(0.05)
        footprint = depth[these] / camera.focal / np.sqrt(facing)  # between the short and the long axis of the ellipse
        normals[:, these], albedo[:, these] = surface.normal, solid.texture(surface, footprint)
    to_light = column(scene.light.position) - points
    cosine = (dot(normals, to_light) / np.sqrt(dot(to_light, to_light))).clip(0)
    facing_light = cosine > 0
    lifted = points[:, facing_light] + normals[:, facing_light] * 0.01  # off the surface, which must not shadow itself
    nearby = [solid for solid in scene.solids if _distance(solid, camera) < SHADOW_RANGE]
    cosine[facing_light] *= ~in_shadow(lifted, scene.light.position, nearby)
    skyward = 0.75 + 0.25 * normals[1]  # more of the ambient light comes from above
    colors = albedo * (column(scene.light.ambient) * skyward + column(scene.light.color) * cosine)
    clear = np.exp(-depth / scene.atmosphere.haze_length)
    return colors * clear + column(scene.atmosphere.horizon) * (1 - clear)


def _distance(solid: Solid, camera: Camera) -> float:
    """Distance from the camera to a solid, m; infinite for one that casts no shadow."""
    sphere = solid.bounding_sphere()
    return float(np.linalg.norm(np.subtract(sphere[0], camera.position)) - sphere[1]) if sphere else np.inf


def _develop(colors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Convert linear colors [3, H, W] to an image with gamma and sensor noise, uint8 [H, W, 3]."""
    value = 255 * colors.clip(0, 1) ** (1 / DISPLAY_GAMMA)
    value += rng.normal(0, 2.0, value.shape).astype(np.float32)
    return np.ascontiguousarray(np.rint(value).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
