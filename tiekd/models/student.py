"""A student: image to depth, and to a DPM where its head has one."""

import copy
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tiekd.bins import DepthBins, DPMTarget, expected_depth, kl_divergence, target_dpm
from tiekd.config import Kernel, RunConfig
from tiekd.models.decoder import DenseDepthDecoder
from tiekd.models.encoder import build_encoder
from tiekd.models.fused import depth_and_divergence, depth_of_features


class Prediction(NamedTuple):
    depth: Tensor  # [B, 1, H, W] m, float32
    dpm_logits: Tensor | None = None  # [B, K, H, W], float32; their softmax over K is the student's DPM
    bin_centers: Tensor | None = None  # [B, K] m, float32; the bins that AdaBins chose for each image

    def divergence(self, depth_teacher: Tensor, bins: DepthBins, sigma: float, temperature: float) -> Tensor:
        """KL of the student's DPM from the teacher's: [B, 1, H, W] m to [B, 1, H, W]."""
        return kl_divergence(target_dpm(depth_teacher, bins, sigma, temperature), self.dpm_logits)

    def clamp_depth(self, low: float, high: float) -> Self:
        """The same with depth clamped to a range in m."""
        return self._replace(depth=self.depth.clamp(low, high))


class DPMPrediction:
    """A `Prediction` of a DPM head: its features and projection, from which the rest is computed when it is asked for.

    Over all bins at full size only `dpm_logits` is, which may need gigabytes.
    """

    bin_centers = None

    def __init__(self, features: Tensor, projection: nn.Conv2d, centers: Tensor, bins: DepthBins, kernel: Kernel):
        """features [B, C, H, W]; centers [K] m, those of the bins, on the features' device; kernel of tiekd/models/fused.py."""
        self.features, self.projection, self.centers, self.bins = features, projection, centers, bins
        self.kernel = kernel

    @cached_property
    def depth(self) -> Tensor:
        if torch.compiler.is_exporting():  # a graph for all sizes has no chunks
            return self.materialize().depth
        return depth_of_features(self.features, self.projection.weight, self.projection.bias, self.centers, self.kernel)

    @property
    def dpm_logits(self) -> Tensor:
        dtype, projection = self.features.dtype, self.projection
        logits = F.conv2d(self.features, projection.weight.to(dtype), projection.bias.to(dtype))
        return logits.to(torch.promote_types(dtype, torch.float32))

    def divergence(self, depth_teacher: Tensor, bins: DepthBins, sigma: float, temperature: float) -> Tensor:
        """As `Prediction.divergence`. Depth comes from the same pass, and so should not be asked for before."""
        assert bins == self.bins, (bins, self.bins)
        teacher = DPMTarget(depth_teacher, sigma, temperature)
        depth, divergence = depth_and_divergence(
            self.features, self.projection.weight, self.projection.bias, self.centers, teacher, self.kernel
        )
        self.__dict__.setdefault("depth", depth)
        return divergence

    def materialize(self) -> Prediction:
        """The same by the formulas of `tiekd/bins.py`, which take a map over all bins at full size each."""
        logits = self.dpm_logits
        return Prediction(expected_depth(torch.softmax(logits, dim=1), self.bins), logits)

    def select(self, images: slice, rows: Tensor, columns: Tensor) -> Self:
        """The same of some images, at the crossings of some rows and columns."""
        features = self.features[images, :, rows][..., columns]
        return type(self)(features, self.projection, self.centers, self.bins, self.kernel)

    def clamp_depth(self, low: float, high: float) -> Self:
        clamped = copy.copy(self)
        clamped.depth = self.depth.clamp(low, high)
        return clamped


class DPMHead(nn.Module):
    """A distribution over depth bins per pixel; depth is its expectation."""

    def __init__(self, channels: int, bins: DepthBins, kernel: Kernel = "torch"):
        super().__init__()
        self.bins, self.kernel = bins, kernel
        self.logits = nn.Conv2d(channels, bins.n_bins, 1)
        self.register_buffer("centers", bins.centers, persistent=False)

    def forward(self, features: Tensor) -> DPMPrediction:
        place = features.device.type
        if torch.is_autocast_enabled(place):  # what is asked for later, outside, runs in the same precision
            features = features.to(torch.get_autocast_dtype(place))
        return DPMPrediction(features, self.logits, self.centers, self.bins, self.kernel)


class RegressionHead(nn.Module):
    """A sigmoid times max_depth."""

    def __init__(self, channels: int, max_depth: float):
        super().__init__()
        self.max_depth = max_depth
        self.depth = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, features: Tensor) -> Prediction:
        return Prediction(torch.sigmoid(self.depth(features).float()) * self.max_depth)


class DepthStudent(nn.Module):
    """Encoder, decoder, head."""

    def __init__(self, encoder: nn.Module, decoder: DenseDepthDecoder, head: DPMHead | RegressionHead):
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head

    def forward(self, image: Tensor) -> Prediction | DPMPrediction:
        """image [B, 3, H, W], normalised; H and W as the frames have them."""
        # The order in which convolutions and resizes are fastest. The weights keep theirs, and so does what is stored of them.
        image = image.contiguous(memory_format=torch.channels_last)
        return self.head(self.decoder(self.encoder(image), image.shape[-2:]))


def build_depth_student(config: RunConfig) -> DepthStudent:
    """The timm encoder, decoder and head that a run's config names."""
    encoder = build_encoder(config.student)
    decoder = DenseDepthDecoder(
        encoder.feature_info.channels(), encoder.feature_info.reduction(), config.student.decoder_channels
    )
    if config.student.head == "dpm":
        head = DPMHead(decoder.channels_out, DepthBins.from_config(config.data, config.bins), config.execution.kernel)
        return DepthStudent(encoder, decoder, head)
    return DepthStudent(encoder, decoder, RegressionHead(decoder.channels_out, config.data.max_depth))
