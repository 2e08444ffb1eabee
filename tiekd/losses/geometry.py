"""Normals of surfaces, from the points that depths stand for.

The camera is assumed, since data sets do not give its intrinsics: square pixels, an optical axis through the middle of the
training crop, and a focal length that sees `loss.fov` across the width of a whole frame (`DataConfig.evaluation_size`).

B: images; H, W: pixels; N: triples.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tiekd.config import RunConfig
from tiekd.losses.combine import AllSum, WeightedTerm, masked_mean, measured
from tiekd.losses.sampling import random_numbers, sample_pixels
from tiekd.models.prediction import Prediction

TRIPLES = 0.15  # per pixel, as in the released code of virtual normals
MIN_DISTANCE = 0.6  # m, between the points of a triple
MIN_ANGLE, MAX_ANGLE = 30.0, 120.0  # degrees, between the sides of a triple


class NormalTerm:
    """1 - cosine of the angle between surface normals (Hu et al. 2019, https://arxiv.org/abs/1803.08673).

    The normal at a pixel is that of the plane through the points of the pixel, its right and its lower neighbor (Hu et al. take
    the slopes of the depth map in place of points). Mean over the pixels of which all three are valid.
    """

    def __init__(self, focal_length: float):
        self.focal_length = focal_length

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        valid = measured(target, valid)
        whole = valid[..., :-1, :-1] & valid[..., :-1, 1:] & valid[..., 1:, :-1]
        ours, theirs = (surface_normals(depth, self.focal_length) for depth in (prediction.depth, target))
        # Of unit vectors: (a - b)^2 / 2 = 1 - cos, without the rounding of 1 - 1.
        return masked_mean((ours - theirs).square().sum(dim=1, keepdim=True) / 2, whole, all_sum)


class VirtualNormalTerm:
    """Distance between virtual normals (Yin et al. 2019, https://arxiv.org/abs/1907.12209): mean of |n - n*|_1.

    A virtual normal is the normal of the plane through the points A, B, C of three random valid pixels. A triple counts if, by
    the target, the angles at A and B lie between 30 and 120 degrees and its points are more than 0.6 m apart. The pixels are
    chosen by `tiekd.losses.sampling`, 0.15 triples per pixel.
    """

    def __init__(self, focal_length: float):
        self.focal_length = focal_length

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        valid = measured(target, valid)
        n_triples = math.ceil(TRIPLES * target[0].numel())
        pixels = sample_pixels(random_numbers(target, 3 * n_triples), valid.flatten(1))
        image = torch.arange(len(target), device=target.device).unsqueeze(1)
        ours, theirs = (
            (depth * rays(depth, self.focal_length)).flatten(2).mT[image, pixels].unflatten(1, (3, -1))
            for depth in (prediction.depth, target)
        )
        counted = _well_shaped(theirs) & valid.flatten(1).any(dim=1, keepdim=True)
        distance = (_plane_normals(ours) - _plane_normals(theirs)).abs().sum(dim=-1)
        return masked_mean(distance, counted, all_sum)


def rays(depth: Tensor, focal_length: float) -> Tensor:
    """The point at a depth of 1 m of each pixel of depth [B, 1, H, W]: [1, 3, H, W] m; x to the right, y down, z forward."""
    height, width = depth.shape[-2:]
    y = (torch.arange(height, dtype=depth.dtype, device=depth.device) - (height - 1) / 2) / focal_length
    x = (torch.arange(width, dtype=depth.dtype, device=depth.device) - (width - 1) / 2) / focal_length
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width), torch.ones_like(depth[0, 0])])[None]


def surface_normals(depth: Tensor, focal_length: float) -> Tensor:
    """Unit normals of the planes through a pixel, its right and its lower neighbor: [B, 1, H, W] m to [B, 3, H - 1, W - 1]."""
    ray, step = rays(depth, focal_length), depth[..., :-1, :-1] / focal_length
    # The difference of two points from that of their depths, which float32 keeps.
    right = (depth[..., :-1, 1:] - depth[..., :-1, :-1]) * ray[..., :-1, 1:]
    down = (depth[..., 1:, :-1] - depth[..., :-1, :-1]) * ray[..., 1:, :-1]
    zero = torch.zeros_like(step)
    right = right + torch.cat([step, zero, zero], dim=1)
    down = down + torch.cat([zero, step, zero], dim=1)
    return F.normalize(torch.linalg.cross(right * focal_length, down * focal_length, dim=1), dim=1)


def _plane_normals(points: Tensor) -> Tensor:
    """Unit normals of the planes through three points: [B, 3, N, 3] m to [B, N, 3]."""
    a, b, c = points.unbind(1)
    return F.normalize(torch.linalg.cross(b - a, c - a), dim=-1)


def _well_shaped(points: Tensor) -> Tensor:
    """Whether triples [B, 3, N, 3] m are neither too small nor too flat: bool [B, N]."""
    a, b, c = points.unbind(1)
    sides = torch.stack([b - a, c - a, c - b])
    lengths = sides.norm(dim=-1)
    at_a = (sides[0] * sides[1]).sum(dim=-1) / (lengths[0] * lengths[1])
    at_b = (-sides[0] * sides[2]).sum(dim=-1) / (lengths[0] * lengths[2])
    low, high = math.cos(math.radians(MAX_ANGLE)), math.cos(math.radians(MIN_ANGLE))
    angles = torch.stack([at_a, at_b])
    return (lengths > MIN_DISTANCE).all(dim=0) & ((angles >= low) & (angles <= high)).all(dim=0)


def _focal_length(config: RunConfig) -> float:
    """In px, of a frame of the data set."""
    return config.data.evaluation_size[1] / 2 / math.tan(math.radians(config.loss.fov / 2))


def normal(config: RunConfig) -> dict[str, WeightedTerm]:
    """The angle between surface normals."""
    return {"normal": WeightedTerm(1.0, NormalTerm(_focal_length(config)))}


def virtual_normal(config: RunConfig) -> dict[str, WeightedTerm]:
    """The distance between virtual normals."""
    return {"virtual_normal": WeightedTerm(1.0, VirtualNormalTerm(_focal_length(config)))}
