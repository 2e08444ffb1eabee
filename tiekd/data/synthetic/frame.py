"""Frames of the embedded data sets, rendered from their settings, with the ground truth of a simulated sensor."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from tiekd.data.frame_source import Split
from tiekd.data.image_io import Size
from tiekd.data.synthetic.raycast import Camera
from tiekd.data.synthetic.render import Scene, render
from tiekd.data.synthetic.rooms import indoor
from tiekd.data.synthetic.streets import outdoor
from tiekd.data.synthetic.textures import noise

RENDERER_VERSION = 1  # raise it when rendered frames change
FRAMES_PER_SCENE = 4
BEAM_SPACING = np.deg2rad(0.42)  # between the scan lines of a 64-beam LiDAR
HIGHEST_BEAM = np.deg2rad(2.5)  # above the horizon
LIDAR_RANGE = 80.0  # m


def lidar(depth: np.ndarray, camera: Camera, rng: Generator) -> np.ndarray:
    """Measure depth [H, W] m along the curved scan lines of a LiDAR. 0 elsewhere, in the sky, above the beams and out of range.

    Low resolutions get fewer beams: there are at least three rows between two beams, as in KITTI's full images.
    """
    across, upward = camera.slopes
    elevation = np.arctan(upward / np.hypot(1, across)) + camera.pitch
    spacing = max(BEAM_SPACING, 3 / camera.focal)
    beam = np.floor((elevation - rng.uniform(0, spacing)) / spacing)
    scanned = np.diff(beam, axis=0, append=beam[-1:]) != 0  # the lowest row of each beam
    returned = rng.random(depth.shape) < 0.75 - 0.5 * depth / LIDAR_RANGE  # distant surfaces return fewer pulses
    measured = scanned & returned & (elevation < HIGHEST_BEAM) & (depth < LIDAR_RANGE)
    return np.where(measured, depth, 0).astype(np.float32)


def structured_light(depth: np.ndarray, camera: Camera, rng: Generator) -> np.ndarray:
    """Measure depth [H, W] m with holes: dull patches, and the far side of edges, which the projector does not reach."""
    across, upward = camera.slopes
    offset = rng.uniform(0, 64, 2)
    dull = noise(across * 6 + offset[0], upward * 6 + offset[1]) > 0.88
    step = np.diff(depth, axis=1, prepend=depth[:, :1])
    shadowed = step > 0.15 * depth
    return np.where(dull | shadowed, 0, depth).astype(np.float32)


@dataclass(frozen=True)
class SceneKind:
    """How scenes of a kind are composed, photographed and measured."""

    compose: Callable[[Generator], Scene]
    measure: Callable[[np.ndarray, Camera, Generator], np.ndarray]
    focal: float  # in image widths, as KITTI's and NYU's cameras


SCENE_KINDS = {
    "synthetic-outdoor": SceneKind(outdoor, lidar, focal=0.58),
    "synthetic-indoor": SceneKind(indoor, structured_light, focal=0.81),
}


@dataclass(frozen=True)
class RenderedFrame:
    """One rendered frame."""

    image: np.ndarray  # uint8 [H, W, 3]
    depth_gt: np.ndarray  # float32 [H, W] m, as the sensor measures it; 0 where there is no measurement
    depth_exact: np.ndarray  # float32 [H, W] m; 0 for the sky


@dataclass(frozen=True)
class SceneSettings:
    """The settings that determine the frames of a split; they are part of a run's identity."""

    dataset: str
    split: Split
    frame_size: Size
    scene_seed: int

    def render(self, index: int) -> RenderedFrame:
        """Render the frame at `index`; the frames of a scene are consecutive."""
        kind = SCENE_KINDS[self.dataset]
        number, step = divmod(index, FRAMES_PER_SCENE)
        entropy = [self.scene_seed, list(SCENE_KINDS).index(self.dataset), ("train", "test").index(self.split), number]
        scene = kind.compose(np.random.default_rng(entropy))
        position, yaw, pitch = scene.camera(step)
        camera = Camera(position, yaw, pitch, kind.focal * self.frame_size[1], self.frame_size)
        rng = np.random.default_rng([*entropy, step])
        image, depth = render(scene, camera, rng)
        return RenderedFrame(image, kind.measure(depth, camera, rng), depth)
