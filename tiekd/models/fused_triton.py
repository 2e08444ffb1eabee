"""The computation of `tiekd/models/dpm_head.py` as Triton kernels: one forward pass over the features, two backward passes.

A program holds a tile of pixels and loops over blocks of bins. The student's probabilities are normalized block by block
(online softmax); the teacher's need no such pass, since the nearest bin has the highest density. The forward pass writes only a
few floats per pixel. Of the backward passes, one computes the gradient of the features and one that of the projection, each
from logits that it computes again. Every sum is computed by one program in one order, so equal inputs give equal gradients.

Kernels and their launch are in one file because they share the layout of their arguments.

P: pixels of a tile; K: bins of a block; C: channels, padded with zeros to a power of two. Depths are in m.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tiekd.bins import DENSITY_FLOOR, DPMTarget, nearest_bin

FLOOR = tl.constexpr(DENSITY_FLOOR)
NO_BIN = tl.constexpr(-1e30)  # logit of the padding of the last block; finite, so that 0 times it is 0
OPTIONS = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}
PROGRAMS = 1024  # that share the projection's gradient: enough to occupy any GPU, few enough for small partial sums


# -- device functions ---------------------------------------------------------------------------------------------------------


@triton.jit
def _addresses(features, indices, strides, C: tl.constexpr):
    """Addresses [P, C] in maps [B, H * W, C] of any strides, for pixel indices over all images."""
    image_pixels, of_image, of_pixel, of_channel = strides
    rows = (indices // image_pixels).to(tl.int64) * of_image + (indices % image_pixels).to(tl.int64) * of_pixel
    return features + rows[:, None] + tl.arange(0, C).to(tl.int64)[None, :] * of_channel


@triton.jit
def _block(head, bins, N_BINS: tl.constexpr, CHANNELS: tl.constexpr, C: tl.constexpr, RELOAD: tl.constexpr = False):
    """Load weight [K, C], bias [K] and centers [K] of bins [K]."""
    weight, bias, centers = head
    channels, known = tl.arange(0, C), bins < N_BINS
    mask = known[:, None] & (channels[None, :] < CHANNELS)
    w = tl.load(weight + bins[:, None] * CHANNELS + channels[None, :], mask=mask, other=0.0, volatile=RELOAD)
    return w, tl.load(bias + bins, mask=known, other=NO_BIN), tl.load(centers + bins, mask=known, other=0.0)


@triton.jit
def _density(c, t, density_parameters):
    """Density of the teacher's depth t at bin centers c."""
    rate, log_peak, _coldness, _reach = density_parameters
    return tl.exp((c - t) * (c - t) * rate + log_peak)


@triton.jit
def _load_target(target, indices, centers, density_parameters):
    """Load the target of pixels [P]: depth, nearest bin and its density, and the depth range of the bins that take part."""
    depth, nearest = target
    _rate, _log_peak, _coldness, reach = density_parameters
    t, closest = tl.load(depth + indices), tl.load(nearest + indices)
    center = tl.load(centers + closest)
    lower, upper = tl.min(tl.minimum(t - reach, center), 0), tl.max(tl.maximum(t + reach, center), 0)
    return t, closest, _density(center, t, density_parameters), lower, upper


@triton.jit
def _may_take_part(pixel_target, centers, start, N_BINS: tl.constexpr, K: tl.constexpr):
    """Whether a bin of the block at `start` may take part in a target of the tile."""
    _t, _nearest, _highest, lower, upper = pixel_target
    last = tl.minimum(start + K, N_BINS) - 1
    return (tl.load(centers + last) >= lower) & (tl.load(centers + start) <= upper)


@triton.jit
def _target_dpm(pixel_target, bins, c, density_parameters, N_BINS: tl.constexpr):
    """The target (`tiekd.bins.target_dpm`) relative to its value at the nearest bin, and its log where it is not 0: [P, K]."""
    t, nearest, highest, _lower, _upper = pixel_target
    _rate, _log_peak, coldness, _reach = density_parameters
    density, is_nearest = _density(c[None, :], t[:, None], density_parameters), bins[None, :] == nearest[:, None]
    takes_part = (is_nearest | (density >= FLOOR)) & (bins < N_BINS)[None, :]
    log_q = tl.where(is_nearest, 0.0, tl.minimum(density - highest[:, None], 0.0) * coldness)  # at most 0 in spite of rounding
    return tl.where(takes_part, tl.exp(log_q), 0.0), log_q


