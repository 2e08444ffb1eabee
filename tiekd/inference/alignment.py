"""Fit a prediction to the ground truth of an image, over the pixels that a protocol counts.

    median            s p, s = median(g) / median(p)                         Zhou et al. 2017, Monodepth2
    log_lsq           s p, s = exp(mean(ln g - ln p))                        Eigen et al. 2014, least squares of log depth
    affine_depth      s p + t, least squares of g                            Marigold; evalmde: depth_affine_lst_sq_clip_by_0
    affine_disparity  1 / max(s / p + t, 1 / max(g)), least squares of 1/g   MoGe; evalmde: disparity_affine

with p the predicted and g the true depth. MoGe's `depth_scale` and `depth_affine` are others: they minimize the mean of
|s p + t - g| / g over 64 x 64 of the pixels.
"""

import torch
from torch import Tensor

_TINY = 1e-6  # m; smaller predictions have neither a logarithm nor a disparity


def align(alignment: str, pred: Tensor, gt: Tensor, log_gt: Tensor, ratio: float) -> Tensor:
    """Align the predicted depth of the valid pixels of one image. It may leave every depth range, and be negative.

    alignment: of ALIGNMENTS, but not `none`. pred, gt, log_gt [N] float64, N >= 1. ratio: median(pred) / median(gt).
    """
    if alignment == "median":
        return pred / ratio
    if alignment == "log_lsq":
        return pred * torch.exp((log_gt - torch.log(pred.clamp_min(_TINY))).mean())
    if alignment == "affine_depth":
        return _least_squares(pred, gt)
    disparity = _least_squares(1 / pred.clamp_min(_TINY), 1 / gt)
    return 1 / disparity.clamp_min(1 / gt.max())


def _least_squares(x: Tensor, y: Tensor) -> Tensor:
    """s x + t with the least sum of squared differences from y; the mean of y if x is the same everywhere."""
    centered, mean = x - x.mean(), y.mean()
    variance = centered @ centered
    return centered * (centered @ (y - mean) / variance) + mean if variance > 0 else mean.expand_as(x)
