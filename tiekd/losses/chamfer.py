"""How well the bins that a network chose for an image fit the depths that the image holds."""

import torch
from torch import Tensor

from tiekd.losses.combine import AllSum, masked_mean
from tiekd.students.student import Prediction


class ChamferPart:
    """Chamfer distance, m^2, between an image's bin centers and its valid depths (AdaBins, Bhat et al. 2021, eq. 4).

    Mean over the images of all ranks that have a valid depth; a target of 0 is none.
    """

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        valid = valid & (target > 0)
        distances = [
            chamfer_distance(centers, depths[known]) if known.any() else 0 * centers.sum()
            for centers, depths, known in zip(prediction.bin_centers, target, valid, strict=True)
        ]
        return masked_mean(torch.stack(distances), valid.flatten(1).any(dim=1), all_sum)


def chamfer_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distance to the nearest, from a to b plus from b to a, m^2; a [N] m and b [M] m are not empty."""
    a, b = a.sort().values, b.sort().values
    return (a - _nearest(b, a)).square().mean() + (b - _nearest(a, b)).square().mean()


def _nearest(points: Tensor, queries: Tensor) -> Tensor:
    """For each query, the nearest point; points [N] ascending."""
    between = ((points[:-1] + points[1:]) / 2).detach()
    return points[torch.searchsorted(between, queries.detach())]