@triton.jit
def _load_softmaxes(saved, indices, in_range):
    """Load depth, the gradients of depth and divergence (0 beyond the last pixel) and both normalizers of pixels [P]."""
    depth, log_sum, target_sum, grad_depth, grad_divergence = saved
    g_depth = tl.load(grad_depth + indices, mask=in_range, other=0.0)
    g_kl = tl.load(grad_divergence + indices, mask=in_range, other=0.0)
    return tl.load(depth + indices), g_depth, g_kl, tl.load(log_sum + indices), tl.load(target_sum + indices)


@triton.jit
def _logits_gradient(
    z, softmax_state, pixel_target, bins, c, centers, start, density_parameters, N_BINS: tl.constexpr, K: tl.constexpr
):
    """Gradient of the logits [P, K]; for the formula see `tiekd/models/dpm_head.py`."""
    d, g_depth, g_kl, log_total, q_sum = softmax_state
    d_z = tl.exp(z - log_total[:, None]) * (g_kl[:, None] + g_depth[:, None] * (c[None, :] - d[:, None]))
    if pixel_target is not None:  # noqa: SIM102 - the outer condition is evaluated at compile time
        if _may_take_part(pixel_target, centers, start, N_BINS, K):
            d_z -= (g_kl / q_sum)[:, None] * _target_dpm(pixel_target, bins, c, density_parameters, N_BINS)[0]
    return d_z


# -- kernels ------------------------------------------------------------------------------------------------------------------


