"""One frame of the embedded data sets: which it is decides all of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from tiekd.data.frame_source import Split
from tiekd.data.image_io import Size
from tiekd.data.synthetic.raycast import Camera
from tiekd.data.synthetic.render import Scene, render
from tiekd.data.synthetic.rooms import indoor
from tiekd.data.synthetic.sensor import lidar, structured_light
from tiekd.data.synthetic.streets import outdoor

RENDERER_VERSION = 1  # raise it when rendered frames change
FRAMES_PER_SCENE = 4


@dataclass(frozen=True)
class Flavour:
    """A kind of scene, how it is photographed and how its depth is measured."""

    compose: Callable[[Generator], Scene]
    measure: Callable[[np.ndarray, Camera, Generator], np.ndarray]
    focal: float  # of the camera, in image widths: as KITTI's and as NYU's


FLAVOURS = {
    "synthetic-outdoor": Flavour(outdoor, lidar, focal=0.58),
    "synthetic-indoor": Flavour(indoor, structured_light, focal=0.81),
}


@dataclass(frozen=True)
class Rendering:
    """One rendered frame."""

    image: np.ndarray  # uint8 [H, W, 3]
    depth_gt: np.ndarray  # float32 [H, W], m; as a sensor measures it, 0 where it does not
    depth_exact: np.ndarray  # float32 [H, W], m; 0 for the sky


@dataclass(frozen=True)
class Spec:
    """All that the frames of a split depend on."""

    dataset: str
    split: Split
    frame_size: Size
    scene_seed: int

    def render(self, index: int) -> Rendering:
        """The frame at `index`; frames of one scene follow one another."""
        flavour = FLAVOURS[self.dataset]
        number, step = divmod(index, FRAMES_PER_SCENE)
        entropy = [self.scene_seed, list(FLAVOURS).index(self.dataset), ("train", "test").index(self.split), number]
        scene = flavour.compose(np.random.default_rng(entropy))
        position, yaw, pitch = scene.camera(step)
        camera = Camera(position, yaw, pitch, flavour.focal * self.frame_size[1], self.frame_size)
        rng = np.random.default_rng([*entropy, step])
        image, depth = render(scene, camera, rng)
        return Rendering(image, flavour.measure(depth, camera, rng), depth)
