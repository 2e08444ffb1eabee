"""The output of a network."""

from typing import NamedTuple, Self

from torch import Tensor

from tiekd.bins import DepthBins, kl_divergence, target_dpm
from tiekd.config.specs import DEFAULT_DPM


class Prediction(NamedTuple):
    """Depth, and what else a network predicts. B: batch; K: bins; H, W: size of the images."""

    depth: Tensor  # [B, 1, H, W] m, float32
    dpm_logits: Tensor | None = None  # [B, K, H, W], float32; their softmax over K is the student's DPM
    bin_centers: Tensor | None = None  # [B, K] m, float32; the bins that AdaBins chooses for each image

    def divergence(
        self, depth_teacher: Tensor, bins: DepthBins, sigma: float, temperature: float, dpm: str = DEFAULT_DPM
    ) -> Tensor:
        """KL(q || p) at each pixel, q the teacher's DPM, p the student's: [B, 1, H, W] m to [B, 1, H, W]."""
        assert self.dpm_logits is not None
        return kl_divergence(target_dpm(depth_teacher, bins, sigma, temperature, dpm), self.dpm_logits)

    def clamp_depth(self, low: float, high: float) -> Self:
        """Clamp depth to a range in m."""
        return self._replace(depth=self.depth.clamp(low, high))
