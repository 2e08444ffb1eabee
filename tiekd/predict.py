"""A trained network's depth and distribution: the one way in which it is used, on test frames and on images of any size."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tiekd.config import RunConfig
from tiekd.data.transforms import normalise
from tiekd.errors import UserError
from tiekd.images import Size, pixels
from tiekd.photos import Photo

AS_IT_IS = 1.1  # times more or fewer pixels than the view: KITTI's frames before they are cut to it have up to 1.09
SHORTEST = 32  # px; the stride of the deepest features


@dataclass(frozen=True)
class Predicted:
    """What a network tells of a batch [B, 3, H, W], on the network's device."""

    depth: Tensor  # [B, 1, H, W] m, float32, within the data's range
    _logits: Tensor | None  # [B, K, H, W]; with flip averaging [2B, K, H, W], the mirrored images' last
    _mirrored: bool

    @property
    @torch.inference_mode()
    def dpm(self) -> Tensor | None:
        """[B, K, H, W], sums to 1 over the run's bins; None where the head has none. Computed whenever it is asked for.

        With flip averaging the mean of both distributions, so that its expectation is the depth, to the run's precision.
        """
        if self._logits is None:
            return None
        dpm = torch.softmax(self._logits, dim=1)
        return _average(dpm) if self._mirrored else dpm


@torch.inference_mode()
def predict(network: nn.Module, images: Tensor, config: RunConfig) -> Predicted:
    """Depth of a batch as the config has it evaluated: its precision, its depth range, its flip averaging.

    images [B, 3, H, W], normalised, on the network's device. With `evaluation.flip_tta` depth is the mean with the mirrored
    image's, flipped back.
    """
    mirrored = config.evaluation.flip_tta
    batch = torch.cat([images, images.flip(-1)]) if mirrored else images
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.optim.precision == "bf16"):
        found = network(batch)
    depth = found.depth.clamp(config.data.min_depth, config.data.max_depth)
    return Predicted((_average(depth) if mirrored else depth).float(), found.dpm_logits, mirrored)


def _average(maps: Tensor) -> Tensor:
    """The mean of the straight maps and the mirrored images', flipped back: [2B, ...] to [B, ...]."""
    straight, mirrored = maps.chunk(2)
    return (straight + mirrored.flip(-1)) / 2


# -- images of any size -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PhotoPrediction:
    """What a network tells of an image of height H and width W, which it saw in the size `seen`."""

    photo: Photo
    seen: Size
    depth: np.ndarray  # float32 [H, W] m
    entropy: np.ndarray | None  # float32 [H, W], from 0 (one bin) to 1 (all bins alike); None without distributions
    _dpm: Tensor | None  # [K, *seen]

    def distribution(self, pixel: tuple[int, int]) -> np.ndarray:
        """The distribution [K] at the pixel (x, y) of the image; its expectation is the depth there.

        Raises UserError for a pixel outside, or where the network has no distributions.
        """
        size = self.depth.shape
        if self._dpm is None:
            raise UserError("the network's head has no distributions over depth bins")
        if not (0 <= pixel[0] < size[1] and 0 <= pixel[1] < size[0]):
            raise UserError(f"pixel {pixel[0]},{pixel[1]} lies outside the image of {size[1]} x {size[0]} px (width x height)")
        # Where `F.interpolate` looks, so that distribution and depth come from the same neighbours.
        place = torch.tensor([(2 * at + 1) / length - 1 for at, length in zip(pixel, size[::-1], strict=True)])
        place = place.to(self._dpm).view(1, 1, 1, 2)
        found = F.grid_sample(self._dpm[None], place, padding_mode="border", align_corners=False)
        return found.flatten().cpu().numpy()


def predict_photos(
    network: nn.Module,
    photos: Iterable[Photo],
    config: RunConfig,
    device: torch.device,
    failed: Callable[[str], None],
    batch_size: int = 1,
) -> Iterator[PhotoPrediction]:
    """Depth of images of any size, at their size, in order; images in a row that are seen in one size are seen together.

    What a network cannot see is told to `failed` and left out. Puts the network on the device and into evaluation mode.
    """
    network.to(device).eval()
    view = config.data.evaluation_size
    batch: list[Photo] = []
    size = view
    for photo in photos:
        try:
            fitted = fitted_size(photo.image.shape[:2], view)
        except UserError as error:
            failed(f"{photo.name}: {error}")
            continue
        if batch and (len(batch) == batch_size or fitted != size):
            yield from _predicted(network, batch, size, config, device, failed)
            batch = []
        batch.append(photo)
        size = fitted
    if batch:
        yield from _predicted(network, batch, size, config, device, failed)


def _predicted(
    network: nn.Module,
    photos: list[Photo],
    size: Size,
    config: RunConfig,
    device: torch.device,
    failed: Callable[[str], None],
) -> Iterator[PhotoPrediction]:
    """The predictions of images that are seen in one size."""
    images = torch.stack([_prepared(photo.image, size) for photo in photos]).to(device)
    try:
        found = predict(network, images, config)
    except UserError as error:  # AdaBins does not take every size
        for photo in photos:
            failed(f"{photo.name}: {error}")
        return
    dpm = found.dpm
    entropy = None if dpm is None else _entropy(dpm)
    for row, photo in enumerate(photos):
        whole = photo.image.shape[:2]
        yield PhotoPrediction(
            photo,
            size,
            _enlarged(found.depth[row], whole),
            None if entropy is None else _enlarged(entropy[row], whole),
            None if dpm is None else dpm[row],
        )


def fitted_size(size: Size, view: Size) -> Size:
    """The size in which a network that is evaluated on frames of size `view` sees an image of any size.

    A network's metres hold for the focal length of its frames, in pixels. An image with about as many pixels as they have is
    seen as it is; any other is scaled, its aspect kept, to as many, which is right for cameras with about their angle of view.
    Raises UserError for an image so long that its short side would have less than 32 px.
    """
    factor = (view[0] * view[1] / (size[0] * size[1])) ** 0.5
    if 1 / AS_IT_IS <= factor**2 <= AS_IT_IS:
        return size
    fitted = round(size[0] * factor), round(size[1] * factor)
    if min(fitted) < SHORTEST:
        raise UserError(f"{pixels(size)} px would be seen as {pixels(fitted)}; the short side needs at least {SHORTEST} px")
    return fitted


def _prepared(image: np.ndarray, size: Size) -> Tensor:
    """An image as networks see it. image uint8 [H, W, 3], RGB; returns [3, *size], normalised."""
    tensor = normalise(image)
    if tensor.shape[-2:] == size:
        return tensor
    return F.interpolate(tensor[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


def _enlarged(map_: Tensor, size: Size) -> np.ndarray:
    """A map [1, h, w] at an image's `size`, bilinear: [H, W]."""
    if map_.shape[-2:] != size:
        map_ = F.interpolate(map_[None], size, mode="bilinear", align_corners=False)[0]
    return map_[0].cpu().numpy()


def _entropy(dpm: Tensor) -> Tensor:
    """How undecided each distribution is: [B, K, H, W] to [B, 1, H, W], over that of all bins alike."""
    return torch.special.entr(dpm).sum(dim=1, keepdim=True) / math.log(dpm.shape[1])
