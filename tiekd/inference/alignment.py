"""Fit a prediction to the ground truth of an image, over the pixels that a protocol counts.

    median            s p, s = median(g) / median(p)                         Zhou et al. 2017, Monodepth2
    log_lsq           s p, s = exp(mean(ln g - ln p))                        Eigen et al. 2014, least squares of log depth
    affine_depth      s p + t, least squares of g                            Marigold; evalmde: depth_affine_lst_sq_clip_by_0
    affine_disparity  1 / max(s / p + t, 1 / max(g)), least squares of 1/g   MoGe; evalmde: disparity_affine

with p the predicted and g the true depth. The maps r of a relative teacher are fitted robustly (`align_map`):

    median            s r, s = median(g) / median(r)
    affine_depth      s r + t, least absolute deviations from g
    affine_disparity  1 / max(s r + t, 1 / max_depth), least absolute deviations of s r + t from 1/g

MoGe's `depth_scale` and `depth_affine` are others: they minimize the mean of
|s p + t - g| / g over 64 x 64 of the pixels.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ENOUGH = 50  # pixels with ground truth for the fit of a teacher's map
MOST = 2**16  # pixels, evenly spaced, that a robust fit reads: more only take time
_N_HALVED = 50
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
        return _least_squares(pred, gt)(pred)
    inverse = 1 / pred.clamp_min(_TINY)
    return 1 / _least_squares(inverse, 1 / gt)(inverse).clamp_min(1 / gt.max())


class UnalignedError(Exception):
    """A teacher's map cannot be fitted to the ground truth of its frame; says why."""


def align_map(alignment: str, relative: np.ndarray, depth_gt: np.ndarray, max_depth: float) -> np.ndarray:
    """Fit a relative teacher's map to the ground truth of its frame: [H, W] twice to float32 [H, W] m, at most `max_depth`.

    alignment: a value of `teacher.align`, but not `none`. relative: depth, or for `affine_disparity` disparity, of any unit.
    depth_gt: in m; 0 where there is none. Pixels of which the fit is not above 0 m have no depth, which is 0. Raises
    UnalignedError if ground truth has too few pixels, or the fitted scale is not above 0.
    """
    values, truth = (torch.from_numpy(np.ascontiguousarray(array)).double().flatten() for array in (relative, depth_gt))
    known = torch.nonzero((truth > 0) & (truth <= max_depth))[:, 0]
    if len(known) < ENOUGH:
        raise UnalignedError(f"{len(known)} pixels have ground truth, needed {ENOUGH}")
    known = known[torch.linspace(0, len(known) - 1, min(len(known), MOST), dtype=torch.float64).long()]
    x, gt = values[known], truth[known]
    if alignment == "median":
        fit = _Line(gt.quantile(0.5) / x.quantile(0.5), 0.0, 0.0)
    else:
        fit = _least_absolute(x, 1 / gt if alignment == "affine_disparity" else gt)
    if not 0 < fit.scale < math.inf:
        raise UnalignedError(f"the fitted scale is {fit.scale:.3g}, needed one above 0")
    aligned = fit(values)
    if alignment == "affine_disparity":
        aligned = 1 / aligned.clamp_min(1 / max_depth)
    return aligned.clamp(0, max_depth).float().numpy().reshape(relative.shape)


class _Line(NamedTuple):
    """scale (x - at) + value."""

    scale: Tensor
    at: float | Tensor
    value: float | Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.at) * self.scale + self.value


def _least_squares(x: Tensor, y: Tensor) -> _Line:
    """The line with the least sum of squared differences from y; the mean of y if x is the same everywhere."""
    centered, mean = x - x.mean(), y.mean()
    variance = centered @ centered
    return _Line(centered @ (y - mean) / variance if variance > 0 else torch.zeros_like(mean), x.mean(), mean)


def _least_absolute(x: Tensor, y: Tensor) -> _Line:
    """The line with the least sum of absolute differences from y; the median of y if x is the same everywhere.

    The best value for a scale is the median of what remains. The sum is then convex in the scale: its slope is bisected.
    """
    at = x.mean()
    centered = x - at

    def slope(scale: Tensor) -> Tensor:
        rest = y - scale * centered
        return -(centered @ (rest - rest.quantile(0.5)).sign())

    scale = torch.zeros_like(at)
    if x.max() > x.min():
        step = (y.std() + 1e-9 * y.abs().max()) / x.std()
        low = high = _least_squares(x, y).scale
        while slope(low) > 0:
            low, step = low - step, 2 * step
        while slope(high) < 0:
            high, step = high + step, 2 * step
        for _ in range(_N_HALVED):
            scale = (low + high) / 2
            low, high = (scale, high) if slope(scale) < 0 else (low, scale)
    return _Line(scale, at, (y - scale * centered).quantile(0.5))
