"""How well the bins that a network chose for an image fit the depths that the image holds.

B: images; N: bins; M: pixels.
"""

import torch
from torch import Tensor

from tiekd.losses.combine import AllSum, masked_mean
from tiekd.models.student import Prediction


class ChamferTerm:
    """Chamfer distance, m^2, between an image's bin centers and its valid depths (AdaBins, Bhat et al. 2021, eq. 4).

    Mean over the images of all ranks that have a valid depth; a target of 0 is none.
    """

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        assert prediction.bin_centers is not None, "the chamfer distance needs the head adaptive_bins"
        known = (valid & (target > 0)).flatten(1)
        return masked_mean(chamfer_distance(prediction.bin_centers, target.flatten(1), known), known.any(dim=1), all_sum)


def chamfer_distance(centers: Tensor, depths: Tensor, known: Tensor) -> Tensor:
    """Mean squared distance to the nearest, from centers to known depths plus from these to the centers: [B] m^2.

    centers [B, N] m; depths [B, M] m, which get no gradient; known [B, M] bool. 0 for an image without known depths. All
    images at once and without a look at how many depths are known, for which the host would wait for the device.
    """
    count = known.sum(dim=1, keepdim=True)
    centers = centers.sort(dim=1).values
    ordered = depths.masked_fill(~known, torch.inf).sort(dim=1).values  # the unknown last, where they are nearest to nothing
    nearest_depths = torch.where(count > 0, _nearest(ordered, centers), centers)
    to_depths = (centers - nearest_depths).square().mean(dim=1)
    to_centers = (depths - _nearest(centers, depths)).square().masked_fill(~known, 0).sum(dim=1)
    return to_depths + to_centers / count[:, 0].clamp_min(1)


def _nearest(points: Tensor, queries: Tensor) -> Tensor:
    """For each query the nearest point: [B, P], ascending, and [B, Q] to [B, Q]."""
    between = ((points[:, :-1] + points[:, 1:]) / 2).detach().contiguous()
    return points.gather(1, torch.searchsorted(between, queries.detach().contiguous()))
