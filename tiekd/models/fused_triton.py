"""The computation of `tiekd/models/dpm_head.py` as Triton kernels: one forward pass over the features, two backward passes.

A program holds a tile of pixels and loops over blocks of bins. The student's probabilities are normalized block by block
(online softmax); the teacher's need no such pass, since they are relative to the reference bin. The forward pass writes only a
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

from tiekd.bins import DENSITY_FLOOR, DPMTarget, reference_bin
from tiekd.config.specs import DEFAULT_DPM

FLOOR = tl.constexpr(DENSITY_FLOOR)
FAR = tl.constexpr(1e30)  # m; where the neighbors of the first and last bin are
NO_BIN = tl.constexpr(-1e30)  # logit of the padding of the last block, score of a bin of mass 0; finite: 0 times it is 0
UNDERFLOW = 110  # the exponential of minus this number is 0 in float32
LEAST_MASS = tl.constexpr(1e-30)  # of a bin of `integral` or `two_hot` that is not 0
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
    weight, bias, centers, _edges = head
    channels, known = tl.arange(0, C), bins < N_BINS
    mask = known[:, None] & (channels[None, :] < CHANNELS)
    w = tl.load(weight + bins[:, None] * CHANNELS + channels[None, :], mask=mask, other=0.0, volatile=RELOAD)
    return w, tl.load(bias + bins, mask=known, other=NO_BIN), tl.load(centers + bins, mask=known, other=0.0)


@triton.jit
def _neighbors(head, bins, N_BINS: tl.constexpr, DPM: tl.constexpr):
    """What a bin's share depends on beside its center: its two edges, or the centers of the bins beside it."""
    _weight, _bias, centers, edges = head
    if DPM == "integral":
        lower = tl.load(edges + bins, mask=bins < N_BINS, other=FAR)
        upper = tl.load(edges + bins + 1, mask=bins < N_BINS, other=FAR)
    elif DPM == "two_hot":
        lower = tl.load(centers + bins - 1, mask=(bins > 0) & (bins < N_BINS), other=-FAR)
        upper = tl.load(centers + bins + 1, mask=bins < N_BINS - 1, other=FAR)
    else:
        lower, upper = bins, bins
    return lower, upper


@triton.jit
def _score(c, lower, upper, t, target_parameters, DPM: tl.constexpr):
    """Logarithm of the share of bins in the target of the teacher's depth t, up to a constant; NO_BIN where it is 0.

    For softmax_density it is the density in 1/m, still to be divided by the temperature.
    """
    rate, log_peak, _coldness, _reach = target_parameters
    if DPM == "softmax_density":
        density = tl.exp((c - t) * (c - t) * rate + log_peak)
        score = tl.where(density >= FLOOR, density, NO_BIN)
    elif DPM == "density":
        score = (c - t) * (c - t) * rate
    elif DPM == "laplace":
        score = tl.abs(c - t) * rate
    elif DPM == "integral":
        mass = tl.erf((upper - t) * rate) - tl.erf((lower - t) * rate)
        score = tl.where(mass > LEAST_MASS, tl.log(tl.maximum(mass, LEAST_MASS)), NO_BIN)
    else:
        tl.static_assert(DPM == "two_hot")
        mass = tl.minimum(tl.minimum((t - lower) / (c - lower), (upper - t) / (upper - c)), 1.0)
        score = tl.where(mass > LEAST_MASS, tl.log(tl.maximum(mass, LEAST_MASS)), NO_BIN)
    return score


@triton.jit
def _load_target(target, indices, head, target_parameters, N_BINS: tl.constexpr, DPM: tl.constexpr):
    """Load the target of pixels [P]: depth, reference bin and its score, and the depth range of the bins that take part."""
    depth, reference = target
    _rate, _log_peak, _coldness, reach = target_parameters
    t, bin_ = tl.load(depth + indices), tl.load(reference + indices)
    center = tl.load(head[2] + bin_)
    below, above = _neighbors(head, bin_, N_BINS, DPM)
    score = _score(center, below, above, t, target_parameters, DPM)
    spread = reach + tl.abs(center - t)
    return t, bin_, tl.where(score > NO_BIN, score, tl.log(LEAST_MASS)), tl.min(t - spread, 0), tl.max(t + spread, 0)


