"""Random heads and targets, and the formulas of tiekd/bins.py with whole maps, to check the fused passes against."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tiekd.bins import BinGrid, DepthBins, DPMTarget, expected_depth, kl_divergence, target_dpm

CHANNELS = 5
KITTI = DepthBins(257, 1e-3, 80.0)


def leaves(bins: DepthBins, size=(2, 6, 10), dtype=torch.float32) -> tuple[list[Tensor], Tensor]:
    """Features, weight and bias of a head that is sure of some pixels, and a teacher's depth, partly outside the bins."""
    generator = torch.Generator().manual_seed(0)
    shapes = (size[0], CHANNELS, *size[1:]), (bins.n_bins, CHANNELS, 1, 1), (bins.n_bins,)
    found = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]
    depth = 1.1 * bins.max_depth * torch.rand(size[0], 1, *size[1:], generator=generator, dtype=torch.float64)
    depth[0, 0, 0, :4] = torch.tensor([0.0, bins.min_depth, bins.max_depth, 50 * bins.max_depth])
    return found, depth.to(dtype)


def teacher_of(
    depth: Tensor, bins: DepthBins, sigma: float = 0.5, temperature: float = 1.0, dpm: str = "softmax_density"
) -> DPMTarget:
    return DPMTarget(depth, BinGrid(bins.edges.to(depth), bins.centers.to(depth)), sigma, temperature, dpm)


def plain(head: list[Tensor], bins: DepthBins, teacher: DPMTarget) -> tuple[Tensor, Tensor]:
    """The same with whole maps, in the dtype of the head."""
    logits = F.conv2d(*head)
    q = target_dpm(teacher.depth, bins, teacher.sigma, teacher.temperature, teacher.dpm)
    return expected_depth(logits.softmax(dim=1), bins), kl_divergence(q.to(logits), logits)


def with_gradients(outputs: tuple[Tensor, Tensor], head: list[Tensor]) -> list[Tensor]:
    """Depth and divergence, and what a loss with another slope at each pixel sends back to features, weight and bias."""
    generator = torch.Generator().manual_seed(1)
    slopes = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o) for o in outputs]
    gradients = torch.autograd.grad([(o * s).sum() for o, s in zip(outputs, slopes, strict=True)], head)
    return [*(o.detach() for o in outputs), *gradients]


def error(found: Tensor, expected: Tensor) -> float:
    """Largest difference, over the largest value."""
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()
