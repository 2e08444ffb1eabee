"""Expected depth and divergence of a head's DPM, straight from its features: no map over all bins is ever whole.

A pass goes over the pixels in chunks. Of each it makes the logits, uses them and forgets them; the backward pass makes them
again, and the teacher's DPM too, with what normalises both. The same in a few lines, with every map whole: `target_dpm`,
`expected_depth` and `kl_divergence` of `tiekd/bins.py`.

Within a chunk exponents and logarithms are binary: on CPUs PyTorch's exp2 takes a third of the time of exp.

B: batch; C: channels; H, W: pixels of an image; K: bins; P: pixels of a chunk. Depths are metres.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tiekd.bins import DPMTarget, nearest_bin
from tiekd.config import Kernel

LOG2_E = math.log2(math.e)
LOGITS = 2**19  # of a chunk, which a processor's cache should hold
GPU_LOGITS = 2**24  # enough to keep a GPU busy; 67 MB


@torch.compiler.disable  # a compiler would write every chunk out
def depth_of_features(features: Tensor, weight: Tensor, bias: Tensor, centers: Tensor, kernel: Kernel = "torch") -> Tensor:
    """sum_k p_k c_k with p = softmax(W x + b): [B, 1, H, W] m, at least float32.

    features [B, C, H, W], contiguous or channels last; weight [K, C, 1, 1], bias [K], centers [K]. The product runs in the
    dtype of the features. The kernel "triton" serves float32 and bf16 on a GPU; elsewhere PyTorch does the same.
    """
    return _function(features, kernel).apply(features, weight, bias, centers, None)[0]


@torch.compiler.disable
def depth_and_divergence(
    features: Tensor, weight: Tensor, bias: Tensor, centers: Tensor, teacher: DPMTarget, kernel: Kernel = "torch"
) -> tuple[Tensor, Tensor]:
    """`depth_of_features`, and KL(q || p) from the teacher's DPM q, [B, 1, H, W], in one pass forwards and one backwards."""
    return _function(features, kernel).apply(features, weight, bias, centers, teacher)


def _function(features: Tensor, kernel: Kernel) -> type[Function]:
    """What computes both; Triton, which comes with PyTorch for CUDA only, is imported where it is asked for."""
    if kernel == "triton" and features.is_cuda and features.dtype in (torch.float32, torch.bfloat16):
        from tiekd.models.fused_triton import TritonDepthAndDivergence

        return TritonDepthAndDivergence
    return _DepthAndDivergence


