"""Depth metrics of one image, and their means over images.

An image's metrics are over its valid pixels, in float64. A data set's metrics are means over its images with valid pixels.
With e = ln pred - ln gt:
    abs_rel mean(|gt - pred| / gt)      sq_rel mean((gt - pred)^2 / gt)     rmse sqrt(mean((gt - pred)^2)), m
    rmse_log sqrt(mean(e^2))            log10 mean|log10 gt - log10 pred|   silog 100 sqrt(mean(e^2) - mean(e)^2)
    delta1, 2, 3: share of pixels with max(gt / pred, pred / gt) < 1.25, 1.25^2, 1.25^3
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tiekd.config.labels import METRICS

AGREEMENT = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3")
AGREEMENT_METRICS = tuple(f"{name}_teacher" for name in AGREEMENT)


def depth_metrics(
    depth_pred: Tensor | np.ndarray, depth_gt: Tensor | np.ndarray, valid_mask: Tensor | np.ndarray
) -> dict[str, float]:
    """Compute the metrics of one image; all NaN if no pixel is valid.

    depth_pred, depth_gt m, positive where valid; valid_mask bool; all of one shape.
    """
    mask = torch.as_tensor(valid_mask, dtype=torch.bool)
    pred, gt = (torch.as_tensor(depth)[mask].double() for depth in (depth_pred, depth_gt))
    return metrics_of_pixels(pred, gt, torch.log(pred), torch.log(gt))


def metrics_of_pixels(pred: Tensor, gt: Tensor, log_pred: Tensor, log_gt: Tensor) -> dict[str, float]:
    """Compute the metrics of the valid pixels of one image, given their logarithms, too; all NaN if there are none.

    All [N], float64; depths in m, positive.
    """
    if not gt.numel():
        return dict.fromkeys(METRICS, math.nan)
    error, difference, ratio = log_pred - log_gt, gt - pred, torch.maximum(gt / pred, pred / gt)
    square, square_error = difference**2, (error**2).mean()
    values = torch.stack(
        [
            (difference.abs() / gt).mean(),
            (square / gt).mean(),
            square.mean().sqrt(),
            square_error.sqrt(),
            error.abs().mean() / math.log(10),
            100 * (square_error - error.mean() ** 2).clamp_min(0).sqrt(),
            *(torch.count_nonzero(ratio < 1.25**power).double() / gt.numel() for power in (1, 2, 3)),
        ]
    )
    return dict(zip(METRICS, values.tolist(), strict=True))


def agreement_metrics(
    depth_pred: Tensor | np.ndarray, depth_teacher: Tensor | np.ndarray, first_row: int = 0
) -> dict[str, float]:
    """Compute seven metrics of a prediction against the teacher's map instead of ground truth.

    depth_pred, depth_teacher [..., H, W] m. Every pixel from row `first_row` on with a teacher depth counts, whatever the crop
    and the depth range of ground truth are. These are the `*_T` metrics of the released code, except that it interprets a
    teacher map with a maximum above 10000 as raw 16-bit values (/ 65535 * 80), while maps here are always in m.
    """
    pred, teacher = (torch.as_tensor(depth)[..., first_row:, :] for depth in (depth_pred, depth_teacher))
    metrics = depth_metrics(pred, teacher, teacher > 0)
    return {f"{name}_teacher": metrics[name] for name in AGREEMENT}


def scale_ratio(depth_pred: np.ndarray, depth_gt: np.ndarray) -> float:
    """Compute median prediction / median ground truth over the valid pixels [N] of one image; NaN if there are none.

    Far from 1, the prediction has another scale or another unit.
    """
    return float(np.median(depth_pred) / np.median(depth_gt)) if depth_gt.size else math.nan


def median_ratio(rows: Iterable[Mapping[str, float]]) -> float:
    """The median of `scale_ratio` over the images with valid pixels ("n_valid" > 0), at least one."""
    return float(np.median([row["median_ratio"] for row in rows if row["n_valid"]]))


def mean_metrics(rows: Iterable[Mapping[str, float]], names: Sequence[str] = METRICS) -> dict[str, float]:
    """Mean over the images with valid pixels ("n_valid" > 0); all NaN if there are none."""
    measured = [row for row in rows if row["n_valid"]]
    if not measured:
        return dict.fromkeys(names, math.nan)
    return {name: sum(row[name] for row in measured) / len(measured) for name in names}
