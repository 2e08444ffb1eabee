"""Expected depth and divergence of a head's DPM, straight from its features: no map over all bins is ever whole.

A pass goes over the pixels in chunks. Of each it makes the logits, uses them and forgets them; the backward pass makes them
again. The teacher's DPM is made on a window of bins around the teacher's depth, outside of which it is 0. The same in a few
lines, with every map whole: `target_dpm`, `expected_depth` and `kl_divergence` of `tiekd/bins.py`.

B: batch; C: channels; H, W: pixels of an image; K: bins; P: pixels of a chunk; N: bins of a window. Depths are metres.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tiekd.bins import DENSITY_FLOOR, DepthBins, target_scores

WHOLE = 0.75  # of all bins: as long a window costs more to look up than to do without
LOGITS = 2**20  # of a chunk, which a processor's cache should hold
GPU_LOGITS = 2**24  # enough to keep a GPU busy; 67 MB


class Window(NamedTuple):
    """Where the bins lie that may take part in the teacher's DPM of a pixel."""

    reach: float  # m; no bin farther from the teacher's depth takes part, save the nearest
    length: int  # N; as many bins hold all of them, and one on either side; or all bins

    @classmethod
    @lru_cache(maxsize=64)  # a step should not wait for it
    def of(cls, bins: DepthBins, sigma: float) -> "Window":
        """For centers at any spacing, the longest that some depth needs."""
        log_ratio = -math.log(DENSITY_FLOOR * sigma * math.sqrt(2 * math.pi))
        # A little wider than the equation's solution: whether a bin takes part is decided in float32.
        reach = 1.001 * sigma * math.sqrt(2 * max(log_ratio, 0)) + 1e-6 * bins.max_depth
        centers = bins.centers.double()
        within = torch.searchsorted(centers, centers + 2 * reach, right=True) - torch.arange(bins.n_bins)
        length = int(within.max()) + 2
        return cls(reach, bins.n_bins if length > WHOLE * bins.n_bins else length)


class Teacher(NamedTuple):
    """Depth as the DPM of a spread sees it."""

    depth: Tensor  # [B, 1, H, W]
    sigma: float
    temperature: float
    window: Window

    @classmethod
    def of(cls, depth: Tensor, bins: DepthBins, sigma: float, temperature: float) -> "Teacher":
        """The arguments of `tiekd.bins.target_dpm`."""
        return cls(depth, sigma, temperature, Window.of(bins, sigma))

    def scores(self, depth: Tensor, centers: Tensor) -> tuple[Tensor | None, Tensor]:
        """The bins [P, N] of the window around each depth [P], None for all; and there, that whose softmax is the DPM."""
        reach, length = self.window
        if length == len(centers):
            return None, target_scores(centers.unsqueeze(0), depth.unsqueeze(1), self.sigma, self.temperature)
        start = torch.searchsorted(centers, depth - reach).sub_(1)  # the nearest may be the bin before
        start.clamp_(0, len(centers) - length)
        bins = start.unsqueeze(1) + torch.arange(length, device=depth.device)
        near = centers.unfold(0, length, 1).index_select(0, start)  # as centers[bins], at a tenth of its time
        return bins, target_scores(near, depth.unsqueeze(1), self.sigma, self.temperature)


@torch.compiler.disable  # a compiler would write every chunk out
def depth_of_features(features: Tensor, weight: Tensor, bias: Tensor, centers: Tensor) -> Tensor:
    """sum_k p_k c_k with p = softmax(W x + b): [B, 1, H, W] m, at least float32.

    features [B, C, H, W], contiguous or channels last; weight [K, C, 1, 1], bias [K], centers [K]. The product runs in the
    dtype of the features.
    """
    return _DepthAndDivergence.apply(features, weight, bias, centers, None)[0]


@torch.compiler.disable
def depth_and_divergence(
    features: Tensor, weight: Tensor, bias: Tensor, centers: Tensor, teacher: Teacher
) -> tuple[Tensor, Tensor]:
    """`depth_of_features`, and KL(q || p) from the teacher's DPM q, [B, 1, H, W], in one pass forwards and one backwards."""
    return _DepthAndDivergence.apply(features, weight, bias, centers, teacher)


