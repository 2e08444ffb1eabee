"""The arithmetic of the released code, which the quirks of `tiekd/config/quirks.py` use in place of the method's own.

The functions keep the order of operations of the released code because rounding matters: the released SSIM subtracts squared
depths in float32, and a bin at the floor of the density takes part or not.

B: batch; K: bins; H, W: pixels. Depths are in m.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tiekd.bins import DENSITY_FLOOR, DepthBins
from tiekd.losses.combine import AllSum, LossTerm, masked_mean
from tiekd.losses.depth import WINDOW
from tiekd.models.prediction import Prediction

EPSILON = 1e-7
FIRST_ROW, CROP_WIDTH = 110, 704  # px
MASKED_LOGIT = -1000.0  # of a bin whose density is below the floor: 0 after a softmax, unless all bins have it

TargetDPM = Callable[[Tensor], Tensor]  # depth_teacher [B, 1, H, W] m -> q [B, K, H, W]
Divergence = Callable[[Tensor, Tensor], Tensor]  # like `tiekd.bins.kl_divergence`


@torch.no_grad()
def uniform_outside_dpm(depth_teacher: Tensor, bins: DepthBins, sigma: float, temperature: float = 1.0) -> Tensor:
    """`target_dpm`, except that a depth far from every bin gets the uniform distribution.

    Shapes and units as there. Sigma is rounded to float32 whatever the dtype of the depths is.
    """
    variance = torch.tensor(sigma, dtype=torch.float32, device=depth_teacher.device) ** 2
    peak = 1 / (2 * math.pi * variance).sqrt()
    squares = (_released_centers(bins).to(depth_teacher).view(1, -1, 1, 1) - depth_teacher).square_()
    density = squares.div_(-2 * variance).exp_().mul_(peak)  # in place: the largest tensor of a training
    far = density < DENSITY_FLOOR
    return density.div_(temperature).masked_fill_(far, MASKED_LOGIT).softmax(dim=1)


def _released_centers(bins: DepthBins) -> Tensor:
    """[K] m; for uniform bins from edges in float32, where `DepthBins` only rounds at the end."""
    if bins.spacing != "uniform":
        return bins.centers
    edges = torch.linspace(bins.min_depth, bins.max_depth, bins.n_bins + 1, dtype=torch.float32)
    return 0.5 * (edges[:-1] + edges[1:])


def kl_with_epsilon(q: Tensor, logits: Tensor) -> Tensor:
    """sum q log(q / (p + eps) + eps) over bins with p = softmax(logits) != 0: [B, K, H, W] twice to [B, 1, H, W]."""
    p = torch.softmax(logits, dim=1)
    terms = q * torch.log(q / (p + EPSILON) + EPSILON)
    return terms.masked_fill(p == 0, 0).sum(dim=1, keepdim=True)


def padded_ssim_map(a: Tensor, b: Tensor, data_range: float, absolute: bool = False) -> Tensor:
    """`ssim_map` with zero padding, so that windows extend beyond the border: [B, 1, H, W] m twice to [B, 1, H, W]."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    moments = torch.cat([a, b, a * a, b * b, a * b], dim=1)
    window = _released_window().to(moments).expand(moments.shape[1], 1, WINDOW, WINDOW)
    blurred = F.conv2d(moments, window, padding=WINDOW // 2, groups=moments.shape[1])
    mean_a, mean_b, square_a, square_b, product = blurred.split(1, dim=1)
    mean_aa, mean_bb, mean_ab = mean_a**2, mean_b**2, mean_a * mean_b
    central = [square_a - mean_aa, square_b - mean_bb, product - mean_ab]
    variance_a, variance_b, covariance = [moment.abs() for moment in central] if absolute else central
    numerator = (2 * mean_ab + c1) * (2 * covariance + c2)
    return numerator / ((mean_aa + mean_bb + c1) * (variance_a + variance_b + c2))


def _released_window() -> Tensor:
    """A Gaussian window of sigma 1.5 px, [11, 11], float32; computed in float64 up to its normalization."""
    steps = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    line = torch.exp(-(steps**2) / (2 * 1.5**2)).float()
    return torch.outer(line / line.sum(), line / line.sum())


class DenseDPMTerm:
    """`DPMTerm` with its own formulas, on maps over all bins at full size."""

    def __init__(self, teacher_dpm: TargetDPM, divergence: Divergence):
        self.teacher_dpm, self.divergence = teacher_dpm, divergence

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        assert prediction.dpm_logits is not None, "L_DPM needs the head dpm"
        return masked_mean(self.divergence(self.teacher_dpm(target), prediction.dpm_logits), valid, all_sum)


class PaddedSSIMTerm:
    """`SSIMTerm` with zero padding. A window with an invalid pixel does not count."""

    def __init__(self, data_range: float, absolute: bool = False):
        self.data_range, self.absolute = data_range, absolute

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        similarity = padded_ssim_map(prediction.depth, target, self.data_range, self.absolute)
        valid_window = F.max_pool2d((~valid).to(target.dtype), WINDOW, stride=1, padding=WINDOW // 2) == 0
        # The mean of 1 - similarity would keep digits that the released value has lost.
        total = masked_mean(torch.ones_like(similarity), valid_window, all_sum)
        return total - masked_mean(similarity, valid_window, all_sum)


class SSIMFromRow110:
    """SSIM of maps 704 px wide without their first 110 rows; 110 rows of zeros are appended, and count."""

    def __init__(self, term: LossTerm):
        self.term = term

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        shifted = Prediction(_shift_up(prediction.depth))
        return self.term(shifted, _shift_up(target), _shift_up(valid, fill=True), all_sum)


class DPMFromRow110:
    """L_DPM in the same way. The student's DPM is 0 in the appended rows, so they add nothing to the sum."""

    def __init__(self, term: LossTerm):
        self.term = term

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        if target.shape[-1] != CROP_WIDTH:
            return self.term(prediction, target, valid, all_sum)
        assert prediction.dpm_logits is not None, "L_DPM needs the head dpm"
        rows = (..., slice(FIRST_ROW, None), slice(None))
        cropped = Prediction(prediction.depth[rows], prediction.dpm_logits[rows])
        loss = self.term(cropped, target[rows], valid[rows], all_sum)
        return loss * masked_mean(_shift_up(torch.ones_like(target)), _shift_up(valid, fill=True), all_sum)


def _shift_up(maps: Tensor, fill: float = 0) -> Tensor:
    """Drop the first 110 rows of maps [..., H, 704] and append as many rows of `fill`; other widths are unchanged."""
    if maps.shape[-1] != CROP_WIDTH:
        return maps
    kept = maps[..., FIRST_ROW:, :]
    return F.pad(kept, (0, 0, 0, maps.shape[-2] - kept.shape[-2]), value=fill)
