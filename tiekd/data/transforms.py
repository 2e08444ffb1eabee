"""Augmentation that moves image, ground truth and teacher map together, and the normalisation of images.

All is drawn first; then only what the crop shows is read, turned and converted. That is 5 to 10 times faster than a chain of
torchvision's transforms on whole frames, and equal to it in every bit (tests/support/torchvision_chain.py).
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms import v2

from tiekd.config import AugmentConfig
from tiekd.data.frame_source import Box
from tiekd.data.image_io import Size, StoredDepth

IMAGE_MEAN = (123.675, 116.28, 103.53)  # of ImageNet, RGB on 0 .. 255
IMAGE_STD = (58.395, 57.12, 57.375)


def normalise(image: np.ndarray | Tensor) -> Tensor:
    """An image as encoders expect it. image [H, W, 3] uint8 array or [3, H, W] tensor, 0 .. 255. Returns [3, H, W] float32."""
    if isinstance(image, Tensor):
        return v2.functional.normalize(image.float(), IMAGE_MEAN, IMAGE_STD).contiguous()
    planes = np.empty((3, *image.shape[:2]), np.float32)
    for channel, (plane, mean, std) in enumerate(zip(planes, IMAGE_MEAN, IMAGE_STD, strict=True)):
        plane[:] = image[..., channel]
        plane -= mean  # in the order of torchvision's arithmetic, so equal in every bit
        plane /= std
    return torch.from_numpy(planes)


class Colour(NamedTuple):
    """Gamma, then a factor per channel, as AdaBins does."""

    gamma: Tensor  # []
    factor: Tensor  # [3, 1, 1], brightness included

    def of(self, image: Tensor, white: float) -> Tensor:
        """image [3, H, W] on 0 .. 255; the same in float32. Gamma acts on the image divided by `white`, 255 or 1."""
        return ((image / white) ** self.gamma * self.factor * white).clamp(0, 255)


class Draw(NamedTuple):
    """What is done to one frame, in this order."""

    degrees: float  # counterclockwise, about the middle; 0: not turned
    flip: bool
    top: int
    left: int  # of the crop, after the flip
    colour: Colour | None


class TrainTransform:
    """Random rotation, flip, crop and colour, then normalisation, on images and depth maps of one frame.

    Bilinear for the image, nearest for depths, since a mean of two depths is the depth of neither; what a rotation uncovers is
    black and has no depth. `quirks` (of tiekd.config.quirks) change what is done with a draw, not the draws.
    """

    def __init__(self, augment: AugmentConfig, crop: Size, quirks: Collection[str] = ()):
        self.augment, self.crop = augment, crop
        self._white = 1.0 if "gamma_on_255" in quirks else 255.0
        self._unrotated = {"depth_teacher"} if "teacher_not_rotated" in quirks else set()

    def draw(self, size: Size, generator: Generator | None = None) -> Draw:
        """A draw for a frame of `size`, from PyTorch's own generator unless another is given."""

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
            return Draw(degrees, flip, top, left, None)
        gamma, brightness = uniform(a.gamma), uniform(a.brightness)
        return Draw(degrees, flip, top, left, Colour(gamma, brightness * uniform(a.colour, 3, 1, 1)))

    def __call__(
        self, image: np.ndarray, depths: dict[str, StoredDepth], generator: Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """image uint8 [H, W, 3], depths [H, W]; returns the image [3, h, w], normalised, and depths [1, h, w] m."""
        size = image.shape[:2]
        draw = self.draw(size, generator)
        left = size[1] - self.crop[1] - draw.left if draw.flip else draw.left
        box = Box(draw.top, left, *self.crop)  # where the crop lies before the flip
        turned = {name for name in depths if draw.degrees and name not in self._unrotated}
        values = {name: box.of(depth.values) for name, depth in depths.items() if name not in turned}
        if draw.degrees:
            turn = Turn(draw.degrees, size, box)
            image = turn.bilinear(image)
            values |= turn.nearest({name: depths[name].values for name in turned}) if turned else {}
        else:
            image = box.of(image)
        if draw.flip:
            image, values = image[:, ::-1], {name: value[:, ::-1] for name, value in values.items()}
        metres = {name: torch.from_numpy(StoredDepth(values[name], depths[name].unit).metres())[None] for name in depths}
        return normalise(image) if draw.colour is None else self._coloured(image, draw.colour), metres

    def _coloured(self, image: np.ndarray, colour: Colour) -> Tensor:
        """uint8 [H, W, 3] to float32 [3, H, W], normalised, by way of a table of the 256 values of each channel."""
        every_value = torch.arange(256.0)[:, None].expand(3, 256, 1)
        table = normalise(colour.of(every_value, self._white))[..., 0].numpy()
        planes = np.empty((3, *image.shape[:2]), np.float32)
        for channel, (plane, values) in enumerate(zip(planes, table, strict=True)):
            np.take(values, image[..., channel], out=plane, mode="clip")  # which, unlike "raise", needs no buffer
        return torch.from_numpy(planes)


class Turn:
    """A rotation of whole frames by some degrees about their middle, of which a box is wanted.

    The arithmetic is torchvision's; but coordinates are computed for the box alone, and once for all that is turned.
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
        """uint8 [H, W, 3] to uint8 [h, w, 3]; faded to black over the pixel at the edge."""
        sampled = self._sampled([*np.moveaxis(image, -1, 0), np.broadcast_to(1, self._size)], "bilinear")
        colours, cover = sampled[:3], sampled[3]
        colours *= cover
        return np.rint(colours, out=colours).astype(np.uint8).transpose(1, 2, 0)

    def nearest(self, maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """[H, W] to [h, w] of the same types, 0 outside."""
        sampled = self._sampled(list(maps.values()), "nearest")
        return {name: found.astype(maps[name].dtype) for name, found in zip(maps, sampled, strict=True)}

    def _sampled(self, planes: list[np.ndarray], mode: str) -> np.ndarray:
        """Planes [H, W] to float32 [C, h, w], 0 outside."""
        window = self._window()
        canvas = np.empty((len(planes), *self._size), np.float32)  # outside the window it is not looked at
        for layer, plane in zip(canvas, planes, strict=True):
            window.of(layer)[:] = window.of(plane)
        grid = torch.from_numpy(self._grid).permute(1, 2, 0)
        return grid_sample(torch.from_numpy(canvas)[None], grid[None], mode, "zeros", align_corners=False)[0].numpy()

    def _window(self) -> Box:
        """What of the frame is looked at, with a pixel more on each side."""
        height, width = self._size
        corners = self._grid[:, [0, -1]][:, :, [0, -1]].reshape(2, 4)
        x, y = ((corners + 1) * [[width], [height]] - 1) / 2
        top, left = (max(math.floor(along.min()) - 1, 0) for along in (y, x))
        bottom, right = min(math.ceil(y.max()) + 2, height), min(math.ceil(x.max()) + 2, width)
        return Box(top, left, max(bottom - top, 0), max(right - left, 0))