def chunk_size(features: Tensor, n_bins: int) -> int:
    """How many pixels of an image are worked on at a time."""
    return min(features[0, 0].numel(), max((GPU_LOGITS if features.is_cuda else LOGITS) // n_bins, 1))


class _Head:
    """The head's projection, as chunks need it, and the maps [K, P] that they share."""

    def __init__(self, features: Tensor, weight: Tensor, bias: Tensor, n_maps: int):
        exact = torch.promote_types(features.dtype, torch.float32)
        self.chunk = chunk_size(features, len(bias))
        self.weight, self.bias = weight.flatten(1).to(features.dtype), LOG2_E * bias.to(exact).unsqueeze(1)
        self._maps = torch.empty(n_maps, len(bias) * self.chunk, dtype=exact, device=features.device)
        # What is multiplied has the features' dtype, what is summed at least float32.
        rough = features.dtype != exact
        self._product = torch.empty_like(self._maps[0], dtype=features.dtype) if rough else self._maps[0]

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Binary logits of x [P, C], and maps to be written to: [K, P] each, until those of the next chunk."""
        shape = len(self.weight), len(x)
        logits, *others = (whole[: math.prod(shape)].view(shape) for whole in self._maps)
        product = torch.mm(self.weight, x.t(), out=self._product[: math.prod(shape)].view(shape))
        return torch.add(self.bias, product, alpha=LOG2_E, out=logits), *others

    def chunks(self, *maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The parts of maps [B, H * W, ...] that belong together: [P, ...] each."""
        for images in zip(*maps, strict=True):
            yield from zip(*(image.split(self.chunk) for image in images), strict=True)


class _DepthAndDivergence(Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, centers: Tensor, teacher: DPMTarget | None
    ) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(features.device.type, enabled=False):
            head, pixels = _Head(features, weight, bias, 3), _pixels(features)
            depth, divergence, highest, p_sum, q_sum = maps = head.bias.new_empty(5, *pixels.shape[:2])
            taught = () if teacher is None else _with_nearest(teacher, centers)
            for x, d, kl, top, sum_p, sum_q, *here in head.chunks(pixels, *maps, *taught):
                log_p, p, q = head.maps(x)
                log_p.sub_(torch.amax(log_p, dim=0, out=top))
                torch.sum(torch.exp2(log_p, out=p), dim=0, out=sum_p)
                torch.mv(p.t(), centers, out=d)
                if teacher is not None:
                    log_q = teacher.scores(*here, centers, out=p)
                    torch.sum(torch.exp2(log_q, out=q), dim=0, out=sum_q)
                    torch.sum(log_q.sub_(log_p).mul_(q), dim=0, out=kl)
            depth.div_(p_sum)
            log_sum = p_sum.log2_()
            if teacher is not None:
                divergence.div_(q_sum).add_(log_sum).sub_(q_sum.log2()).div_(LOG2_E)
        ctx.teacher = teacher
        ctx.save_for_backward(features, weight, bias, centers, depth, highest.add_(log_sum), q_sum, *taught)
        ctx.set_materialize_grads(False)
        shape = features.shape[0], 1, *features.shape[2:]
        return depth.view(shape), None if teacher is None else divergence.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_depth: Tensor | None, slope_divergence: Tensor | None) -> tuple[Tensor | None, ...]:
        """With slopes g of the loss: d loss / d z_k = g_kl (p_k - q_k) + g_depth p_k (c_k - d), to features and projection."""
        features, weight, bias, centers, depth, log_sum, q_sum, *taught = ctx.saved_tensors
        with torch.autocast(features.device.type, enabled=False):
            head, pixels = _Head(features, weight, bias, 2), _pixels(features)
            d_pixels, d_weight = torch.empty_like(pixels), torch.zeros_like(head.weight, dtype=depth.dtype)
            d_bias = torch.zeros(len(bias), dtype=depth.dtype, device=depth.device)
            slopes = [
                torch.zeros_like(depth) if slope is None else slope.flatten(1) for slope in (slope_depth, slope_divergence)
            ]
            target = () if slope_divergence is None else (slopes[1] / q_sum, *taught)
            for x, d_x, d, log_total, g_depth, g_kl, *here in head.chunks(pixels, d_pixels, depth, log_sum, *slopes, *target):
                logits, spare = head.maps(x)
                d_logits = logits.sub_(log_total).exp2_()
                pull = torch.sub(centers.unsqueeze(1), d, out=spare)
                d_logits.mul_(torch.addcmul(g_kl, pull, g_depth, out=pull))
                if here:
                    push, *taught_here = here
                    q = ctx.teacher.scores(*taught_here, centers, out=spare).exp2_()
                    d_logits.addcmul_(q, push, value=-1)
                d_bias += d_logits.sum(dim=1)
                d_product = d_logits.to(x.dtype)
                torch.mm(d_product.t(), head.weight, out=d_x)
                d_weight += d_product @ x
        d_features = d_pixels.transpose(1, 2).unflatten(2, features.shape[2:])
        return d_features, d_weight.view_as(weight).to(weight.dtype), d_bias.to(bias.dtype), None, None


def _pixels(features: Tensor) -> Tensor:
    """[B, C, H, W] to [B, H * W, C]; a view, whether contiguous or channels last."""
    return features.flatten(2).transpose(1, 2)


def _with_nearest(teacher: DPMTarget, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The teacher's depths and the bins nearest to them: [B, H * W] each."""
    depth = teacher.depth.flatten(1).contiguous()
    return depth, nearest_bin(centers, depth)
