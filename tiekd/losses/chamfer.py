"""Chamfer distance between the bins that a network chooses for an image and the depths of the image.

B: images; N: bins; M: pixels.
"""

import torch
from torch import Tensor

from tiekd.losses.combine import AllSum, masked_mean
from tiekd.models.prediction import Prediction


class ChamferTerm:
    """Chamfer distance, m^2, between an image's bin centers and its valid depths (AdaBins, Bhat et al. 2021, eq. 4).

    Mean over the images of all ranks that have a valid depth. A target of 0 is never valid.
    """

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        assert prediction.bin_centers is not None, "the chamfer distance needs the head adaptive_bins"
        measured = (valid & (target > 0)).flatten(1)
        distance = chamfer_distance(prediction.bin_centers, target.flatten(1), measured)
        return masked_mean(distance, measured.any(dim=1), all_sum)


def chamfer_distance(centers: Tensor, depths: Tensor, measured: Tensor) -> Tensor:
    """Mean squared distance from centers to the nearest measured depth, plus the same from depths to centers: [B] m^2.

    centers [B, N] m; depths [B, M] m, without gradient; measured [B, M] bool. Returns 0 for an image without measured depths.
    All images are processed at once: selecting the measured depths would make the host wait for the device.
    """
    count = measured.sum(dim=1, keepdim=True)
    centers = centers.sort(dim=1).values
    ordered = depths.masked_fill(~measured, torch.inf).sort(dim=1).values  # at infinity, nearest to nothing
    nearest_depths = torch.where(count > 0, _nearest(ordered, centers), centers)
    to_depths = (centers - nearest_depths).square().mean(dim=1)
    to_centers = (depths - _nearest(centers, depths)).square().masked_fill(~measured, 0).sum(dim=1)
    return to_depths + to_centers / count[:, 0].clamp_min(1)


def _nearest(points: Tensor, queries: Tensor) -> Tensor:
    """The point nearest to each query: [B, P] in ascending order and [B, Q] to [B, Q]."""
    midpoints = ((points[:, :-1] + points[:, 1:]) / 2).detach().contiguous()
    return points.gather(1, torch.searchsorted(midpoints, queries.detach().contiguous()))
