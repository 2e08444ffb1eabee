"""Depth as a class: losses of the student's distribution over bins against the bin of the target.

They keep the logits of all bins of a batch in memory, unlike L_DPM.

K: bins.
"""

import torch
from torch import Tensor

from tiekd.bins import DepthBins, nearest_bin
from tiekd.config import RunConfig
from tiekd.losses.combine import AllSum, WeightedTerm, masked_mean
from tiekd.models.prediction import Prediction


class CrossEntropyTerm:
    """-log p of the bin nearest to the target (Cao et al. 2017, https://arxiv.org/abs/1605.02305), mean over valid pixels."""

    def __init__(self, bins: DepthBins):
        self.bins = bins

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        assert prediction.dpm_logits is not None, "the cross-entropy needs the head dpm"
        log_p = torch.log_softmax(prediction.dpm_logits, dim=1)
        wanted = nearest_bin(self.bins.centers.to(target, non_blocking=True), target.contiguous())
        return masked_mean(-log_p.gather(1, wanted), valid, all_sum)


class OrdinalTerm:
    """Ordinal regression (DORN, Fu et al. 2018, https://arxiv.org/abs/1806.02446), mean over valid pixels.

    -(sum_{k < l} log P(bin > k) + sum_{k >= l} log P(bin <= k)) with l the bin nearest to the target. DORN predicts each of the
    probabilities; here they are the cumulative sums of the student's distribution. k = 0 .. K - 2, since P(bin <= K - 1) = 1.
    A probability below the smallest number of its dtype (float32: 1e-38) counts as that and has no gradient.
    """

    def __init__(self, bins: DepthBins):
        self.bins = bins

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        assert prediction.dpm_logits is not None, "ordinal regression needs the head dpm"
        # [B, H, W, K]: on CPUs, sums along contiguous numbers take a third of the time.
        p = torch.softmax(prediction.dpm_logits, dim=1).movedim(1, -1).contiguous()
        below = p.cumsum(dim=-1)[..., :-1]  # P(bin <= k)
        above = p.flip(-1).cumsum(dim=-1).flip(-1)[..., 1:]  # P(bin > k); 1 - below would round small ones away
        wanted = nearest_bin(self.bins.centers.to(target, non_blocking=True), target.contiguous())
        k = torch.arange(below.shape[-1], device=target.device)
        likelihood = torch.where(k < wanted.movedim(1, -1), above, below).clamp_min(torch.finfo(p.dtype).tiny)
        return masked_mean(-likelihood.log().sum(dim=-1).unsqueeze(1), valid, all_sum)


def _bins(config: RunConfig) -> DepthBins:
    return DepthBins(config.bins.n_bins, *config.data.depth_range, config.bins.spacing)


def cross_entropy(config: RunConfig) -> dict[str, WeightedTerm]:
    """The cross-entropy of the target's bin."""
    return {"cross_entropy": WeightedTerm(1.0, CrossEntropyTerm(_bins(config)))}


def ordinal(config: RunConfig) -> dict[str, WeightedTerm]:
    """Ordinal regression over bins."""
    return {"ordinal": WeightedTerm(1.0, OrdinalTerm(_bins(config)))}
