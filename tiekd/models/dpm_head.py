"""The DPM head: a distribution over depth bins at each pixel, whose expectation is the depth.

Expected depth and divergence are computed straight from the head's features, in chunks of pixels: the logits of a chunk are
computed, used and discarded, and the backward pass computes them again. So no map over all bins exists at full size. The plain
formulas are `target_dpm`, `expected_depth` and `kl_divergence` of `tiekd/bins.py`.

Exponents and logarithms within a chunk are binary: on CPUs, PyTorch's exp2 takes a third of the time of exp.

B: batch; C: channels; H, W: size of an image; K: bins; P: pixels of a chunk. Depths are in m.
"""

import copy
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from tiekd.bins import LOG2_E, BinGrid, DepthBins, DPMTarget, expected_depth
from tiekd.config import Kernel
from tiekd.config.specs import DEFAULT_DPM
from tiekd.models.prediction import Prediction

CPU_CHUNK = 2**19  # logits of a chunk, which fit into a processor's cache
GPU_CHUNK = 2**24  # logits of a chunk, which keep a GPU busy; 67 MB


class DPMHead(nn.Module):
    """A 1x1 convolution from features to the logits of the bins."""

    centers: Tensor
    edges: Tensor

    def __init__(self, channels: int, bins: DepthBins, kernel: Kernel = "torch"):
        super().__init__()
        self.bins, self.kernel = bins, kernel
        self.logits = nn.Conv2d(channels, bins.n_bins, 1)
        self.register_buffer("centers", bins.centers, persistent=False)
        self.register_buffer("edges", bins.edges, persistent=False)

    def forward(self, features: Tensor) -> "DPMPrediction":
        """features [B, C, H, W], contiguous or channels last. The prediction is evaluated lazily."""
        device = features.device.type
        if torch.is_autocast_enabled(device):  # evaluation happens outside autocast, in the same precision
            features = features.to(torch.get_autocast_dtype(device))
        return DPMPrediction(features, self)


class DPMPrediction:
    """The `Prediction` of a DPM head, evaluated when its fields are read.

    Only `dpm_logits` is a map over all bins at full size, which may need gigabytes.
    """

    bin_centers = None

    def __init__(self, features: Tensor, head: DPMHead):
        self.features, self.head = features, head

    @cached_property
    def depth(self) -> Tensor:
        """[B, 1, H, W] m, float32."""
        if torch.compiler.is_exporting():  # an exported graph for all sizes has no chunks
            return self.materialize().depth
        head = self.head
        return depth_of_features(self.features, head.logits.weight, head.logits.bias, head.centers, head.kernel)

    @property
    def dpm_logits(self) -> Tensor:
        """[B, K, H, W], float32."""
        dtype, projection = self.features.dtype, self.head.logits
        assert projection.bias is not None
        logits = F.conv2d(self.features, projection.weight.to(dtype), projection.bias.to(dtype))
        return logits.to(torch.promote_types(dtype, torch.float32))

    def divergence(
        self, depth_teacher: Tensor, bins: DepthBins, sigma: float, temperature: float, dpm: str = DEFAULT_DPM
    ) -> Tensor:
        """Like `Prediction.divergence`. Also computes depth in the same pass, so read `depth` afterwards."""
        head = self.head
        assert bins == head.bins, (bins, head.bins)
        target = DPMTarget(depth_teacher, BinGrid(head.edges, head.centers), sigma, temperature, dpm)
        depth, divergence = depth_and_divergence(
            self.features, head.logits.weight, head.logits.bias, head.centers, target, head.kernel
        )
        self.__dict__.setdefault("depth", depth)
        return divergence

    def materialize(self) -> Prediction:
        """Evaluate with the plain formulas of `tiekd/bins.py`, on maps over all bins at full size."""
        logits = self.dpm_logits
        return Prediction(expected_depth(torch.softmax(logits, dim=1), self.head.bins), logits)

    def select(self, images: slice, rows: Tensor, columns: Tensor) -> Self:
        """The prediction of some images at the intersections of some rows and columns."""
        return type(self)(self.features[images, :, rows][..., columns], self.head)

    def clamp_depth(self, low: float, high: float) -> Self:
        """Clamp depth to a range in m."""
        clamped = copy.copy(self)
        clamped.depth = self.depth.clamp(low, high)
        return clamped


@torch.compiler.disable  # a compiler would unroll the loop over chunks
def depth_of_features(features: Tensor, weight: Tensor, bias: Tensor, centers: Tensor, kernel: Kernel = "torch") -> Tensor:
    """Expected depth sum_k p_k c_k with p = softmax(W x + b): [B, 1, H, W] m, at least float32.

    features [B, C, H, W], contiguous or channels last; weight [K, C, 1, 1], bias [K], centers [K]. The matrix product runs in
    the dtype of the features. The kernel "triton" supports float32 and bf16 on a GPU; otherwise PyTorch is used.
    """
    return _function(features, kernel).apply(features, weight, bias, centers, None)[0]


@torch.compiler.disable
def depth_and_divergence(
    features: Tensor, weight: Tensor, bias: Tensor, centers: Tensor, target: DPMTarget, kernel: Kernel = "torch"
) -> tuple[Tensor, Tensor]:
    """`depth_of_features`, and KL(q || p) with the teacher's DPM q, [B, 1, H, W], in one forward and one backward pass."""
    return _function(features, kernel).apply(features, weight, bias, centers, target)


def _function(features: Tensor, kernel: Kernel) -> type[Function]:
    """The autograd function to use. Triton comes only with PyTorch for CUDA, so it is imported on demand."""
    if kernel == "triton" and features.is_cuda and features.dtype in (torch.float32, torch.bfloat16):
        from tiekd.models.fused_triton import TritonDepthAndDivergence

        return TritonDepthAndDivergence
    return _DepthAndDivergence


