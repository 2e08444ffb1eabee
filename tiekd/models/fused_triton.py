"""What `tiekd/models/fused.py` computes, as GPU kernels of Triton: one pass over the features forwards, two backwards.

A program holds a tile of pixels and goes over the bins block by block. The student's probabilities are normalised as the blocks
come (an online softmax); the teacher's need not be, since the nearest bin has the highest density. Forwards nothing is written
but a few floats per pixel. Backwards one pass makes the features' gradient and another the projection's, each from its own
logits: every sum has one program and one order, so that equal inputs give equal gradients.

P: pixels of a tile; K: bins of a block; C: channels, filled up with zeros to a power of two. Depths are metres.
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
NO_BIN = tl.constexpr(-1e30)  # logit of what fills up the last block; finite, so that times 0 it is 0
OPTIONS = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}
PROGRAMS = 1024  # that share the projection's gradient: enough for any GPU, few enough for their sums to be small


# -- parts of kernels ---------------------------------------------------------------------------------------------------------


@triton.jit
def _addresses(features, places, strides, C: tl.constexpr):
    """[P, C] in maps [B, H * W, C] of any strides, for pixels counted through all images."""
    image_pixels, of_image, of_pixel, of_channel = strides
    rows = (places // image_pixels).to(tl.int64) * of_image + (places % image_pixels).to(tl.int64) * of_pixel
    return features + rows[:, None] + tl.arange(0, C).to(tl.int64)[None, :] * of_channel


@triton.jit
def _block(head, bins, N_BINS: tl.constexpr, CHANNELS: tl.constexpr, C: tl.constexpr, AFRESH: tl.constexpr = False):
    """Of bins [K]: weight [K, C], bias [K], centers [K]."""
    weight, bias, centers = head
    channels, known = tl.arange(0, C), bins < N_BINS
    mask = known[:, None] & (channels[None, :] < CHANNELS)
    w = tl.load(weight + bins[:, None] * CHANNELS + channels[None, :], mask=mask, other=0.0, volatile=AFRESH)
    return w, tl.load(bias + bins, mask=known, other=NO_BIN), tl.load(centers + bins, mask=known, other=0.0)


@triton.jit
def _density(c, t, spread):
    """Of bins' centers at a teacher's depth."""
    rate, log_peak, _coldness, _reach = spread
    return tl.exp((c - t) * (c - t) * rate + log_peak)


@triton.jit
def _taught(teacher, places, centers, spread):
    """Of pixels [P]: depth, nearest bin and its density; of all of them, between which depths lie the bins that take part."""
    depth, nearest = teacher
    _rate, _log_peak, _coldness, reach = spread
    t, closest = tl.load(depth + places), tl.load(nearest + places)
    center = tl.load(centers + closest)
    lower, upper = tl.min(tl.minimum(t - reach, center), 0), tl.max(tl.maximum(t + reach, center), 0)
    return t, closest, _density(center, t, spread), lower, upper


@triton.jit
def _meets(taught, centers, start, N_BINS: tl.constexpr, K: tl.constexpr):
    """Whether some bin of the block that begins at `start` may take part in a target of the tile."""
    _t, _nearest, _highest, lower, upper = taught
    last = tl.minimum(start + K, N_BINS) - 1
    return (tl.load(centers + last) >= lower) & (tl.load(centers + start) <= upper)


@triton.jit
def _target(taught, bins, c, spread, N_BINS: tl.constexpr):
    """[P, K]: the target (`tiekd.bins.target_dpm`) over its value at the nearest bin, and the log of that where it is not 0."""
    t, nearest, highest, _lower, _upper = taught
    _rate, _log_peak, coldness, _reach = spread
    density, is_nearest = _density(c[None, :], t[:, None], spread), bins[None, :] == nearest[:, None]
    takes_part = (is_nearest | (density >= FLOOR)) & (bins < N_BINS)[None, :]
    log_q = tl.where(is_nearest, 0.0, tl.minimum(density - highest[:, None], 0.0) * coldness)  # whatever rounding says
    return tl.where(takes_part, tl.exp(log_q), 0.0), log_q


@triton.jit
def _softmaxes(kept, places, here):
    """What the passes backwards read of pixels [P]: depth, both slopes, which are 0 beyond the last, and both normalisers."""
    depth, log_sum, target_sum, slope_depth, slope_divergence = kept
    g_depth = tl.load(slope_depth + places, mask=here, other=0.0)
    g_kl = tl.load(slope_divergence + places, mask=here, other=0.0)
    return tl.load(depth + places), g_depth, g_kl, tl.load(log_sum + places), tl.load(target_sum + places)


@triton.jit
def _slope(z, softmaxes, taught, bins, c, centers, start, spread, N_BINS: tl.constexpr, K: tl.constexpr):
    """Gradient of the logits [P, K]; `tiekd/models/fused.py` has the formula."""
    d, g_depth, g_kl, whole, mass = softmaxes
    d_z = tl.exp(z - whole[:, None]) * (g_kl[:, None] + g_depth[:, None] * (c[None, :] - d[:, None]))
    if taught is not None:  # noqa: SIM102 (known when it is compiled)
        if _meets(taught, centers, start, N_BINS, K):
            d_z -= (g_kl / mass)[:, None] * _target(taught, bins, c, spread, N_BINS)[0]
    return d_z


# -- kernels ------------------------------------------------------------------------------------------------------------------


@triton.jit
def forward_kernel(
    features, head, teacher, found, n_pixels, strides, spread,
    N_BINS: tl.constexpr, CHANNELS: tl.constexpr, P: tl.constexpr, K: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Depth, divergence where there is a teacher, and the two softmaxes' normalisers."""
    depth, log_sum, divergence, target_sum = found
    centers = head[2]
    places = tl.program_id(0) * P + tl.arange(0, P)
    here = places < n_pixels
    places = tl.minimum(places, n_pixels - 1)
    x = tl.load(_addresses(features, places, strides, C), mask=tl.arange(0, C)[None, :] < CHANNELS, other=0.0)
    top, total, moment = tl.full([P], float("-inf"), tl.float32), tl.zeros([P], tl.float32), tl.zeros([P], tl.float32)
    mass, cost = tl.zeros([P], tl.float32), tl.zeros([P], tl.float32)
    if teacher is not None:
        taught = _taught(teacher, places, centers, spread)
    for start in range(0, N_BINS, K):
        bins = start + tl.arange(0, K)
        w, b, c = _block(head, bins, N_BINS, CHANNELS, C)
        z = tl.dot(x, tl.trans(w), input_precision=PRECISION) + b[None, :]
        before = top
        top = tl.maximum(top, tl.max(z, 1))
        e, fade = tl.exp(z - top[:, None]), tl.exp(before - top)
        total = total * fade + tl.sum(e, 1)
        moment = moment * fade + tl.sum(e * c[None, :], 1)
        if teacher is not None:  # noqa: SIM102 (known when it is compiled)
            if _meets(taught, centers, start, N_BINS, K):
                q, log_q = _target(taught, bins, c, spread, N_BINS)
                mass += tl.sum(q, 1)
                cost += tl.sum(q * (log_q - z), 1)
    whole = top + tl.log(total)
    tl.store(depth + places, moment / total, mask=here)
    tl.store(log_sum + places, whole, mask=here)
    if teacher is not None:
        tl.store(divergence + places, cost / mass - tl.log(mass) + whole, mask=here)
        tl.store(target_sum + places, mass, mask=here)