@triton.jit
def _may_take_part(pixel_target, head, start, N_BINS: tl.constexpr, K: tl.constexpr):
    """Whether a bin of the block at `start` may take part in a target of the tile."""
    _t, _reference, _highest, lower, upper = pixel_target
    last = tl.minimum(start + K, N_BINS) - 1
    return (tl.load(head[2] + last) >= lower) & (tl.load(head[2] + start) <= upper)


@triton.jit
def _target_dpm(pixel_target, bins, c, head, target_parameters, N_BINS: tl.constexpr, DPM: tl.constexpr):
    """The target (`tiekd.bins.target_dpm`) relative to that of the reference bin, and its log where it is not 0: [P, K]."""
    t, reference, highest, _lower, _upper = pixel_target
    _rate, _log_peak, coldness, _reach = target_parameters
    below, above = _neighbors(head, bins, N_BINS, DPM)
    score = _score(c[None, :], below[None, :], above[None, :], t[:, None], target_parameters, DPM)
    is_reference = bins[None, :] == reference[:, None]
    takes_part = (is_reference | (score > NO_BIN)) & (bins < N_BINS)[None, :]
    difference = score - highest[:, None]
    if DPM != "integral":  # of whose bins the reference need not be the highest
        difference = tl.minimum(difference, 0.0)  # in spite of rounding
    log_q = tl.where(is_reference, 0.0, difference * coldness)
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
    z, softmax_state, pixel_target, bins, c, head, start, target_parameters,
    N_BINS: tl.constexpr, K: tl.constexpr, DPM: tl.constexpr,
):  # fmt: skip
    """Gradient of the logits [P, K]; for the formula see `tiekd/models/dpm_head.py`."""
    d, g_depth, g_kl, log_total, q_sum = softmax_state
    d_z = tl.exp(z - log_total[:, None]) * (g_kl[:, None] + g_depth[:, None] * (c[None, :] - d[:, None]))
    if pixel_target is not None:  # noqa: SIM102 - the outer condition is evaluated at compile time
        if _may_take_part(pixel_target, head, start, N_BINS, K):
            d_z -= (g_kl / q_sum)[:, None] * _target_dpm(pixel_target, bins, c, head, target_parameters, N_BINS, DPM)[0]
    return d_z


# -- kernels ------------------------------------------------------------------------------------------------------------------


