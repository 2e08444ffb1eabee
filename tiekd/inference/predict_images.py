"""Predict images of any size, at their size."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tiekd.config import RunConfig
from tiekd.data.image_io import Size, format_size
from tiekd.data.transforms import normalize_image
from tiekd.errors import UserError
from tiekd.inference.inputs import InputImage
from tiekd.inference.predict import BatchPrediction, check_finite, predict

UNSCALED_RATIO = 1.1  # up to this ratio of pixel counts an image keeps its size; uncropped KITTI frames have 1.09
MIN_SIDE = 32  # px; stride of the deepest features


@dataclass(frozen=True)
class ImagePrediction:
    """What a network predicts for one image of H x W pixels."""

    image: InputImage
    network_size: Size  # (height, width) px at which the network processed it
    depth: np.ndarray  # float32 [H, W] m
    _batch: BatchPrediction
    _index: int  # of this image in the batch

    @cached_property
    def entropy(self) -> np.ndarray | None:
        """Uncertainty of the distributions: float32 [H, W], from 0 (one bin) to 1 (uniform); None if the head has none."""
        entropy = self._batch.entropy
        return None if entropy is None else _resize_map(entropy[self._index], self.depth.shape)

    def distribution(self, x: int, y: int) -> np.ndarray:
        """Distribution [K] over the depth bins at column x and row y of the image; its expectation is the depth there.

        Raises UserError for a pixel outside the image, or if the network has no DPM head.
        """
        height, width = self.depth.shape
        if not self._batch.has_dpm:
            raise UserError("the network's head has no distributions over depth bins")
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(f"pixel {x},{y} lies outside the image of {width} x {height} px (width x height)")
        # The same neighbors and weights as `F.interpolate` uses for the depth.
        rows, row_weight = _neighbors(y, height, self.network_size[0])
        columns, column_weight = _neighbors(x, width, self.network_size[1])
        device = self._batch.depth.device
        corners = self._batch.dpm_at(torch.tensor(rows, device=device), torch.tensor(columns, device=device))[self._index]
        between = corners[:, 0].lerp(corners[:, 1], row_weight)
        return between[:, 0].lerp(between[:, 1], column_weight).cpu().numpy()


def predict_images(
    network: nn.Module,
    images: Iterable[InputImage],
    config: RunConfig,
    device: torch.device,
    on_error: Callable[[str], None],
    batch_size: int = 1,
) -> Iterator[ImagePrediction]:
    """Predict images of any size, in order; consecutive images of the same network size share a batch.

    An image that the network cannot process is skipped and reported to `on_error`. Raises DivergedError if a prediction is not
    finite. Moves the network to the device and sets it to evaluation mode.
    """
    network.to(device).eval()
    batch: list[InputImage] = []
    batch_image_size = config.data.evaluation_size
    for image in images:
        try:
            size = fit_size(image.size, config.data.evaluation_size)
        except UserError as error:
            on_error(f"{image.name}: {error}")
            continue
        if batch and (len(batch) == batch_size or size != batch_image_size):
            yield from _predict_batch(network, batch, batch_image_size, config, device, on_error)
            batch = []
        batch.append(image)
        batch_image_size = size
    if batch:
        yield from _predict_batch(network, batch, batch_image_size, config, device, on_error)


def _predict_batch(
    network: nn.Module,
    images: list[InputImage],
    size: Size,
    config: RunConfig,
    device: torch.device,
    on_error: Callable[[str], None],
) -> Iterator[ImagePrediction]:
    """Predict images that the network processes at one size."""
    try:
        batch = predict(network, torch.stack([_prepare(image.pixels, size) for image in images]).to(device), config)
    except UserError as error:  # AdaBins does not accept every size
        for image in images:
            on_error(f"{image.name}: {error}")
        return
    for index, image in enumerate(images):
        check_finite(batch.depth[index], image.name)
        yield ImagePrediction(image, size, _resize_map(batch.depth[index], image.size), batch, index)


def fit_size(size: Size, evaluation_size: Size) -> Size:
    """Size at which a network that is evaluated on frames of `evaluation_size` processes an image of `size`.

    A network's metres hold for the focal length of its frames in pixels. An image with about as many pixels as they have keeps
    its size. Any other is scaled to that many pixels with its aspect ratio kept, which is right for cameras with about their
    angle of view. Raises UserError for an image so elongated that its short side would have less than 32 px.
    """
    area_ratio = evaluation_size[0] * evaluation_size[1] / (size[0] * size[1])
    if 1 / UNSCALED_RATIO <= area_ratio <= UNSCALED_RATIO:
        return size
    fitted = round(size[0] * area_ratio**0.5), round(size[1] * area_ratio**0.5)
    if min(fitted) < MIN_SIDE:
        raise UserError(
            f"{format_size(size)} px would be processed at {format_size(fitted)}; the short side needs at least {MIN_SIDE} px"
        )
    return fitted


def _prepare(image: np.ndarray, size: Size) -> Tensor:
    """Normalize an image uint8 [H, W, 3] RGB and resize it: [3, *size]."""
    tensor = normalize_image(image)
    if tensor.shape[-2:] == size:
        return tensor
    return F.interpolate(tensor[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


def _resize_map(map_: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """Resize a map [1, h, w] bilinearly: [H, W]."""
    if map_.shape[-2:] != size:
        map_ = F.interpolate(map_[None], size, mode="bilinear", align_corners=False)[0]
    return map_[0].cpu().numpy()


def _neighbors(pixel: int, length: int, network_length: int) -> tuple[tuple[int, int], float]:
    """The two of `network_length` rows or columns around a pixel of `length`, and the weight of the second one."""
    position = min(max((pixel + 0.5) * network_length / length - 0.5, 0), network_length - 1)
    first = int(position)
    return (first, min(first + 1, network_length - 1)), position - first
