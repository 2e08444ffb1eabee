"""What the quirks of `tiekd/config/quirks.py` put in the place of the method's own arithmetic.

The functions keep the released order of operations, since rounding shows: the released SSIM is a difference of squared metres
in float32, and a bin at the floor of the density is in or out.

B: batch; K: bins; H, W: pixels. Depths are metres.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tiekd.bins import DENSITY_FLOOR, DepthBins
from tiekd.losses.combine import AllSum, LossTerm, masked_mean
from tiekd.losses.depth import WINDOW
from tiekd.models.student import Prediction

RELEASED_SIGMA = 0.5  # m; of every released TIE-KD run
EPSILON = 1e-7
FIRST_ROW, CROP_WIDTH = 110, 704  # px
MASKED_LOGIT = -1000.0  # logit of a bin whose density lies below the floor: 0 after a softmax, unless all bins have it


@torch.no_grad()
def uniform_outside_dpm(depth_teacher: Tensor, bins: DepthBins, sigma: float, temperature: float = 1.0) -> Tensor:
    """`target_dpm`, but that a depth from which every bin is far gets the uniform distribution.

    Shapes and units as there. Sigma is a number of float32, whatever the depths are.
    """
    variance = torch.tensor(sigma, dtype=torch.float32, device=depth_teacher.device) ** 2
    peak = 1 / (2 * math.pi * variance).sqrt()
    squares = (_released_centers(bins).to(depth_teacher).view(1, -1, 1, 1) - depth_teacher).square_()
    density = squares.div_(-2 * variance).exp_().mul_(peak)  # in place: the largest tensor of a training
    far = density < DENSITY_FLOOR
    return density.div_(temperature).masked_fill_(far, MASKED_LOGIT).softmax(dim=1)


def _released_centers(bins: DepthBins) -> Tensor:
    """[K] m; of uniform bins, with edges computed in float32, where `DepthBins` rounds at the end."""
    if bins.spacing != "uniform":
        return bins.centers
    edges = torch.linspace(bins.min_depth, bins.max_depth, bins.n_bins + 1, dtype=torch.float32)
    return 0.5 * (edges[:-1] + edges[1:])


def kl_with_epsilon(q: Tensor, logits: Tensor) -> Tensor:
    """sum q log(q / (p + eps) + eps) over the bins where p = softmax(logits) is not 0: [B, K, H, W] twice to [B, 1, H, W]."""
    p = torch.softmax(logits, dim=1)
    terms = q * torch.log(q / (p + EPSILON) + EPSILON)
    return terms.masked_fill(p == 0, 0).sum(dim=1, keepdim=True)


def padded_ssim_map(a: Tensor, b: Tensor, data_range: float, absolute: bool = False) -> Tensor:
    """`ssim_map` of windows that reach over the border, where both depths are 0 m: [B, 1, H, W] m twice to [B, 1, H, W]."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    moments = torch.cat([a, b, a * a, b * b, a * b], dim=1)
    window = _released_window().to(moments).expand(moments.shape[1], 1, WINDOW, WINDOW)
    blurred = F.conv2d(moments, window, padding=WINDOW // 2, groups=moments.shape[1])
    mean_a, mean_b, square_a, square_b, product = blurred.split(1, dim=1)
    mean_aa, mean_bb, mean_ab = mean_a**2, mean_b**2, mean_a * mean_b
    spread = [square_a - mean_aa, square_b - mean_bb, product - mean_ab]
    variance_a, variance_b, covariance = [moment.abs() for moment in spread] if absolute else spread
    numerator = (2 * mean_ab + c1) * (2 * covariance + c2)
    return numerator / ((mean_aa + mean_bb + c1) * (variance_a + variance_b + c2))


def _released_window() -> Tensor:
    """[11, 11], float32: a Gaussian of sigma 1.5 px, exact until it is normalised."""
    steps = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    line = torch.exp(-(steps**2) / (2 * 1.5**2)).float()
    return torch.outer(line / line.sum(), line / line.sum())


TargetDPM = Callable[[Tensor], Tensor]  # depth_teacher [B, 1, H, W] m -> q [B, K, H, W]
Divergence = Callable[[Tensor, Tensor], Tensor]  # as `tiekd.bins.kl_divergence`


class DenseDPMTerm:
    """`DPMTerm` by its own formulas, from maps over all bins at full size."""

    def __init__(self, teacher_dpm: TargetDPM, divergence: Divergence):
        self.teacher_dpm, self.divergence = teacher_dpm, divergence

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        assert prediction.dpm_logits is not None, "L_DPM needs the head dpm"
        return masked_mean(self.divergence(self.teacher_dpm(target), prediction.dpm_logits), valid, all_sum)


class PaddedSSIMTerm:
    """`SSIMTerm` over windows that reach over the border; those with an invalid pixel do not count."""

    def __init__(self, data_range: float, absolute: bool = False):
        self.data_range, self.absolute = data_range, absolute

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        similarity = padded_ssim_map(prediction.depth, target, self.data_range, self.absolute)
        whole = F.max_pool2d((~valid).to(target.dtype), WINDOW, stride=1, padding=WINDOW // 2) == 0
        # The mean of 1 - similarity would keep digits that the released value has lost.
        return masked_mean(torch.ones_like(similarity), whole, all_sum) - masked_mean(similarity, whole, all_sum)


class SSIMFromRow110:
    """An SSIM between maps 704 px wide, without their first 110 rows; as many rows of zeros follow, which count."""

    def __init__(self, term: LossTerm):
        self.term = term

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        lowered = prediction._replace(depth=_lowered(prediction.depth))
        return self.term(lowered, _lowered(target), _lowered(valid, fill=True), all_sum)


class DPMFromRow110:
    """L_DPM likewise. In the rows of zeros, the student's DPM is 0 too: they cost nothing."""

    def __init__(self, term: LossTerm):
        self.term = term

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        if target.shape[-1] != CROP_WIDTH:
            return self.term(prediction, target, valid, all_sum)
        rows = (..., slice(FIRST_ROW, None), slice(None))
        assert prediction.dpm_logits is not None, "L_DPM needs the head dpm"
        kept = Prediction(prediction.depth[rows], prediction.dpm_logits[rows])
        cost = self.term(kept, target[rows], valid[rows], all_sum)
        return cost * masked_mean(_lowered(torch.ones_like(target)), _lowered(valid, fill=True), all_sum)


def _lowered(maps: Tensor, fill: float = 0) -> Tensor:
    """Maps [..., H, 704] without their first 110 rows, `fill` below them to keep the size; other widths stay as they are."""
    if maps.shape[-1] != CROP_WIDTH:
        return maps
    kept = maps[..., FIRST_ROW:, :]
    return F.pad(kept, (0, 0, 0, maps.shape[-2] - kept.shape[-2]), value=fill)
