"""Predict depth and depth distributions of a batch of normalized images with a trained network."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from tiekd.config import RunConfig
from tiekd.errors import DivergedError
from tiekd.models.dpm_head import DPMPrediction
from tiekd.models.prediction import Prediction

ENTROPY_ROWS = 16  # px; rows whose distributions are in memory at a time


@dataclass(frozen=True)
class BatchPrediction:
    """What a network predicts for a batch [B, 3, H, W], on the network's device."""

    depth: Tensor  # [B, 1, H, W] m, float32, within the data's range; NaN where the network's output is not finite
    _output: Prediction | DPMPrediction  # with flip averaging of 2B images, the mirrored ones last
    _flip_tta: bool

    @property
    def has_dpm(self) -> bool:
        """Whether the network predicts distributions over the run's bins."""
        return isinstance(self._output, DPMPrediction)

    @torch.inference_mode()
    def dpm_at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Distributions at the intersections of rows [R] and columns [S]: [B, K, R, S], sums to 1 over the run's bins.

        With flip averaging, the mean of both distributions, so that its expectation equals the depth up to the run's precision.
        Requires `has_dpm`.
        """
        n_images, width = len(self.depth), self.depth.shape[-1]
        dpm = self._softmax(slice(n_images), rows, columns)
        if not self._flip_tta:
            return dpm
        return (dpm + self._softmax(slice(n_images, None), rows, width - 1 - columns)) / 2

    def _softmax(self, images: slice, rows: Tensor, columns: Tensor) -> Tensor:
        assert isinstance(self._output, DPMPrediction)
        return torch.softmax(self._output.select(images, rows, columns).dpm_logits, dim=1)

    @property
    def dpm(self) -> Tensor | None:
        """Distributions of all pixels, [B, K, H, W]; None if the head has none. Computed on each access."""
        return self.dpm_at(*self._pixel_indices()) if self.has_dpm else None

    @cached_property
    @torch.inference_mode()
    def entropy(self) -> Tensor | None:
        """Entropy of each distribution over its maximum: [B, 1, H, W], from 0 (one bin) to 1 (uniform); None without a DPM."""
        if not self.has_dpm:
            return None
        rows, columns = self._pixel_indices()
        # A few rows at a time: the distributions of all pixels may need gigabytes.
        return torch.cat([_relative_entropy(self.dpm_at(part, columns)) for part in rows.split(ENTROPY_ROWS)], dim=2)

    def _pixel_indices(self) -> tuple[Tensor, Tensor]:
        """All rows and all columns."""
        height, width = self.depth.shape[-2:]
        return torch.arange(height, device=self.depth.device), torch.arange(width, device=self.depth.device)


@torch.inference_mode()
def predict(network: nn.Module, images: Tensor, config: RunConfig) -> BatchPrediction:
    """Predict a batch as in the run's evaluation: its precision, depth range and flip averaging.

    images [B, 3, H, W], normalized, on the network's device. With `evaluation.flip_tta`, depth is the mean of the prediction
    and of the flipped-back prediction for the mirrored image.
    """
    flip_tta = config.evaluation.flip_tta
    batch = torch.cat([images, images.flip(-1)]) if flip_tta else images
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.optim.precision == "bf16"):
        output = network(batch)
    depth = output.depth.clamp(*config.data.depth_range)
    depth = depth.where(output.depth.isfinite(), torch.nan)  # which clamping would hide
    if flip_tta:
        original, mirrored = depth.chunk(2)
        depth = (original + mirrored.flip(-1)) / 2
    return BatchPrediction(depth.float(), output, flip_tta)


def check_finite(depth: Tensor | np.ndarray, name: str) -> None:
    """Raise DivergedError unless a predicted depth map is finite everywhere. name: of its image."""
    if not torch.as_tensor(depth).isfinite().all():
        raise DivergedError(f"the prediction for {name} is not finite")


def _relative_entropy(dpm: Tensor) -> Tensor:
    """[B, K, H, W] to [B, 1, H, W]: entropy over that of the uniform distribution."""
    return torch.special.entr(dpm).sum(dim=1, keepdim=True) / math.log(dpm.shape[1])
