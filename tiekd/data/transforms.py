"""Augmentation of image, ground truth and teacher map together, and normalization of images.

The random parameters are drawn first, and then only the pixels of the crop are read, rotated and converted. This is 5 to 10
times faster than a chain of torchvision transforms on whole frames, and bit-identical to it
(tests/support/torchvision_chain.py).
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import grid_sample

from tiekd.config import AugmentConfig
from tiekd.data.frame_source import Box
from tiekd.data.image_io import Size, StoredDepth

IMAGE_MEAN = (123.675, 116.28, 103.53)  # of ImageNet, RGB on 0 .. 255
IMAGE_STD = (58.395, 57.12, 57.375)


def normalize_image(image: np.ndarray | Tensor) -> Tensor:
    """Normalize an image with ImageNet's statistics. image [H, W, 3] uint8 array or [3, H, W] tensor, 0 .. 255.

    Returns [3, H, W] float32.
    """
    if isinstance(image, Tensor):
        means, stds = (torch.tensor(values, device=image.device)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
        return ((image.float() - means) / stds).contiguous()
    planes = np.empty((3, *image.shape[:2]), np.float32)
    for channel, (plane, mean, std) in enumerate(zip(planes, IMAGE_MEAN, IMAGE_STD, strict=True)):
        plane[:] = image[..., channel]
        plane -= mean  # in torchvision's order of operations, to be bit-identical
        plane /= std
    return torch.from_numpy(planes)


class ColorJitter(NamedTuple):
    """Gamma, then a factor per channel, as in AdaBins."""

    gamma: Tensor  # []
    factor: Tensor  # [3, 1, 1], includes the brightness

    def apply(self, image: Tensor, white: float) -> Tensor:
        """Apply to an image [3, H, W], 0 .. 255; returns float32. Gamma acts on the image divided by `white` (255 or 1)."""
        return ((image / white) ** self.gamma * self.factor * white).clamp(0, 255)


class AugmentParams(NamedTuple):
    """Random parameters of the augmentation of one frame, in the order of application."""

    degrees: float  # rotation about the center, counterclockwise
    flip: bool
    top: int
    left: int  # of the crop, after the flip
    color: ColorJitter | None


class TrainTransform:
    """Random rotation, flip, crop and color jitter, then normalization, of the image and depth maps of one frame.

    Images are sampled bilinearly, depths by nearest neighbor, because a mean of two depths is the depth of neither surface.
    Pixels outside the frame become black, without depth. `quirks` (see tiekd.config.quirks) do not change the random
    parameters.
    """

    def __init__(self, augment: AugmentConfig, crop: Size, quirks: Collection[str] = ()):
        self.augment, self.crop = augment, crop
        self._white = 1.0 if "gamma_on_255" in quirks else 255.0
        self._unrotated = {"depth_teacher"} if "teacher_not_rotated" in quirks else set()

    def draw(self, size: Size, generator: Generator | None = None) -> AugmentParams:
        """Draw the parameters for a frame of `size`, from PyTorch's global generator unless another is given."""

        def happens(p: float) -> bool:
            return bool(torch.rand(1, generator=generator) < p)

        def uniform(bounds: tuple[float, float], *shape: int) -> Tensor:
            return torch.empty(shape).uniform_(*bounds, generator=generator)

        def offset(room: int) -> int:
            return int(torch.randint(0, room + 1, (), generator=generator)) if room else 0

        a = self.augment
        degrees = uniform((-a.rotate_degrees, a.rotate_degrees), 1).item() if happens(a.rotate_p) else 0.0
        flip = happens(a.flip_p)
        top, left = (offset(whole - part) for whole, part in zip(size, self.crop, strict=True))
        if not happens(a.colour_p):
            return AugmentParams(degrees, flip, top, left, None)
        gamma, brightness = uniform(a.gamma), uniform(a.brightness)
        return AugmentParams(degrees, flip, top, left, ColorJitter(gamma, brightness * uniform(a.colour, 3, 1, 1)))

    def __call__(
        self, image: np.ndarray, depths: dict[str, StoredDepth], generator: Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Augment a frame: image uint8 [H, W, 3], depths [H, W].

        Returns the normalized image [3, h, w] and the depths [1, h, w] m.
        """
        height, width = image.shape[:2]
        size = height, width
        params = self.draw(size, generator)
        left = width - self.crop[1] - params.left if params.flip else params.left
        box = Box(params.top, left, *self.crop)  # the crop in the frame before the flip
        rotated = {name for name in depths if params.degrees and name not in self._unrotated}
        values = {name: box.crop(depth.values) for name, depth in depths.items() if name not in rotated}
        if params.degrees:
            rotation = Rotation(params.degrees, size, box)
            image = rotation.bilinear(image)
            values |= rotation.nearest({name: depths[name].values for name in rotated}) if rotated else {}
        else:
            image = box.crop(image)
        if params.flip:
            image, values = image[:, ::-1], {name: value[:, ::-1] for name, value in values.items()}
        meters = {name: torch.from_numpy(StoredDepth(values[name], depths[name].unit).to_meters())[None] for name in depths}
        return normalize_image(image) if params.color is None else self._jitter_color(image, params.color), meters

    def _jitter_color(self, image: np.ndarray, color: ColorJitter) -> Tensor:
        """uint8 [H, W, 3] to normalized float32 [3, H, W], with a lookup table of the 256 values of each channel."""
        every_value = torch.arange(256.0)[:, None].expand(3, 256, 1)
        table = normalize_image(color.apply(every_value, self._white))[..., 0].numpy()
        planes = np.empty((3, *image.shape[:2]), np.float32)
        for channel, (plane, values) in enumerate(zip(planes, table, strict=True)):
            np.take(values, image[..., channel], out=plane, mode="clip")  # "raise" would allocate a buffer
        return torch.from_numpy(planes)


class Rotation:
    """Rotation of frames about their center, sampled within a box only.

    The arithmetic is torchvision's, but coordinates are computed for the pixels of the box, and once for all images and maps.
    """

    def __init__(self, degrees: float, size: Size, box: Box):
        self._size, self._box = size, box
        angle = math.radians(-(degrees % 360))
        matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], np.float32)
        height, width = size
        matrix /= np.array([[0.5 * width], [0.5 * height]], np.float32)
        x = np.arange(box.left, box.left + box.width, dtype=np.float32) - np.float32((width - 1) / 2)
        y = np.arange(box.top, box.top + box.height, dtype=np.float32) - np.float32((height - 1) / 2)
        self._grid = np.empty((2, box.height, box.width), np.float32)  # x, y; -1 .. 1 over the frame
        for plane, (along_x, along_y) in zip(self._grid, matrix, strict=True):
            np.add(x * along_x, (y * along_y)[:, None], out=plane)

    def bilinear(self, image: np.ndarray) -> np.ndarray:
        """Sample an image: uint8 [H, W, 3] to uint8 [h, w, 3]. Pixels at the edge of the frame fade to black."""
        sampled = self._sample([*np.moveaxis(image, -1, 0), np.broadcast_to(1, self._size)], "bilinear")
        colors, coverage = sampled[:3], sampled[3]
        colors *= coverage
        return np.rint(colors, out=colors).astype(np.uint8).transpose(1, 2, 0)

    def nearest(self, maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Sample maps: [H, W] to [h, w] of the same types, 0 outside the frame."""
        sampled = self._sample(list(maps.values()), "nearest")
        return {name: found.astype(maps[name].dtype) for name, found in zip(maps, sampled, strict=True)}

    def _sample(self, planes: list[np.ndarray], mode: str) -> np.ndarray:
        """Planes [H, W] to float32 [C, h, w], 0 outside the frame."""
        window = self._source_window()
        canvas = np.empty((len(planes), *self._size), np.float32)  # not read outside the window
        for layer, plane in zip(canvas, planes, strict=True):
            window.crop(layer)[:] = window.crop(plane)
        grid = torch.from_numpy(self._grid).permute(1, 2, 0)
        return grid_sample(torch.from_numpy(canvas)[None], grid[None], mode, "zeros", align_corners=False)[0].numpy()

    def _source_window(self) -> Box:
        """The part of the frame that is read, with a margin of one pixel."""
        height, width = self._size
        corners = self._grid[:, [0, -1]][:, :, [0, -1]].reshape(2, 4)
        x, y = ((corners + 1) * [[width], [height]] - 1) / 2
        top, left = (max(math.floor(along.min()) - 1, 0) for along in (y, x))
        bottom, right = min(math.ceil(y.max()) + 2, height), min(math.ceil(x.max()) + 2, width)
        return Box(top, left, max(bottom - top, 0), max(right - left, 0))
