"""Depth bins and the Depth Probability Map (DPM).

B: batch; K: bins; H, W: pixels. Depths are in m, float32.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

DENSITY_FLOOR = 1e-16  # 1/m; bins of lower density are not part of the softmax
LOG2_ZERO = -1e4  # stands for log2(0): finite, so that 0 times it is 0


@dataclass(frozen=True)
class DepthBins:
    """`n_bins` bins that partition [min_depth, max_depth], in equal steps of depth, log depth or inverse depth."""

    n_bins: int
    min_depth: float
    max_depth: float
    spacing: Literal["uniform", "log", "inverse"] = "uniform"

    def __post_init__(self) -> None:
        if self.n_bins < 2:
            raise ValueError(f"n_bins counts bins and must be at least 2, got {self.n_bins}")
        if not 0 < self.min_depth < self.max_depth:
            raise ValueError(f"bins need 0 < min_depth < max_depth, got {self.min_depth} and {self.max_depth}")
        if self.spacing not in _SPACINGS:
            raise ValueError(f"spacing must be one of {', '.join(_SPACINGS)}, got {self.spacing!r}")

    @cached_property
    def edges(self) -> Tensor:
        """[K + 1] m, ascending."""
        to_scale, from_scale = _SPACINGS[self.spacing]
        # On the CPU even if networks are built on PyTorch's meta device, without memory.
        ends = torch.tensor([self.min_depth, self.max_depth], dtype=torch.float64, device="cpu")
        low, high = to_scale(ends).tolist()
        edges = from_scale(torch.linspace(low, high, self.n_bins + 1, dtype=torch.float64, device="cpu"))
        edges[0], edges[-1] = self.min_depth, self.max_depth
        return edges.float()

    @cached_property
    def centers(self) -> Tensor:
        """[K] m, midpoints of the edges."""
        edges = self.edges.double()
        return ((edges[:-1] + edges[1:]) / 2).float()


_SPACINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {  # from depth, and back to it
    "uniform": (lambda depth: depth, lambda scale: scale),
    "log": (torch.log, torch.exp),
    "inverse": (lambda depth: -1 / depth, lambda scale: -1 / scale),
}


@torch.no_grad()
def target_dpm(depth_teacher: Tensor, bins: DepthBins, sigma: float, temperature: float = 1.0) -> Tensor:
    """Distribution of the teacher's depth over bins (the paper's DPM, https://arxiv.org/abs/2402.14340).

    The density of bin k is N(c_k; depth, sigma^2), in 1/m. The softmax of density / temperature is over the bins with a density
    of at least 1e-16; the others get 0. The nearest bin always takes part, so that a depth far outside the bins, or a sigma far
    below their width, has a target, too.

    depth_teacher [B, 1, H, W] m, sigma m. Returns [B, K, H, W], sums to 1 over K, without gradient.
    """
    centers, depth = bins.centers.to(depth_teacher), depth_teacher.contiguous()
    dpm = target_scores(centers, depth, nearest_bin(centers, depth), sigma, temperature).exp2_()
    return dpm.div_(dpm.sum(dim=1, keepdim=True))


def nearest_bin(centers: Tensor, depth: Tensor) -> Tensor:
    """Index of the bin whose center is nearest to a depth: [K] m and contiguous [*] m to int64 [*]."""
    return torch.searchsorted((centers[1:] + centers[:-1]) / 2, depth)


def target_scores(
    centers: Tensor, depth: Tensor, nearest: Tensor, sigma: float, temperature: float, out: Tensor | None = None
) -> Tensor:
    """log2 of the teacher's DPM relative to its value at the nearest bin; at most `LOG2_ZERO` where it is 0.

    centers [K] m; depth [*, 1, H, W] m; nearest, its `nearest_bin`. Returns [*, K, H, W], in `out` if given.
    """
    area = sigma * math.sqrt(2 * math.pi)  # of a Gaussian of height 1
    scale = math.log2(math.e) / (area * temperature)
    # In place, since a map over all bins is the largest tensor of a training. On CPUs exp takes three times as long as exp2,
    # and thirty times where the result is 0.
    bump = torch.sub(centers.view(-1, 1, 1), depth, out=out)
    bump = torch.addcmul(bump.new_zeros(()), bump, bump, value=-math.log2(math.e) / (2 * sigma**2), out=bump).exp2_()
    highest = bump.gather(-3, nearest)
    torch.threshold_(bump, DENSITY_FLOOR * area, LOG2_ZERO / scale).scatter_(-3, nearest, highest)
    return torch.add(highest.mul_(-scale), bump, alpha=scale, out=bump)


class DPMTarget(NamedTuple):
    """The arguments of `target_dpm` except for the bins."""

    depth: Tensor  # [B, 1, H, W] m, the teacher's
    sigma: float  # m
    temperature: float

    def scores(self, depth: Tensor, nearest: Tensor, centers: Tensor, out: Tensor) -> Tensor:
        """`target_scores` of pixels [P], in `out` [K, P]."""
        depth, nearest = depth.view(1, 1, -1), nearest.view(1, 1, -1)
        return target_scores(centers, depth, nearest, self.sigma, self.temperature, out=out.unsqueeze(1)).squeeze(1)


def expected_depth(dpm: Tensor, bins: DepthBins) -> Tensor:
    """Expected depth sum_k p_k c_k: [B, K, H, W] to [B, 1, H, W] m."""
    return torch.einsum("bkhw,k->bhw", dpm, bins.centers.to(dpm)).unsqueeze(1)


def kl_divergence(q: Tensor, logits: Tensor) -> Tensor:
    """KL(q || softmax(logits)) at each pixel: [B, K, H, W] twice to [B, 1, H, W]."""
    log_p = torch.log_softmax(logits, dim=1)
    entropy = torch.special.entr(q).sum(dim=1, keepdim=True)
    cross_entropy = -(q * log_p).sum(dim=1, keepdim=True)
    return cross_entropy - entropy
