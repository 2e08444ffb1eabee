"""Depth metrics of one image, and their mean over images.

All are taken over an image's valid pixels, in float64; a data set's value is the mean over its images that have any.
With e = ln pred - ln gt:
    abs_rel mean(|gt - pred| / gt)      sq_rel mean((gt - pred)^2 / gt)     rmse sqrt(mean((gt - pred)^2)), m
    rmse_log sqrt(mean(e^2))            log10 mean|log10 gt - log10 pred|   silog 100 sqrt(mean(e^2) - mean(e)^2)
    delta1, 2, 3: share of pixels with max(gt / pred, pred / gt) < 1.25, 1.25^2, 1.25^3
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from tiekd.config.labels import METRICS

AGREEMENT = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3")
AGREEMENT_METRICS = tuple(f"{name}_teacher" for name in AGREEMENT)


def depth_metrics(depth_pred: Tensor, depth_gt: Tensor, valid_mask: Tensor) -> dict[str, float]:
    """The metrics of one image; NaN for each when no pixel is valid.

    depth_pred, depth_gt m and positive where valid; valid_mask bool; all of one shape (tensors or arrays).
    """
    mask = torch.as_tensor(valid_mask, dtype=torch.bool)
    pred, gt = (torch.as_tensor(depth)[mask].double() for depth in (depth_pred, depth_gt))
    if not gt.numel():
        return dict.fromkeys(METRICS, math.nan)
    error = torch.log(pred) - torch.log(gt)
    ratio = torch.maximum(gt / pred, pred / gt)
    difference = gt - pred
    values = torch.stack(
        [
            (difference.abs() / gt).mean(),
            (difference**2 / gt).mean(),
            (difference**2).mean().sqrt(),
            (error**2).mean().sqrt(),
            error.abs().mean() / math.log(10),
            100 * ((error**2).mean() - error.mean() ** 2).clamp_min(0).sqrt(),
            *((ratio < 1.25**power).double().mean() for power in (1, 2, 3)),
        ]
    )
    return dict(zip(METRICS, values.tolist(), strict=True))


def agreement_metrics(depth_pred: Tensor, depth_teacher: Tensor, first_row: int = 0) -> dict[str, float]:
    """How near a prediction is to the teacher's map: seven of the metrics, the teacher in the place of ground truth.

    depth_pred, depth_teacher [..., H, W] m (tensors or arrays). Every pixel from `first_row` down that has a teacher depth
    takes part, so all of a dense map; neither the crop nor the depth range of ground truth applies. These are the `*_T` metrics
    of the released code. That code takes a teacher map with a maximum above 10000 for raw 16-bit values, and makes metres of it
    (/ 65535 * 80); here a map is metres, always.
    """
    pred, teacher = (torch.as_tensor(depth)[..., first_row:, :] for depth in (depth_pred, depth_teacher))
    metrics = depth_metrics(pred, teacher, teacher > 0)
    return {f"{name}_teacher": metrics[name] for name in AGREEMENT}


def mean_metrics(rows: Iterable[Mapping[str, float]], names: Sequence[str] = METRICS) -> dict[str, float]:
    """The mean over images that have valid pixels ("n_valid" > 0); NaN for each metric when none has."""
    measured = [row for row in rows if row["n_valid"]]
    if not measured:
        return dict.fromkeys(names, math.nan)
    return {name: sum(row[name] for row in measured) / len(measured) for name in names}
