"""A student: image to depth, and to a DPM where its head has one."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tiekd.bins import DepthBins, expected_depth
from tiekd.config import RunConfig
from tiekd.students.decoder import DenseDepthDecoder
from tiekd.students.encoders import build_encoder


class Prediction(NamedTuple):
    depth: Tensor  # [B, 1, H, W] m, float32
    dpm_logits: Tensor | None = None  # [B, K, H, W], float32; their softmax over K is the student's DPM
    bin_centers: Tensor | None = None  # [B, K] m, float32; the bins that AdaBins chose for each image


class DPMHead(nn.Module):
    """A distribution over depth bins per pixel; depth is its expectation."""

    def __init__(self, channels: int, bins: DepthBins):
        super().__init__()
        self.bins = bins
        self.logits = nn.Conv2d(channels, bins.n_bins, 1)

    def forward(self, features: Tensor) -> Prediction:
        logits = self.logits(features).float()
        return Prediction(expected_depth(torch.softmax(logits, dim=1), self.bins), logits)


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

    def forward(self, image: Tensor) -> Prediction:
        """image [B, 3, H, W], normalised; H and W as the frames have them."""
        return self.head(self.decoder(self.encoder(image), image.shape[-2:]))


def build_depth_student(config: RunConfig) -> DepthStudent:
    """The timm encoder, decoder and head that a run's config names."""
    encoder = build_encoder(config.student)
    decoder = DenseDepthDecoder(
        encoder.feature_info.channels(), encoder.feature_info.reduction(), config.student.decoder_channels
    )
    if config.student.head == "dpm":
        return DepthStudent(encoder, decoder, DPMHead(decoder.channels_out, DepthBins.of(config)))
    return DepthStudent(encoder, decoder, RegressionHead(decoder.channels_out, config.data.max_depth))
