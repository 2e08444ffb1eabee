"""Terms between two depth maps: scale-invariant log error, squared error, reverse Huber error, structural similarity."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tiekd.config import RunConfig
from tiekd.losses.combine import AllSum, WeightedTerm, masked_mean
from tiekd.models.prediction import Prediction

LOG_EPS = 1e-3  # m; keeps the logarithm of a prediction near 0 finite
WINDOW = 11  # px


class SITerm:
    """Scale-invariant log error (Eigen et al. 2014, https://arxiv.org/abs/1406.2283, in the form of BTS and AdaBins).

    sqrt(var(g) + mean_weight * mean(g)^2) with g = log(pred + eps) - log(target + eps) and the unbiased variance. A target of 0
    has no logarithm and is never valid.
    """

    def __init__(self, mean_weight: float):
        self.mean_weight = mean_weight

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        valid = valid & (target > 0)
        error = torch.log(prediction.depth + LOG_EPS) - torch.log(target.masked_fill(~valid, 1.0) + LOG_EPS)
        mean = masked_mean(error, valid, all_sum)
        count = all_sum(valid.sum().to(error.dtype))
        squares = all_sum(((error - mean) ** 2).masked_fill(~valid, 0).sum())
        variance = squares / (count - 1).clamp_min(1)
        # The slope of the root is infinite at 0, but a perfect prediction should get no gradient.
        return (variance + self.mean_weight * mean**2).clamp_min(1e-12).sqrt() * (count > 0)


class MSETerm:
    """Mean squared error, m^2."""

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        return masked_mean((prediction.depth - target) ** 2, valid, all_sum)


class BerHuTerm:
    """Reverse Huber error, m (Laina et al. 2016, https://arxiv.org/abs/1606.00373).

    |x| where |x| <= c, else (x^2 + c^2) / (2 c), with x = pred - target and c = max |x| / 5. The maximum is over the valid
    pixels of an image, so that it does not depend on the number of ranks, and has no gradient.
    """

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        error = (prediction.depth - target).abs()
        largest = error.detach().masked_fill(~valid, 0).amax(dim=(1, 2, 3), keepdim=True)
        threshold = (largest / 5).clamp_min(torch.finfo(error.dtype).tiny)
        quadratic = (error.square() / threshold + threshold) / 2
        return masked_mean(torch.where(error <= threshold, error, quadratic), valid, all_sum)


def berhu(config: RunConfig) -> dict[str, WeightedTerm]:
    """The reverse Huber error."""
    return {"berhu": WeightedTerm(1.0, BerHuTerm())}


class SSIMTerm:
    """1 - SSIM (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861), Gaussian window of 11 x 11 px and sigma 1.5 px.

    A window counts if it lies inside the image and all its pixels are valid. `data_range` is the dynamic range of depth in m.
    """

    def __init__(self, data_range: float, absolute: bool = False):
        self.data_range, self.absolute = data_range, absolute

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        similarity = ssim_map(prediction.depth, target, self.data_range, self.absolute)
        valid_window = F.max_pool2d((~valid).to(target.dtype), WINDOW, stride=1) == 0
        return masked_mean(1 - similarity, valid_window, all_sum)


def ssim_map(a: Tensor, b: Tensor, data_range: float, absolute: bool = False) -> Tensor:
    """Structural similarity of each window inside the image: [B, 1, H, W] m twice to [B, 1, H - 10, W - 10], at most 1.

    With `absolute`, variances and covariance are replaced by their absolute values: anticorrelated windows count as similar.
    """
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    # Second moments about a common offset: the squares of depths would cancel badly in float32.
    offset = b.detach().mean()
    x, y = a - offset, b - offset
    moments = _blur(torch.cat([x, y, x * x, y * y, x * y], dim=1))
    mx, my, mxx, myy, mxy = moments.split(1, dim=1)
    variance_x, variance_y, covariance = mxx - mx * mx, myy - my * my, mxy - mx * my
    if absolute:
        variance_x, variance_y, covariance = variance_x.abs(), variance_y.abs(), covariance.abs()
    mean_x, mean_y = mx + offset, my + offset
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance * structure


def _blur(maps: Tensor) -> Tensor:
    """Convolve each channel with the Gaussian window, separably, without padding."""
    steps = torch.arange(WINDOW, dtype=maps.dtype, device=maps.device) - WINDOW // 2
    window = torch.exp(-(steps**2) / (2 * 1.5**2))
    window = (window / window.sum()).expand(maps.shape[1], 1, 1, WINDOW)
    maps = F.conv2d(maps, window, groups=maps.shape[1])
    return F.conv2d(maps, window.transpose(2, 3), groups=maps.shape[1])