@triton.jit
def features_kernel(
    features, head, teacher, kept, d_features, n_pixels, strides, d_strides, spread,
    N_BINS: tl.constexpr, CHANNELS: tl.constexpr, P: tl.constexpr, K: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of the features."""
    centers = head[2]
    places = tl.program_id(0) * P + tl.arange(0, P)
    here = places < n_pixels
    mask = here[:, None] & (tl.arange(0, C)[None, :] < CHANNELS)
    places = tl.minimum(places, n_pixels - 1)
    x = tl.load(_addresses(features, places, strides, C), mask=mask, other=0.0)
    softmaxes = _softmaxes(kept, places, here)
    taught = None
    if teacher is not None:
        taught = _taught(teacher, places, centers, spread)
    d_x = tl.zeros([P, C], tl.float32)
    for start in range(0, N_BINS, K):
        bins = start + tl.arange(0, K)
        w, b, c = _block(head, bins, N_BINS, CHANNELS, C)
        z = tl.dot(x, tl.trans(w), input_precision=PRECISION) + b[None, :]
        d_z = _slope(z, softmaxes, taught, bins, c, centers, start, spread, N_BINS, K)
        d_x = tl.dot(d_z.to(w.dtype), w, d_x, input_precision=PRECISION)
    tl.store(_addresses(d_features, places, d_strides, C), d_x, mask=mask)


@triton.jit
def projection_kernel(
    features, head, teacher, kept, d_weight, d_bias, n_pixels, strides, spread,
    N_BINS: tl.constexpr, CHANNELS: tl.constexpr, P: tl.constexpr, K: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A share of the gradient of weight [shares, K, C] and bias [shares, K]: of some bins, from every so many tiles."""
    centers = head[2]
    start, share, shares = tl.program_id(0) * K, tl.program_id(1), tl.num_programs(1)
    bins, channels = start + tl.arange(0, K), tl.arange(0, C)
    w, b, c = _block(head, bins, N_BINS, CHANNELS, C)
    d_w, d_b = tl.zeros([K, C], tl.float32), tl.zeros([K], tl.float32)
    for first in range(share * P, n_pixels, shares * P):
        places = first + tl.arange(0, P)
        here = places < n_pixels
        places = tl.minimum(places, n_pixels - 1)
        x = tl.load(_addresses(features, places, strides, C), mask=channels[None, :] < CHANNELS, other=0.0)
        if PRECISION == "ieee":  # without tensor cores weights are read from registers, which could not hold them so long
            w, b, c = _block(head, bins, N_BINS, CHANNELS, C, AFRESH=True)
        z = tl.dot(x, tl.trans(w), input_precision=PRECISION) + b[None, :]
        taught = None
        if teacher is not None:
            taught = _taught(teacher, places, centers, spread)
        d_z = _slope(z, _softmaxes(kept, places, here), taught, bins, c, centers, start, spread, N_BINS, K)
        d_w = tl.dot(tl.trans(d_z.to(x.dtype)), x, d_w, input_precision=PRECISION)
        d_b += tl.sum(d_z, 0)
    row = share * N_BINS + bins
    known = bins < N_BINS
    tl.store(d_weight + row[:, None] * CHANNELS + channels[None, :], d_w, mask=known[:, None] & (channels[None, :] < CHANNELS))
    tl.store(d_bias + row, d_b, mask=known)


# -- their launch -------------------------------------------------------------------------------------------------------------


def tile_of(channels: int, n_bins: int, dtype: torch.dtype, tf32: bool) -> dict[str, Any]:
    """What a program works on at a time: as much as registers hold, for compilers of compute capability 8.0 and 9.0."""
    padded = max(triton.next_power_of_2(channels), 16)
    pixels = 2**13 // padded if dtype == torch.bfloat16 else 2**12 // padded
    tile = {"P": max(16, min(64, pixels)), "K": max(16, min(32, 2**12 // padded)), "C": padded}
    constants = {"N_BINS": n_bins, "CHANNELS": channels, "PRECISION": "tf32" if tf32 else "ieee"}
    return tile | constants | OPTIONS


def _strides(maps: Tensor) -> tuple[int, ...]:
    """Of maps [B, C, pixels]: pixels of an image, and the distance between images, pixels and channels."""
    return maps.shape[2], maps.stride(0), maps.stride(2), maps.stride(1)


def _spread(teacher: DPMTarget | None) -> tuple[float, ...] | None:
    """The density's rate and log of its peak, one over the temperature, and how far bins that take part may be, in m."""
    if teacher is None:
        return None
    log_peak = -math.log(teacher.sigma * math.sqrt(2 * math.pi))
    over_floor = max(log_peak - math.log(DENSITY_FLOOR), 0)
    reach = 1.001 * teacher.sigma * math.sqrt(2 * over_floor) + 1e-3  # slack for rounding; it costs nothing but time
    return -0.5 / teacher.sigma**2, log_peak, 1 / teacher.temperature, reach


def _flat(maps: Tensor) -> Tensor:
    """[B, 1, H, W] to [pixels], as kernels step through them; the slope of a sum is one number, seen many times."""
    return maps.flatten().contiguous()


class TritonDepthAndDivergence(Function):
    """`tiekd.models.fused.depth_and_divergence` of float32 or bf16 features on a GPU; without a teacher, depth alone."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, centers: Tensor, teacher: DPMTarget | None
    ) -> tuple[Tensor, Tensor | None]:
        pixels, tf32 = features.flatten(2), torch.backends.cuda.matmul.allow_tf32
        n_pixels, tile = pixels[:, 0].numel(), tile_of(pixels.shape[1], len(bias), pixels.dtype, tf32)
        head = weight.flatten(1).to(features.dtype).contiguous(), bias.float(), centers
        taught = None
        if teacher is not None:
            target = _flat(teacher.depth.float())
            taught = target, nearest_bin(centers, target).int()
        depth, log_sum, divergence, target_sum = found = torch.empty(4, n_pixels, device=pixels.device).unbind()
        with torch.cuda.device_of(pixels):
            forward_kernel[(triton.cdiv(n_pixels, tile["P"]),)](
                pixels, head, taught, found, n_pixels, _strides(pixels), _spread(teacher), **tile
            )
        ctx.save_for_backward(pixels, *head, depth, log_sum, target_sum, *(taught or ()))
        ctx.teacher, ctx.tile, ctx.size = teacher, tile, features.shape[2:]
        ctx.set_materialize_grads(False)
        shape = features.shape[0], 1, *features.shape[2:]
        return depth.view(shape), None if teacher is None else divergence.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_depth: Tensor | None, slope_divergence: Tensor | None) -> tuple[Tensor | None, ...]:
        """With one slope None the other's part alone."""
        pixels, weight, bias, centers, depth, log_sum, target_sum, *taught = ctx.saved_tensors
        teacher = None if slope_divergence is None else ctx.teacher
        slopes = (torch.zeros_like(depth) if s is None else _flat(s) for s in (slope_depth, slope_divergence))
        given = (weight, bias, centers), teacher and tuple(taught), (depth, log_sum, target_sum, *slopes)
        tile, strides, spread, n_pixels = ctx.tile, _strides(pixels), _spread(teacher), len(depth)
        tiles, blocks = triton.cdiv(n_pixels, tile["P"]), triton.cdiv(len(bias), tile["K"])
        shares = min(tiles, triton.cdiv(PROGRAMS, blocks))
        d_pixels, d_weight = torch.empty_like(pixels), depth.new_empty(shares, *weight.shape)
        d_bias = depth.new_empty(shares, len(bias))
        with torch.cuda.device_of(pixels):
            features_kernel[(tiles,)](pixels, *given, d_pixels, n_pixels, strides, _strides(d_pixels), spread, **tile)
            projection_kernel[(blocks, shares)](pixels, *given, d_weight, d_bias, n_pixels, strides, spread, **tile)
        return d_pixels.unflatten(2, ctx.size), d_weight.sum(0)[..., None, None], d_bias.sum(0), None, None
