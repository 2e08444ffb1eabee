"""What a depth sensor would measure of a rendered frame: ground truth as sparse as the real data sets have it."""

import numpy as np

from tiekd.data.synthetic.raycast import Camera
from tiekd.data.synthetic.textures import noise

BEAM_SPACING = np.deg2rad(0.42)  # between the scan lines of a 64-beam LiDAR
HIGHEST_BEAM = np.deg2rad(2.5)  # above its horizon
LIDAR_RANGE = 80.0  # m


def lidar(depth: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Depth [H, W] m along curved scan lines, 0 elsewhere: nothing from the sky, from above the beams or from far away.

    Coarse images get fewer beams: at least three rows lie between two, as on KITTI's full images.
    """
    across, upward = camera.slopes
    elevation = np.arctan(upward / np.hypot(1, across)) + camera.pitch
    spacing = max(BEAM_SPACING, 3 / camera.focal)
    beam = np.floor((elevation - rng.uniform(0, spacing)) / spacing)
    scanned = np.diff(beam, axis=0, append=beam[-1:]) != 0  # the lowest row of each beam
    returned = rng.random(depth.shape) < 0.75 - 0.5 * depth / LIDAR_RANGE  # far surfaces answer less often
    measured = scanned & returned & (elevation < HIGHEST_BEAM) & (depth < LIDAR_RANGE)
    return np.where(measured, depth, 0).astype(np.float32)


def structured_light(depth: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Depth [H, W] m with holes: patches that do not reflect, and the far side of edges, which the projector does not reach."""
    across, upward = camera.slopes
    offset = rng.uniform(0, 64, 2)
    dull = noise(across * 6 + offset[0], upward * 6 + offset[1]) > 0.88
    step = np.diff(depth, axis=1, prepend=depth[:, :1])
    shadowed = step > 0.15 * depth
    return np.where(dull | shadowed, 0, depth).astype(np.float32)
