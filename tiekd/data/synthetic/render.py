"""A frame of a scene: exact depth, and an image that agrees with it in occlusion, shading, shadows, grain and haze."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tiekd.data.synthetic.raycast import Camera, cast, in_shadow
from tiekd.data.synthetic.solids import Solid, Vector, column, dot

DISPLAY_GAMMA = 2.2
SHADOWS_WITHIN = 60.0  # m; shadows of what stands farther off would be a pixel or two


@dataclass(frozen=True)
class Light:
    """The sun or a lamp, and the light that comes from everywhere."""

    place: Vector  # m; the sun is a lamp far away
    colour: Vector
    ambient: Vector


@dataclass(frozen=True)
class Air:
    """Haze, and the sky behind everything; in a room there is neither."""

    haze_length: float  # m after which 1/e of the light is left
    horizon: Vector
    zenith: Vector

    def sky(self, rays: np.ndarray) -> np.ndarray:
        """Colours [3, N] of rays [3, N] that hit nothing."""
        height = np.clip(rays[1] / np.linalg.norm(rays, axis=0) * 3, 0, 1)
        return column(self.horizon) * (1 - height) + column(self.zenith) * height


@dataclass(frozen=True)
class Scene:
    """What stands where, how it is lit, and from where its frames are taken."""

    solids: list[Solid]
    light: Light
    air: Air
    exposure: float
    camera: Callable[[int], tuple[Vector, float, float]]  # frame -> position, yaw, pitch


def render(scene: Scene, camera: Camera, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [H, W, 3] and exact depth float32 [H, W] m, 0 for the sky."""
    depth, owner = cast(camera, scene.solids)
    seen = owner >= 0
    colours = np.empty((3, *camera.size), np.float32)
    colours[:, ~seen] = scene.air.sky(camera.rays[:, ~seen])
    colours[:, seen] = _lit(scene, camera, depth[seen], owner[seen], camera.rays[:, seen])
    return _developed(colours * scene.exposure, rng), np.where(seen, depth, 0).astype(np.float32)


def _lit(scene: Scene, camera: Camera, depth: np.ndarray, owner: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Colours [3, N] of the points that rays [3, N] hit at depth [N]."""
    points = column(camera.position) + depth * rays
    normals, albedo = np.empty_like(points), np.empty_like(points)
    order = np.argsort(owner, kind="stable")
    numbers, starts = np.unique(owner[order], return_index=True)
    for number, these in zip(numbers, np.split(order, starts[1:]), strict=True):
        solid = scene.solids[number]
        surface = solid.surface(points[:, these])
        facing = np.abs(dot(surface.normal, rays[:, these])).clip(0.05)
        footprint = depth[these] / camera.focal / np.sqrt(facing)  # between its short and its long axis
        normals[:, these], albedo[:, these] = surface.normal, solid.texture(surface, footprint)
    to_light = column(scene.light.place) - points
    cosine = (dot(normals, to_light) / np.sqrt(dot(to_light, to_light))).clip(0)
    facing_light = cosine > 0
    lifted = points[:, facing_light] + normals[:, facing_light] * 0.01  # off its own surface
    nearby = [solid for solid in scene.solids if _distance(solid, camera) < SHADOWS_WITHIN]
    cosine[facing_light] *= ~in_shadow(lifted, scene.light.place, nearby)
    skyward = 0.75 + 0.25 * normals[1]  # light from everywhere comes rather from above
    colours = albedo * (column(scene.light.ambient) * skyward + column(scene.light.colour) * cosine)
    clear = np.exp(-depth / scene.air.haze_length)
    return colours * clear + column(scene.air.horizon) * (1 - clear)


def _distance(solid: Solid, camera: Camera) -> float:
    """From the camera to a solid, m; infinite for one that casts no shadow."""
    ball = solid.ball()
    return float(np.linalg.norm(np.subtract(ball[0], camera.position)) - ball[1]) if ball else np.inf


def _developed(colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Linear colours [3, H, W] as a camera stores them, with its noise: uint8 [H, W, 3]."""
    value = 255 * colours.clip(0, 1) ** (1 / DISPLAY_GAMMA)
    value += rng.normal(0, 2.0, value.shape).astype(np.float32)
    return np.ascontiguousarray(np.rint(value).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