@triton.jit
def forward_kernel(
    features, head, target, outputs, n_pixels, strides, target_parameters,
    N_BINS: tl.constexpr, CHANNELS: tl.constexpr, P: tl.constexpr, K: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
    DPM: tl.constexpr,
):  # fmt: skip
    """Compute depth, divergence if there is a target, and the normalizers of both softmaxes."""
    depth, log_sum, divergence, target_sum = outputs
    indices = tl.program_id(0) * P + tl.arange(0, P)
    in_range = indices < n_pixels
    indices = tl.minimum(indices, n_pixels - 1)
    x = tl.load(_addresses(features, indices, strides, C), mask=tl.arange(0, C)[None, :] < CHANNELS, other=0.0)
    top, total, moment = tl.full([P], float("-inf"), tl.float32), tl.zeros([P], tl.float32), tl.zeros([P], tl.float32)
    q_sum, cost = tl.zeros([P], tl.float32), tl.zeros([P], tl.float32)
    if target is not None:
        pixel_target = _load_target(target, indices, head, target_parameters, N_BINS, DPM)
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
            if _may_take_part(pixel_target, head, start, N_BINS, K):
                q, log_q = _target_dpm(pixel_target, bins, c, head, target_parameters, N_BINS, DPM)
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
    features, head, target, saved, d_features, n_pixels, strides, d_strides, target_parameters,
    N_BINS: tl.constexpr, CHANNELS: tl.constexpr, P: tl.constexpr, K: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
    DPM: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of the features."""
    indices = tl.program_id(0) * P + tl.arange(0, P)
    in_range = indices < n_pixels
    mask = in_range[:, None] & (tl.arange(0, C)[None, :] < CHANNELS)
    indices = tl.minimum(indices, n_pixels - 1)
    x = tl.load(_addresses(features, indices, strides, C), mask=mask, other=0.0)
    softmax_state = _load_softmaxes(saved, indices, in_range)
    pixel_target = None
    if target is not None:
        pixel_target = _load_target(target, indices, head, target_parameters, N_BINS, DPM)
    d_x = tl.zeros([P, C], tl.float32)
    for start in range(0, N_BINS, K):
        bins = start + tl.arange(0, K)
        w, b, c = _block(head, bins, N_BINS, CHANNELS, C)
        z = tl.dot(x, tl.trans(w), input_precision=PRECISION) + b[None, :]
        d_z = _logits_gradient(z, softmax_state, pixel_target, bins, c, head, start, target_parameters, N_BINS, K, DPM)
        d_x = tl.dot(d_z.to(w.dtype), w, d_x, input_precision=PRECISION)
    tl.store(_addresses(d_features, indices, d_strides, C), d_x, mask=mask)


@triton.jit
def projection_kernel(
    features, head, target, saved, d_weight, d_bias, n_pixels, strides, target_parameters,
    N_BINS: tl.constexpr, CHANNELS: tl.constexpr, P: tl.constexpr, K: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
    DPM: tl.constexpr,
):  # fmt: skip
    """Compute a partial sum of the gradient of weight [shares, K, C] and bias [shares, K], over every `shares`-th tile."""
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
            pixel_target = _load_target(target, indices, head, target_parameters, N_BINS, DPM)
        d_z = _logits_gradient(
            z, _load_softmaxes(saved, indices, in_range), pixel_target, bins, c, head, start, target_parameters, N_BINS, K, DPM
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


def _target_parameters(target: DPMTarget | None) -> tuple[float, ...] | None:
    """Rate and log peak of the score, inverse temperature, and distance in m within which bins take part.

    The distance is beyond that of the reference bin. It has a margin for rounding; a larger value only costs time.
    """
    if target is None:
        return None
    sigma = target.sigma
    match target.dpm:
        case "softmax_density":
            log_peak = -math.log(sigma * math.sqrt(2 * math.pi))
            reach = sigma * math.sqrt(2 * max(log_peak - math.log(DENSITY_FLOOR), 0))
            return -0.5 / sigma**2, log_peak, 1 / target.temperature, 1.001 * reach + 1e-3
        case "density":
            return -0.5 / sigma**2, 0.0, 1.0, math.sqrt(2 * UNDERFLOW) * sigma
        case "laplace":
            return -math.sqrt(2) / sigma, 0.0, 1.0, UNDERFLOW * sigma / math.sqrt(2)
    return 1 / (sigma * math.sqrt(2)), 0.0, 1.0, math.inf  # a bin's center says little about where its share ends


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
        # Without a target, neither the DPM nor the edges are read.
        tile["DPM"], edges = (target.dpm, target.grid.edges) if target else (DEFAULT_DPM, centers)
        head = weight.flatten(1).to(features.dtype).contiguous(), bias.float(), centers, edges
        pixel_target = None
        if target is not None:
            target_depth = _flat(target.depth.float())
            pixel_target = target_depth, reference_bin(target.grid, target_depth, target.dpm).int()
        depth, log_sum, divergence, target_sum = outputs = torch.empty(4, n_pixels, device=pixels.device).unbind()
        with torch.cuda.device_of(pixels):
            forward_kernel[(triton.cdiv(n_pixels, tile["P"]),)](
                pixels, head, pixel_target, outputs, n_pixels, _strides(pixels), _target_parameters(target), **tile
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
        pixels, weight, bias, centers, edges, depth, log_sum, target_sum, *pixel_target = ctx.saved_tensors
        target = None if grad_divergence is None else ctx.target
        grads = (torch.zeros_like(depth) if s is None else _flat(s) for s in (grad_depth, grad_divergence))
        inputs = (weight, bias, centers, edges), target and tuple(pixel_target), (depth, log_sum, target_sum, *grads)
        tile, strides, target_parameters, n_pixels = ctx.tile, _strides(pixels), _target_parameters(target), len(depth)
        tiles, blocks = triton.cdiv(n_pixels, tile["P"]), triton.cdiv(len(bias), tile["K"])
        shares = min(tiles, triton.cdiv(PROGRAMS, blocks))
        d_pixels, d_weight = torch.empty_like(pixels), depth.new_empty(shares, *weight.shape)
        d_bias = depth.new_empty(shares, len(bias))
        with torch.cuda.device_of(pixels):
            features_kernel[(tiles,)](
                pixels, *inputs, d_pixels, n_pixels, strides, _strides(d_pixels), target_parameters, **tile
            )
            projection_kernel[(blocks, shares)](pixels, *inputs, d_weight, d_bias, n_pixels, strides, target_parameters, **tile)
        return d_pixels.unflatten(2, ctx.size), d_weight.sum(0)[..., None, None], d_bias.sum(0), None, None