def chunk_of(features: Tensor, n_bins: int) -> int:
    """How many pixels of an image are worked on at a time."""
    return min(features[0, 0].numel(), max((GPU_LOGITS if features.is_cuda else LOGITS) // n_bins, 1))


class _Head:
    """The head's projection, as chunks need it: buffers that they share, and their logits and probabilities."""

    def __init__(self, features: Tensor, weight: Tensor, bias: Tensor):
        exact = torch.promote_types(features.dtype, torch.float32)
        self.chunk = chunk_of(features, len(bias))
        self.weight, self.bias = weight.flatten(1).to(features.dtype), bias.to(exact)
        shape = self.chunk, len(bias)
        self._logits, self._dpm = (torch.empty(shape, dtype=exact, device=features.device) for _ in range(2))
        # What is multiplied has the features' dtype, what is summed at least float32.
        rough = features.dtype != exact
        self._product = torch.empty(shape, dtype=features.dtype, device=features.device) if rough else self._logits

    def logits(self, x: Tensor) -> Tensor:
        """[P, C] to [P, K], until those of the next chunk."""
        product = torch.mm(x, self.weight.t(), out=self._product[: len(x)])
        return torch.add(product, self.bias, out=self._logits[: len(x)])

    def dpm(self, logits: Tensor) -> Tensor:
        """[P, K] to [P, K], until that of the next chunk."""
        return torch.softmax(logits, dim=1, out=self._dpm[: len(logits)])

    def chunks(self, *maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The parts of maps [B, H * W, ...] that belong together: [P, ...] each."""
        for images in zip(*maps, strict=True):
            yield from zip(*(image.split(self.chunk) for image in images), strict=True)


class _DepthAndDivergence(Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, centers: Tensor, teacher: Teacher | None
    ) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(features.device.type, enabled=False):
            head, pixels = _Head(features, weight, bias), _pixels(features)
            depth = torch.empty(pixels.shape[:2], dtype=head.bias.dtype, device=pixels.device)
            if teacher is None:
                for x, found in head.chunks(pixels, depth):
                    torch.mv(head.dpm(head.logits(x)), centers, out=found)
                divergence = None
            else:
                divergence = torch.empty_like(depth)
                for x, t, found, kl in head.chunks(pixels, teacher.depth.flatten(1), depth, divergence):
                    logits = head.logits(x)
                    dpm = head.dpm(logits)
                    torch.mv(dpm, centers, out=found)
                    kl.copy_(_divergence(logits, dpm, *teacher.scores(t, centers)))
        ctx.teacher = teacher
        ctx.save_for_backward(features, weight, bias, centers, depth)
        ctx.set_materialize_grads(False)
        shape = features.shape[0], 1, *features.shape[2:]
        return depth.view(shape), None if divergence is None else divergence.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_depth: Tensor | None, slope_divergence: Tensor | None) -> tuple[Tensor | None, ...]:
        """With slopes g of the loss: d loss / d z_k = g_kl (p_k - q_k) + g_depth p_k (c_k - d), to features and projection."""
        features, weight, bias, centers, depth = ctx.saved_tensors
        with torch.autocast(features.device.type, enabled=False):
            head, pixels = _Head(features, weight, bias), _pixels(features)
            d_pixels, d_weight = torch.empty_like(pixels), torch.zeros_like(head.weight, dtype=depth.dtype)
            d_bias = torch.zeros_like(head.bias)
            teacher = None if slope_divergence is None else ctx.teacher
            targets = depth if teacher is None else teacher.depth.flatten(1)
            slopes = (
                torch.zeros_like(depth) if slope is None else slope.flatten(1) for slope in (slope_depth, slope_divergence)
            )
            for x, d_x, d, t, *slopes_here in head.chunks(pixels, d_pixels, depth, targets, *slopes):
                g_depth, g_kl = (slope.unsqueeze(1) for slope in slopes_here)
                logits = head.logits(x)
                d_logits = head.dpm(logits)
                pull = torch.sub(centers, d.unsqueeze(1), out=logits)
                d_logits.mul_(pull.mul_(g_depth).add_(g_kl))
                if teacher is not None:
                    bins, scores = teacher.scores(t, centers)
                    push = scores.softmax(dim=1).mul_(-g_kl)
                    d_logits.add_(push) if bins is None else d_logits.scatter_add_(1, bins, push)
                d_bias += d_logits.sum(dim=0)
                d_product = d_logits.to(x.dtype)
                torch.mm(d_product, head.weight, out=d_x)
                d_weight += d_product.t() @ x
        d_features = d_pixels.transpose(1, 2).unflatten(2, features.shape[2:])
        return d_features, d_weight.view_as(weight).to(weight.dtype), d_bias.to(bias.dtype), None, None


def _divergence(logits: Tensor, dpm: Tensor, bins: Tensor | None, scores: Tensor) -> Tensor:
    """KL(q || p) [P] with q = softmax(scores) on a window of bins [P, N], 0 elsewhere, and p = softmax(logits) [P, K].

    Overwrites the logits where the window is all bins.
    """
    # log p = logits - highest + log(max p): exact also where p itself is 0 in float32.
    highest, log_highest = logits.amax(dim=1, keepdim=True), dpm.amax(dim=1).log_()
    log_p = (logits if bins is None else logits.gather(1, bins)).sub_(highest)
    # Not minus infinity, which times a probability of 0 would not be 0.
    log_q = scores.log_softmax(dim=1).clamp_min_(torch.finfo(scores.dtype).min)
    return torch.sub(log_q, log_p, out=log_p).mul_(log_q.exp_()).sum(dim=1) - log_highest


def _pixels(features: Tensor) -> Tensor:
    """[B, C, H, W] to [B, H * W, C]; a view, whether contiguous or channels last."""
    return features.flatten(2).transpose(1, 2)
