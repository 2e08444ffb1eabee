"""A trained network's depth and distribution: the one way in which it is used, on test frames and on images of any size."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tiekd.config import RunConfig
from tiekd.data.image_io import Size, pixels
from tiekd.data.transforms import normalise
from tiekd.errors import UserError
from tiekd.inference.inputs import InputImage
from tiekd.models.student import DPMPrediction, Prediction

UNSCALED_RATIO = 1.1  # times more or fewer pixels than the view: KITTI's frames before they are cut to it have up to 1.09
MIN_SIDE = 32  # px; the stride of the deepest features
ROWS = 16  # px; of which the distributions are made at a time


@dataclass(frozen=True)
class BatchPrediction:
    """What a network tells of a batch [B, 3, H, W], on the network's device."""

    depth: Tensor  # [B, 1, H, W] m, float32, within the data's range
    _found: Prediction | DPMPrediction  # with flip averaging of 2B images, the mirrored ones last
    _mirrored: bool

    @property
    def has_dpm(self) -> bool:
        """Whether there are distributions over the run's bins."""
        return isinstance(self._found, DPMPrediction)

    @torch.inference_mode()
    def dpm_at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The distributions at the crossings of some rows [R] and columns [S]: [B, K, R, S], sums to 1 over the run's bins.

        With flip averaging the mean of both distributions, so that its expectation is the depth, to the run's precision.
        """
        n_images, width = len(self.depth), self.depth.shape[-1]
        straight = _dpm(self._found.select(slice(n_images), rows, columns))
        if not self._mirrored:
            return straight
        return (straight + _dpm(self._found.select(slice(n_images, None), rows, width - 1 - columns))) / 2

    @property
    def dpm(self) -> Tensor | None:
        """The distributions of all pixels, [B, K, H, W]; None where the head has none. Computed whenever it is asked for."""
        return self.dpm_at(*self._places()) if self.has_dpm else None

    @torch.inference_mode()
    def entropy(self) -> Tensor:
        """How undecided each distribution is: [B, 1, H, W], from 0 (one bin) to 1 (all bins alike)."""
        rows, columns = self._places()
        # A few rows at a time: of all pixels, the distributions may need gigabytes.
        return torch.cat([_entropy(self.dpm_at(part, columns)) for part in rows.split(ROWS)], dim=2)

    def _places(self) -> tuple[Tensor, Tensor]:
        """All rows and all columns."""
        return tuple(torch.arange(length, device=self.depth.device) for length in self.depth.shape[-2:])


@torch.inference_mode()
def predict(network: nn.Module, images: Tensor, config: RunConfig) -> BatchPrediction:
    """Depth of a batch as the config has it evaluated: its precision, its depth range, its flip averaging.

    images [B, 3, H, W], normalised, on the network's device. With `evaluation.flip_tta` depth is the mean with the mirrored
    image's, flipped back.
    """
    mirrored = config.evaluation.flip_tta
    batch = torch.cat([images, images.flip(-1)]) if mirrored else images
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.optim.precision == "bf16"):
        found = network(batch)
    depth = found.depth.clamp(config.data.min_depth, config.data.max_depth)
    if mirrored:
        straight, other = depth.chunk(2)
        depth = (straight + other.flip(-1)) / 2
    return BatchPrediction(depth.float(), found, mirrored)


def _dpm(found: DPMPrediction) -> Tensor:
    return torch.softmax(found.dpm_logits, dim=1)


def _entropy(dpm: Tensor) -> Tensor:
    """[B, K, H, W] to [B, 1, H, W], over the entropy of all bins alike."""
    return torch.special.entr(dpm).sum(dim=1, keepdim=True) / math.log(dpm.shape[1])


# -- images of any size -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImagePrediction:
    """What a network tells of an image of height H and width W, which it saw in the size `seen`."""

    photo: InputImage
    seen: Size
    depth: np.ndarray  # float32 [H, W] m
    entropy: np.ndarray | None  # float32 [H, W], from 0 (one bin) to 1 (all bins alike); None without distributions
    _found: BatchPrediction  # of the images that were seen together, this one as `_row`
    _row: int

    def distribution(self, pixel: tuple[int, int]) -> np.ndarray:
        """The distribution [K] at the pixel (x, y) of the image; its expectation is the depth there.

        Raises UserError for a pixel outside, or where the network has no distributions.
        """
        size = self.depth.shape
        if not self._found.has_dpm:
            raise UserError("the network's head has no distributions over depth bins")
        if not (0 <= pixel[0] < size[1] and 0 <= pixel[1] < size[0]):
            raise UserError(f"pixel {pixel[0]},{pixel[1]} lies outside the image of {size[1]} x {size[0]} px (width x height)")
        # Where `F.interpolate` looks, so that distribution and depth come from the same neighbours.
        (rows, down), (columns, across) = (
            _neighbours(at, length, seen) for at, length, seen in zip(pixel[::-1], size, self.seen, strict=True)
        )
        device = self._found.depth.device
        around = self._found.dpm_at(torch.tensor(rows, device=device), torch.tensor(columns, device=device))[self._row]
        between = around[:, 0].lerp(around[:, 1], down)
        return between[:, 0].lerp(between[:, 1], across).cpu().numpy()


def predict_images(
    network: nn.Module,
    photos: Iterable[InputImage],
    config: RunConfig,
    device: torch.device,
    failed: Callable[[str], None],
    batch_size: int = 1,
) -> Iterator[ImagePrediction]:
    """Depth of images of any size, at their size, in order; images in a row that are seen in one size are seen together.

    What a network cannot see is told to `failed` and left out. Puts the network on the device and into evaluation mode.
    """
    network.to(device).eval()
    view = config.data.evaluation_size
    batch: list[InputImage] = []
    size = view
    for photo in photos:
        try:
            fitted = network_size(photo.image.shape[:2], view)
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
    photos: list[InputImage],
    size: Size,
    config: RunConfig,
    device: torch.device,
    failed: Callable[[str], None],
) -> Iterator[ImagePrediction]:
    """The predictions of images that are seen in one size."""
    images = torch.stack([_prepared(photo.image, size) for photo in photos]).to(device)
    try:
        found = predict(network, images, config)
    except UserError as error:  # AdaBins does not take every size
        for photo in photos:
            failed(f"{photo.name}: {error}")
        return
    entropy = found.entropy() if found.has_dpm else None
    for row, photo in enumerate(photos):
        whole = photo.image.shape[:2]
        yield ImagePrediction(
            photo,
            size,
            _enlarged(found.depth[row], whole),
            None if entropy is None else _enlarged(entropy[row], whole),
            found,
            row,
        )


def network_size(size: Size, view: Size) -> Size:
    """The size in which a network that is evaluated on frames of size `view` sees an image of any size.

    A network's metres hold for the focal length of its frames, in pixels. An image with about as many pixels as they have is
    seen as it is; any other is scaled, its aspect kept, to as many, which is right for cameras with about their angle of view.
    Raises UserError for an image so long that its short side would have less than 32 px.
    """
    factor = (view[0] * view[1] / (size[0] * size[1])) ** 0.5
    if 1 / UNSCALED_RATIO <= factor**2 <= UNSCALED_RATIO:
        return size
    fitted = round(size[0] * factor), round(size[1] * factor)
    if min(fitted) < MIN_SIDE:
        raise UserError(f"{pixels(size)} px would be seen as {pixels(fitted)}; the short side needs at least {MIN_SIDE} px")
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


def _neighbours(pixel: int, length: int, seen: int) -> tuple[tuple[int, int], float]:
    """The two rows or columns, of `seen`, between which a pixel of `length` lies, and how far it is from the first."""
    place = min(max((pixel + 0.5) * seen / length - 0.5, 0), seen - 1)
    first = int(place)
    return (first, min(first + 1, seen - 1)), place - first
