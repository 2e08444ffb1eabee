"""Depth bins and the Depth Probability Map (DPM).

B: batch; K: bins; H, W: pixels. Depths are in m, float32.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pkgutil import resolve_name
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tiekd.config.specs import DEFAULT_DPM, DPMS

DENSITY_FLOOR = 1e-16  # 1/m; bins of lower density are not part of the softmax
LOG2_E = math.log2(math.e)
LOG2_ZERO = -1e4  # stands for log2(0): finite, so that 0 times it is 0
_LEAST_MASS = 1e-30  # of the reference bin of `integral`, if the depth is so far outside the bins that all have 0


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
def target_dpm(
    depth_teacher: Tensor, bins: DepthBins, sigma: float, temperature: float = 1.0, dpm: str = DEFAULT_DPM
) -> Tensor:
    """Distribution of the teacher's depth over bins (the paper's DPM, https://arxiv.org/abs/2402.14340).

    dpm says how the depth becomes a distribution; those that do not read sigma or temperature ignore it:

    softmax_density   softmax of density / temperature, with the density N(c_k; depth, sigma^2) in 1/m of bin k; over the bins
                      with a density of at least 1e-16, the others get 0
    density           N(c_k; depth, sigma^2), normalized
    integral          the integral of N(x; depth, sigma^2) from edge k to edge k + 1, normalized
    two_hot           linear between the two nearest centers; the first or last bin for a depth beyond their centers
    laplace           exp(-|c_k - depth| / b) with b = sigma / sqrt(2), whose standard deviation is sigma; normalized

    One bin always takes part (see `reference_bin`), so that a depth far outside the bins, or a sigma far below their width, has
    a target, too.

    depth_teacher [B, 1, H, W] m, sigma m. Returns [B, K, H, W], sums to 1 over K, without gradient.
    """
    grid, depth = BinGrid(bins.edges.to(depth_teacher), bins.centers.to(depth_teacher)), depth_teacher.contiguous()
    found = target_scores(grid, depth, reference_bin(grid, depth, dpm), sigma, temperature, dpm).exp2_()
    return found.div_(found.sum(dim=1, keepdim=True))


class BinGrid(NamedTuple):
    """The tensors of `DepthBins` on a device."""

    edges: Tensor  # [K + 1] m
    centers: Tensor  # [K] m


def reference_bin(grid: BinGrid, depth: Tensor, dpm: str = DEFAULT_DPM) -> Tensor:
    """The bin that always takes part: the one of the nearest center; of `integral`, the one that contains the depth.

    depth contiguous [*] m; returns the index, int64 [*].
    """
    if dpm == "integral":  # with unequal bins, the bin of the nearest center may be without any mass
        return torch.searchsorted(grid.edges[1:-1], depth)
    return nearest_bin(grid.centers, depth)


def nearest_bin(centers: Tensor, depth: Tensor) -> Tensor:
    """Index of the bin whose center is nearest to a depth: [K] m and contiguous [*] m to int64 [*]."""
    return torch.searchsorted((centers[1:] + centers[:-1]) / 2, depth)


def target_scores(
    grid: BinGrid,
    depth: Tensor,
    reference: Tensor,
    sigma: float,
    temperature: float,
    dpm: str = DEFAULT_DPM,
    out: Tensor | None = None,
) -> Tensor:
    """log2 of the teacher's DPM relative to its value at the reference bin; at most `LOG2_ZERO` where it is 0.

    depth [*, 1, H, W] m; reference, its `reference_bin`. Returns [*, K, H, W], in `out` if given.
    """
    if out is None:
        out = depth.new_empty(*depth.shape[:-3], len(grid.centers), *depth.shape[-2:])
    return _scores_of(dpm)(grid, depth, reference, sigma, temperature, out)


@cache
def _scores_of(dpm: str) -> Callable[..., Tensor]:
    return resolve_name(DPMS[dpm].scores)


# The scores of each entry of DPMS. They compute in place, since a map over all bins is the largest tensor of a training.


def softmax_density(grid: BinGrid, depth: Tensor, reference: Tensor, sigma: float, temperature: float, out: Tensor) -> Tensor:
    area = sigma * math.sqrt(2 * math.pi)  # of a Gaussian of height 1
    scale = LOG2_E / (area * temperature)
    # On CPUs exp takes three times as long as exp2, and thirty times where the result is 0.
    bump = torch.sub(grid.centers.view(-1, 1, 1), depth, out=out)
    bump = torch.addcmul(bump.new_zeros(()), bump, bump, value=-LOG2_E / (2 * sigma**2), out=bump).exp2_()
    highest = bump.gather(-3, reference)
    torch.threshold_(bump, DENSITY_FLOOR * area, LOG2_ZERO / scale).scatter_(-3, reference, highest)
    return torch.add(highest.mul_(-scale), bump, alpha=scale, out=bump)


def density(grid: BinGrid, depth: Tensor, reference: Tensor, sigma: float, temperature: float, out: Tensor) -> Tensor:
    distance = torch.sub(grid.centers.view(-1, 1, 1), depth, out=out).square_()
    return _falling(distance, reference, LOG2_E / (2 * sigma**2))


def laplace(grid: BinGrid, depth: Tensor, reference: Tensor, sigma: float, temperature: float, out: Tensor) -> Tensor:
    distance = torch.sub(grid.centers.view(-1, 1, 1), depth, out=out).abs_()
    return _falling(distance, reference, LOG2_E * math.sqrt(2) / sigma)


def _falling(distance: Tensor, reference: Tensor, rate: float) -> Tensor:
    """Scores that fall with the distance from the reference bin on, where it is smallest but for rounding."""
    return distance.sub_(distance.gather(-3, reference)).mul_(-rate).clamp_(LOG2_ZERO, 0)


def integral(grid: BinGrid, depth: Tensor, reference: Tensor, sigma: float, temperature: float, out: Tensor) -> Tensor:
    # Twice the mass beyond an edge, on the side of the depth on which it is small and keeps its digits.
    edges = grid.edges.view(-1, 1, 1)
    tails = torch.sub(edges, depth).abs_().div_(sigma * math.sqrt(2)).erfc_()
    mass = torch.sub(tails.narrow(-3, 1, len(edges) - 1), tails.narrow(-3, 0, len(edges) - 1), out=out).abs_()
    inside = (depth > grid.edges[0]) & (depth < grid.edges[-1])
    around = 2 - tails.gather(-3, reference) - tails.gather(-3, reference + 1)
    own = torch.where(inside, around, mass.gather(-3, reference)).clamp_min_(_LEAST_MASS)
    return mass.log2_().sub_(own.log2()).clamp_min_(LOG2_ZERO).scatter_(-3, reference, torch.zeros_like(own))


def two_hot(grid: BinGrid, depth: Tensor, reference: Tensor, sigma: float, temperature: float, out: Tensor) -> Tensor:
    nearest = grid.centers[reference]
    other = (reference + torch.where(depth > nearest, 1, -1)).clamp_(0, len(grid.centers) - 1)
    score = ((depth - nearest) / (grid.centers[other] - depth)).log2_().clamp_min_(LOG2_ZERO)
    # Beyond the first or last center the other bin is the nearest itself, and its score, which means nothing, is overwritten.
    return out.fill_(LOG2_ZERO).scatter_(-3, other, score).scatter_(-3, reference, torch.zeros_like(score))


class DPMTarget(NamedTuple):
    """The arguments of `target_dpm`, with the bins on the device."""

    depth: Tensor  # [B, 1, H, W] m, the teacher's
    grid: BinGrid
    sigma: float  # m
    temperature: float
    dpm: str = DEFAULT_DPM

    def pixels(self) -> tuple[Tensor, Tensor]:
        """The teacher's depth and its `reference_bin`: [B, H * W] each."""
        depth = self.depth.flatten(1).contiguous()
        return depth, reference_bin(self.grid, depth, self.dpm)

    def scores(self, depth: Tensor, reference: Tensor, out: Tensor) -> Tensor:
        """`target_scores` of pixels [P], in `out` [K, P]."""
        depth, reference, out = depth.view(1, 1, -1), reference.view(1, 1, -1), out.unsqueeze(1)
        return target_scores(self.grid, depth, reference, self.sigma, self.temperature, self.dpm, out).squeeze(1)


def expected_depth(dpm: Tensor, bins: DepthBins) -> Tensor:
    """Expected depth sum_k p_k c_k: [B, K, H, W] to [B, 1, H, W] m."""
    return torch.einsum("bkhw,k->bhw", dpm, bins.centers.to(dpm)).unsqueeze(1)


def kl_divergence(q: Tensor, logits: Tensor) -> Tensor:
    """KL(q || softmax(logits)) at each pixel: [B, K, H, W] twice to [B, 1, H, W]."""
    log_p = torch.log_softmax(logits, dim=1)
    entropy = torch.special.entr(q).sum(dim=1, keepdim=True)
    cross_entropy = -(q * log_p).sum(dim=1, keepdim=True)
    return cross_entropy - entropy
