"""Errors after each image's, or each part of an image's, own normalization: invariant to a scale and a shift of the depth.

Alone they leave the student without a scale in m; add a part such as `si`.

B: images; M: pixels.
"""

import torch
from torch import Tensor

from tiekd.config import RunConfig
from tiekd.losses.combine import AllSum, WeightedTerm, masked_mean, measured
from tiekd.losses.depth import LOG_EPS
from tiekd.models.prediction import Prediction

ENOUGH = 10  # valid pixels for a median
SMALLEST_SCALE = 1e-6  # m, or of the logarithm; keeps a constant map finite
TRIMMED = 0.2  # share of an image's pixels, those with the largest errors, that do not count
GRIDS = (1, 2, 4)  # cells per side


class ScaleAndShiftInvariantTerm:
    """Scale-and-shift-invariant mean absolute error (MiDaS, Ranftl et al. 2020, https://arxiv.org/abs/1907.01341).

    (1 / 2M) sum |(d - t(d)) / s(d) - (d* - t(d*)) / s(d*)| over the M valid pixels of an image, with t the median and s the
    mean of |d - t|; the mean over the images of all ranks with at least 10 valid pixels. The published d is disparity; here d
    is the depth, or with `log` log(depth + eps), whose scale is an exponent and whose shift is a factor of the depth. With
    `trim`, a share of each image's pixels, those with the largest errors, does not count (published: 0.2), and M stays.
    """

    def __init__(self, log: bool = False, trim: float = 0.0):
        self.log, self.trim = log, trim

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        valid = measured(target, valid).flatten(1)
        maps = [prediction.depth.flatten(1), target.flatten(1).masked_fill(~valid, 1.0)]
        predicted, wanted = (normalized(torch.log(m + LOG_EPS) if self.log else m, valid) for m in maps)
        error = (predicted - wanted).abs().masked_fill(~valid, 0)
        count = valid.sum(dim=1)
        if self.trim:
            order = error.masked_fill(~valid, torch.inf).argsort(dim=1)
            place = torch.arange(error.shape[1], device=error.device)
            kept = place < (count * (1 - self.trim)).floor().unsqueeze(1)
            error = error.gather(1, order).masked_fill(~kept, 0)
        return masked_mean(error.sum(dim=1) / (2 * count.clamp_min(1)), count >= ENOUGH, all_sum)


class LocalNormalizationTerm:
    """Mean absolute error after normalization within contexts: the image, its quarters and its sixteenths.

    The mean over the three grids of the mean over pixels of |N(d) - N(d*)|, where N(d) = (d - t(d)) / s(d) within the pixel's
    cell, as in `ScaleAndShiftInvariantTerm`: the spatial contexts of hierarchical normalization (Zhang et al. 2022,
    https://arxiv.org/abs/2210.09670), on which Distill Any Depth (He et al. 2025, https://arxiv.org/abs/2502.19204)
    builds. Its other half, teacher and student on different crops of an image, needs the teacher's network; a teacher's maps
    do not have it. Cells with fewer than 10 valid pixels do not count.
    """

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        valid = measured(target, valid)
        maps = torch.stack([prediction.depth, target.masked_fill(~valid, 1.0), valid.to(target.dtype)])
        levels = []
        for n_cells in GRIDS:
            errors, counted = [], []
            for rows in maps.tensor_split(n_cells, dim=3):
                for predicted, wanted, known in rows.tensor_split(n_cells, dim=4):
                    inside = known.flatten(1) > 0
                    error = normalized(predicted.flatten(1), inside) - normalized(wanted.flatten(1), inside)
                    errors.append(error.abs())
                    counted.append(inside & (inside.sum(dim=1, keepdim=True) >= ENOUGH))
            levels.append(masked_mean(torch.cat(errors, dim=1), torch.cat(counted, dim=1), all_sum))
        return torch.stack(levels).mean()


def normalized(values: Tensor, valid: Tensor) -> Tensor:
    """(d - t) / s with the median t and the mean s of |d - t| over valid pixels: [B, M] twice to [B, M], 0 elsewhere.

    All images are processed at once: selecting the valid pixels would make the host wait for the device.
    """
    count = valid.sum(dim=1, keepdim=True)
    ordered = values.masked_fill(~valid, torch.finfo(values.dtype).max).sort(dim=1).values
    last = (count - 1).clamp_min(0)
    median = (ordered.gather(1, last // 2) + ordered.gather(1, (last + 1) // 2)).div(2).masked_fill(count == 0, 0)
    centered = (values - median).masked_fill(~valid, 0)
    return centered / (centered.abs().sum(dim=1, keepdim=True) / count.clamp_min(1)).clamp_min(SMALLEST_SCALE)


def ssi_mae(config: RunConfig) -> dict[str, WeightedTerm]:
    """The scale-and-shift-invariant mean absolute error."""
    return {"ssi_mae": WeightedTerm(1.0, ScaleAndShiftInvariantTerm())}


def ssi_trimmed(config: RunConfig) -> dict[str, WeightedTerm]:
    """Its trimmed form."""
    return {"ssi_trimmed": WeightedTerm(1.0, ScaleAndShiftInvariantTerm(trim=TRIMMED))}


def ssi_log(config: RunConfig) -> dict[str, WeightedTerm]:
    """The same of the logarithm of the depth."""
    return {"ssi_log": WeightedTerm(1.0, ScaleAndShiftInvariantTerm(log=True))}


def local_norm(config: RunConfig) -> dict[str, WeightedTerm]:
    """The error after local normalization."""
    return {"local_norm": WeightedTerm(1.0, LocalNormalizationTerm())}