def chunk_size(features: Tensor, n_bins: int) -> int:
    """Number of pixels that are processed at a time."""
    return min(features[0, 0].numel(), max((GPU_CHUNK if features.is_cuda else CPU_CHUNK) // n_bins, 1))


class _Projection:
    """The head's projection of chunks, and buffers [K, P] that all chunks share."""

    def __init__(self, features: Tensor, weight: Tensor, bias: Tensor, n_buffers: int):
        exact = torch.promote_types(features.dtype, torch.float32)
        self.chunk = chunk_size(features, len(bias))
        self.weight, self.bias = weight.flatten(1).to(features.dtype), LOG2_E * bias.to(exact).unsqueeze(1)
        self._buffers = torch.empty(n_buffers, len(bias) * self.chunk, dtype=exact, device=features.device)
        # Products are in the dtype of the features, sums in at least float32.
        needs_cast = features.dtype != exact
        self._product = torch.empty_like(self._buffers[0], dtype=features.dtype) if needs_cast else self._buffers[0]

    def logits_and_buffers(self, x: Tensor) -> tuple[Tensor, ...]:
        """Binary logits of x [P, C], and the other buffers: [K, P] each, valid until the next chunk."""
        shape = len(self.weight), len(x)
        logits, *others = (buffer[: math.prod(shape)].view(shape) for buffer in self._buffers)
        product = torch.mm(self.weight, x.t(), out=self._product[: math.prod(shape)].view(shape))
        return torch.add(self.bias, product, alpha=LOG2_E, out=logits), *others

    def chunks(self, *maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Split maps [B, H * W, ...] into corresponding chunks [P, ...]."""
        for images in zip(*maps, strict=True):
            yield from zip(*(image.split(self.chunk) for image in images), strict=True)


class _DepthAndDivergence(Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, centers: Tensor, target: DPMTarget | None
    ) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(features.device.type, enabled=False):
            head, pixels = _Projection(features, weight, bias, 3), _pixels(features)
            depth, divergence, highest, p_sum, q_sum = maps = head.bias.new_empty(5, *pixels.shape[:2])
            target_maps = () if target is None else target.pixels()
            for x, d, kl, top, sum_p, sum_q, *target_chunk in head.chunks(pixels, *maps, *target_maps):
                log_p, p, q = head.logits_and_buffers(x)
                log_p.sub_(torch.amax(log_p, dim=0, out=top))
                torch.sum(torch.exp2(log_p, out=p), dim=0, out=sum_p)
                torch.mv(p.t(), centers, out=d)
                if target is not None:
                    depth_teacher, reference = target_chunk
                    log_q = target.scores(depth_teacher, reference, out=p)
                    torch.sum(torch.exp2(log_q, out=q), dim=0, out=sum_q)
                    torch.sum(log_q.sub_(log_p).mul_(q), dim=0, out=kl)
            depth.div_(p_sum)
            log_sum = p_sum.log2_()
            if target is not None:
                divergence.div_(q_sum).add_(log_sum).sub_(q_sum.log2()).div_(LOG2_E)
        ctx.target = target
        ctx.save_for_backward(features, weight, bias, centers, depth, highest.add_(log_sum), q_sum, *target_maps)
        ctx.set_materialize_grads(False)
        shape = features.shape[0], 1, *features.shape[2:]
        return depth.view(shape), None if target is None else divergence.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_depth: Tensor | None, grad_divergence: Tensor | None) -> tuple[Tensor | None, ...]:
        """Backpropagate d loss / d z_k = g_kl (p_k - q_k) + g_depth p_k (c_k - d) to features, weight and bias."""
        features, weight, bias, centers, depth, log_sum, q_sum, *target_maps = ctx.saved_tensors
        with torch.autocast(features.device.type, enabled=False):
            head, pixels = _Projection(features, weight, bias, 2), _pixels(features)
            d_pixels, d_weight = torch.empty_like(pixels), torch.zeros_like(head.weight, dtype=depth.dtype)
            d_bias = torch.zeros(len(bias), dtype=depth.dtype, device=depth.device)
            grads = [torch.zeros_like(depth) if grad is None else grad.flatten(1) for grad in (grad_depth, grad_divergence)]
            q_maps = () if grad_divergence is None else (grads[1] / q_sum, *target_maps)
            for x, d_x, d, log_total, g_depth, g_kl, *q_chunk in head.chunks(pixels, d_pixels, depth, log_sum, *grads, *q_maps):
                logits, buffer = head.logits_and_buffers(x)
                d_logits = logits.sub_(log_total).exp2_()
                offset = torch.sub(centers.unsqueeze(1), d, out=buffer)
                d_logits.mul_(torch.addcmul(g_kl, offset, g_depth, out=offset))
                if q_chunk:
                    scale, depth_teacher, reference = q_chunk
                    q = ctx.target.scores(depth_teacher, reference, out=buffer).exp2_()
                    d_logits.addcmul_(q, scale, value=-1)
                d_bias += d_logits.sum(dim=1)
                d_product = d_logits.to(x.dtype)
                torch.mm(d_product.t(), head.weight, out=d_x)
                d_weight += d_product @ x
        d_features = d_pixels.transpose(1, 2).unflatten(2, features.shape[2:])
        return d_features, d_weight.view_as(weight).to(weight.dtype), d_bias.to(bias.dtype), None, None


def _pixels(features: Tensor) -> Tensor:
    """[B, C, H, W] to [B, H * W, C], as a view whether contiguous or channels last."""
    return features.flatten(2).transpose(1, 2)
