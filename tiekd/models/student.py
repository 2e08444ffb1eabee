"""Students: a timm encoder, a decoder, and a head that predicts depth."""

import torch
from torch import Tensor, nn

from tiekd.models.decoder import DenseDepthDecoder, FastDepthDecoder
from tiekd.models.dpm_head import DPMHead, DPMPrediction
from tiekd.models.prediction import Prediction


class RegressionHead(nn.Module):
    """Depth as a sigmoid times max_depth."""

    def __init__(self, channels: int, max_depth: float):
        super().__init__()
        self.max_depth = max_depth
        self.depth = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, features: Tensor) -> Prediction:
        """features [B, C, H, W]."""
        return Prediction(torch.sigmoid(self.depth(features).float()) * self.max_depth)


class DepthStudent(nn.Module):
    """Encoder, decoder, head."""

    def __init__(self, encoder: nn.Module, decoder: DenseDepthDecoder | FastDepthDecoder, head: DPMHead | RegressionHead):
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head

    def forward(self, image: Tensor) -> Prediction | DPMPrediction:
        """image [B, 3, H, W], normalized, of any size."""
        # Convolutions and resizing are fastest in this memory format. The weights, and so the stored files, keep the usual one.
        image = image.contiguous(memory_format=torch.channels_last)
        return self.head(self.decoder(self.encoder(image), image.shape[-2:]))
