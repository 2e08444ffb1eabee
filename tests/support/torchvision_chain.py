"""The augmentation as a chain of torchvision's transforms on whole frames: plain, slow, and what training has always seen."""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from tiekd.config import AugmentConfig
from tiekd.data.image_io import Size
from tiekd.data.transforms import IMAGE_MEAN, IMAGE_STD


class ColourJitter(v2.Transform):
    """Gamma, then brightness, then a factor per channel. Images [3, H, W] on 0 .. 255; returns float32 on 0 .. 255."""

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, augment: AugmentConfig, white: float):
        super().__init__()
        self.augment, self.white = augment, white

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        gamma, brightness = _uniform(self.augment.gamma), _uniform(self.augment.brightness)
        return {"gamma": gamma, "factor": brightness * _uniform(self.augment.colour, (3, 1, 1))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        image = (inpt.float() / self.white) ** params["gamma"] * params["factor"]
        return tv_tensors.wrap((image * self.white).clamp(0, 255), like=inpt)


class TorchvisionChain:
    """What `TrainTransform` computes, from depths in m; draws from PyTorch's own generator."""

    def __init__(self, augment: AugmentConfig, crop: Size, quirks: Collection[str] = ()):
        rotation = v2.RandomRotation(augment.rotate_degrees, interpolation=v2.InterpolationMode.BILINEAR)
        colour = ColourJitter(augment, white=1.0 if "gamma_on_255" in quirks else 255.0)
        self._rotate = v2.RandomApply([rotation], augment.rotate_p)
        self._unrotated = {"depth_teacher"} if "teacher_not_rotated" in quirks else set()
        flip, cut = v2.RandomHorizontalFlip(augment.flip_p), v2.RandomCrop(crop)
        self._augment = v2.Compose([flip, cut, v2.RandomApply([colour], augment.colour_p)])

    def __call__(self, image: np.ndarray, depths: dict[str, np.ndarray]) -> tuple[Tensor, dict[str, Tensor]]:
        image = tv_tensors.Image(torch.tensor(image).permute(2, 0, 1))
        masks = {name: tv_tensors.Mask(torch.tensor(depth)[None]) for name, depth in depths.items()}
        image, rotated = self._rotate(image, {name: mask for name, mask in masks.items() if name not in self._unrotated})
        image, masks = self._augment(image, masks | rotated)
        image = v2.functional.normalize(image.as_subclass(Tensor).float(), IMAGE_MEAN, IMAGE_STD)
        return image, {name: mask.as_subclass(Tensor) for name, mask in masks.items()}


def _uniform(bounds: tuple[float, float], shape: tuple[int, ...] = ()) -> Tensor:
    return torch.empty(shape).uniform_(*bounds)