@triton.jit
def forward_kernel(
    features, head, target, outputs, n_pixels, strides, density_parameters,
    N_BINS: tl.constexpr, CHANNELS: tl.constexpr, P: tl.constexpr, K: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute depth, divergence if there is a target, and the normalizers of both softmaxes."""
    depth, log_sum, divergence, target_sum = outputs
    centers = head[2]
    indices = tl.program_id(0) * P + tl.arange(0, P)
    in_range = indices < n_pixels
    indices = tl.minimum(indices, n_pixels - 1)
    x = tl.load(_addresses(features, indices, strides, C), mask=tl.arange(0, C)[None, :] < CHANNELS, other=0.0)
    top, total, moment = tl.full([P], float("-inf"), tl.float32), tl.zeros([P], tl.float32), tl.zeros([P], tl.float32)
    q_sum, cost = tl.zeros([P], tl.float32), tl.zeros([P], tl.float32)
    if target is not None:
        pixel_target = _load_target(target, indices, centers, density_parameters)
    for start in range(0, N_BINS, K):
        bins = start + tl.arange(0, K)
        w, b, c = _block(head, bins, N_BINS, CHANNELS, C)
        z = tl.dot(x, tl.trans(w), input_precision=PRECISION) + b[None, :]
        before = top
        top = tl.maximum(top, tl.max(z, 1))
        e, fade = tl.exp(z - top[:, None]), tl.exp(before - top)
        total = total * fade + tl.sum(e, 1)
        moment = moment * fade + tl.sum(e * c[None, :], 1)
        if target is not None:  # noqa: SIM102 - the outer condition is evaluated at compile time
            if _may_take_part(pixel_target, centers, start, N_BINS, K):
                q, log_q = _target_dpm(pixel_target, bins, c, density_parameters, N_BINS)
                q_sum += tl.sum(q, 1)
                cost += tl.sum(q * (log_q - z), 1)
    log_total = top + tl.log(total)
    tl.store(depth + indices, moment / total, mask=in_range)
    tl.store(log_sum + indices, log_total, mask=in_range)
    if target is not None:
        tl.store(divergence + indices, cost / q_sum - tl.log(q_sum) + log_total, mask=in_range)
        tl.store(target_sum + indices, q_sum, mask=in_range)


@triton.jit
def features_kernel(
    features, head, target, saved, d_features, n_pixels, strides, d_strides, density_parameters,
    N_BINS: tl.constexpr, CHANNELS: tl.constexpr, P: tl.constexpr, K: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of the features."""
    centers = head[2]
    indices = tl.program_id(0) * P + tl.arange(0, P)
    in_range = indices < n_pixels
    mask = in_range[:, None] & (tl.arange(0, C)[None, :] < CHANNELS)
    indices = tl.minimum(indices, n_pixels - 1)
    x = tl.load(_addresses(features, indices, strides, C), mask=mask, other=0.0)
    softmax_state = _load_softmaxes(saved, indices, in_range)
    pixel_target = None
    if target is not None:
        pixel_target = _load_target(target, indices, centers, density_parameters)
    d_x = tl.zeros([P, C], tl.float32)
    for start in range(0, N_BINS, K):
        bins = start + tl.arange(0, K)
        w, b, c = _block(head, bins, N_BINS, CHANNELS, C)
        z = tl.dot(x, tl.trans(w), input_precision=PRECISION) + b[None, :]
        d_z = _logits_gradient(z, softmax_state, pixel_target, bins, c, centers, start, density_parameters, N_BINS, K)
        d_x = tl.dot(d_z.to(w.dtype), w, d_x, input_precision=PRECISION)
    tl.store(_addresses(d_features, indices, d_strides, C), d_x, mask=mask)


@triton.jit
def projection_kernel(
    features, head, target, saved, d_weight, d_bias, n_pixels, strides, density_parameters,
    N_BINS: tl.constexpr, CHANNELS: tl.constexpr, P: tl.constexpr, K: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute a partial sum of the gradient of weight [shares, K, C] and bias [shares, K], over every `shares`-th tile."""
    centers = head[2]
    start, share, shares = tl.program_id(0) * K, tl.program_id(1), tl.num_programs(1)
    bins, channels = start + tl.arange(0, K), tl.arange(0, C)
    w, b, c = _block(head, bins, N_BINS, CHANNELS, C)
    d_w, d_b = tl.zeros([K, C], tl.float32), tl.zeros([K], tl.float32)
    for first in range(share * P, n_pixels, shares * P):
        indices = first + tl.arange(0, P)
        in_range = indices < n_pixels
        indices = tl.minimum(indices, n_pixels - 1)
        x = tl.load(_addresses(features, indices, strides, C), mask=channels[None, :] < CHANNELS, other=0.0)
        if PRECISION == "ieee":  # without tensor cores the weights are in registers, of which there are too few to keep them
            w, b, c = _block(head, bins, N_BINS, CHANNELS, C, RELOAD=True)
        z = tl.dot(x, tl.trans(w), input_precision=PRECISION) + b[None, :]
        pixel_target = None
        if target is not None:
            pixel_target = _load_target(target, indices, centers, density_parameters)
        d_z = _logits_gradient(
            z, _load_softmaxes(saved, indices, in_range), pixel_target, bins, c, centers, start, density_parameters, N_BINS, K
        )
        d_w = tl.dot(tl.trans(d_z.to(x.dtype)), x, d_w, input_precision=PRECISION)
        d_b += tl.sum(d_z, 0)
    row = share * N_BINS + bins
    known = bins < N_BINS
    tl.store(d_weight + row[:, None] * CHANNELS + channels[None, :], d_w, mask=known[:, None] & (channels[None, :] < CHANNELS))
    tl.store(d_bias + row, d_b, mask=known)


# -- launch -------------------------------------------------------------------------------------------------------------------


def tile_of(channels: int, n_bins: int, dtype: torch.dtype, tf32: bool) -> dict[str, Any]:
    """The tile of a program: as large as registers allow on devices of compute capability 8.0 and 9.0."""
    padded = max(triton.next_power_of_2(channels), 16)
    pixels = 2**13 // padded if dtype == torch.bfloat16 else 2**12 // padded
    tile = {"P": max(16, min(64, pixels)), "K": max(16, min(32, 2**12 // padded)), "C": padded}
    constants = {"N_BINS": n_bins, "CHANNELS": channels, "PRECISION": "tf32" if tf32 else "ieee"}
    return tile | constants | OPTIONS


def _strides(maps: Tensor) -> tuple[int, ...]:
    """Number of pixels per image, and strides of images, pixels and channels, of maps [B, C, pixels]."""
    return maps.shape[2], maps.stride(0), maps.stride(2), maps.stride(1)


def _density_parameters(target: DPMTarget | None) -> tuple[float, ...] | None:
    """Rate and log peak of the density, inverse temperature, and distance in m within which bins take part."""
    if target is None:
        return None
    log_peak = -math.log(target.sigma * math.sqrt(2 * math.pi))
    over_floor = max(log_peak - math.log(DENSITY_FLOOR), 0)
    reach = 1.001 * target.sigma * math.sqrt(2 * over_floor) + 1e-3  # a margin for rounding; a larger value only costs time
    return -0.5 / target.sigma**2, log_peak, 1 / target.temperature, reach


def _flat(maps: Tensor) -> Tensor:
    """[B, 1, H, W] to contiguous [pixels]; the gradient of a sum is an expanded scalar."""
    return maps.flatten().contiguous()


class TritonDepthAndDivergence(Function):
    """`tiekd.models.dpm_head.depth_and_divergence` for float32 or bf16 features on a GPU; without a target, only depth."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, centers: Tensor, target: DPMTarget | None
    ) -> tuple[Tensor, Tensor | None]:
        pixels, tf32 = features.flatten(2), torch.backends.cuda.matmul.allow_tf32
        n_pixels, tile = pixels[:, 0].numel(), tile_of(pixels.shape[1], len(bias), pixels.dtype, tf32)
        head = weight.flatten(1).to(features.dtype).contiguous(), bias.float(), centers
        pixel_target = None
        if target is not None:
            target_depth = _flat(target.depth.float())
            pixel_target = target_depth, nearest_bin(centers, target_depth).int()
        depth, log_sum, divergence, target_sum = outputs = torch.empty(4, n_pixels, device=pixels.device).unbind()
        with torch.cuda.device_of(pixels):
            forward_kernel[(triton.cdiv(n_pixels, tile["P"]),)](
                pixels, head, pixel_target, outputs, n_pixels, _strides(pixels), _density_parameters(target), **tile
            )
        ctx.save_for_backward(pixels, *head, depth, log_sum, target_sum, *(pixel_target or ()))
        ctx.target, ctx.tile, ctx.size = target, tile, features.shape[2:]
        ctx.set_materialize_grads(False)
        shape = features.shape[0], 1, *features.shape[2:]
        return depth.view(shape), None if target is None else divergence.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_depth: Tensor | None, grad_divergence: Tensor | None) -> tuple[Tensor | None, ...]:
        """A gradient of None contributes nothing."""
        pixels, weight, bias, centers, depth, log_sum, target_sum, *pixel_target = ctx.saved_tensors
        target = None if grad_divergence is None else ctx.target
        grads = (torch.zeros_like(depth) if s is None else _flat(s) for s in (grad_depth, grad_divergence))
        inputs = (weight, bias, centers), target and tuple(pixel_target), (depth, log_sum, target_sum, *grads)
        tile, strides, density_parameters, n_pixels = ctx.tile, _strides(pixels), _density_parameters(target), len(depth)
        tiles, blocks = triton.cdiv(n_pixels, tile["P"]), triton.cdiv(len(bias), tile["K"])
        shares = min(tiles, triton.cdiv(PROGRAMS, blocks))
        d_pixels, d_weight = torch.empty_like(pixels), depth.new_empty(shares, *weight.shape)
        d_bias = depth.new_empty(shares, len(bias))
        with torch.cuda.device_of(pixels):
            features_kernel[(tiles,)](
                pixels, *inputs, d_pixels, n_pixels, strides, _strides(d_pixels), density_parameters, **tile
            )
            projection_kernel[(blocks, shares)](
                pixels, *inputs, d_weight, d_bias, n_pixels, strides, density_parameters, **tile
            )
        return d_pixels.unflatten(2, ctx.size), d_weight.sum(0)[..., None, None], d_bias.sum(0), None, None
