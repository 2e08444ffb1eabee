"""Augmentation that moves image, ground truth and teacher map together, and the normalisation of images."""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from tiekd.config import AugmentConfig
from tiekd.images import Size

IMAGE_MEAN = (123.675, 116.28, 103.53)  # of ImageNet, RGB on 0 .. 255
IMAGE_STD = (58.395, 57.12, 57.375)


def normalise(image: np.ndarray | Tensor) -> Tensor:
    """An image as encoders expect it. image [H, W, 3] uint8 array or [3, H, W] tensor, 0 .. 255. Returns [3, H, W] float32."""
    if isinstance(image, np.ndarray):
        image = torch.tensor(image).permute(2, 0, 1)
    return v2.functional.normalize(image.float(), IMAGE_MEAN, IMAGE_STD).contiguous()


class ColourJitter(v2.Transform):
    """Gamma, then brightness, then a factor per channel, as AdaBins does. Touches images only.

    Images [3, H, W] on 0 .. 255; returns float32 on 0 .. 255. Gamma acts on the image divided by `white`, 255 or 1.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, augment: AugmentConfig, white: float = 255.0):
        super().__init__()
        self.augment, self.white = augment, white

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        gamma, brightness = _uniform(self.augment.gamma), _uniform(self.augment.brightness)
        return {"gamma": gamma, "factor": brightness * _uniform(self.augment.colour, (3, 1, 1))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        image = (inpt.float() / self.white) ** params["gamma"] * params["factor"]
        return tv_tensors.wrap((image * self.white).clamp(0, 255), like=inpt)


class TrainTransform:
    """Random rotation, flip, crop and colour, then normalisation, on images and depth maps of one frame.

    Bilinear for the image, nearest for depths (`Mask` does that), since a mean of two depths is the depth of neither; what a
    rotation uncovers is black and has no depth. `quirks` (of tiekd.quirks) change what is done with a draw, not the draws.
    """

    def __init__(self, augment: AugmentConfig, crop: Size, quirks: Collection[str] = ()):
        rotation = v2.RandomRotation(augment.rotate_degrees, interpolation=v2.InterpolationMode.BILINEAR)
        colour = ColourJitter(augment, white=1.0 if "gamma_on_255" in quirks else 255.0)
        self._rotate = v2.RandomApply([rotation], augment.rotate_p)
        self._unrotated = {"depth_teacher"} if "teacher_not_rotated" in quirks else set()
        self._augment = v2.Compose(
            [
                v2.RandomHorizontalFlip(augment.flip_p),
                v2.RandomCrop(crop),
                v2.RandomApply([colour], augment.colour_p),
            ]
        )

    def __call__(self, image: np.ndarray, depths: dict[str, np.ndarray]) -> tuple[Tensor, dict[str, Tensor]]:
        """image uint8 [H, W, 3], depths float32 [H, W] m; returns the image [3, h, w], normalised, and depths [1, h, w] m."""
        image = tv_tensors.Image(torch.tensor(image).permute(2, 0, 1))
        masks = {name: tv_tensors.Mask(torch.tensor(depth)[None]) for name, depth in depths.items()}
        image, rotated = self._rotate(image, {name: mask for name, mask in masks.items() if name not in self._unrotated})
        image, masks = self._augment(image, masks | rotated)
        return normalise(image.as_subclass(Tensor)), {k: m.as_subclass(Tensor).contiguous() for k, m in masks.items()}


def _uniform(bounds: tuple[float, float], shape: tuple[int, ...] = ()) -> Tensor:
    return torch.empty(shape).uniform_(*bounds)
