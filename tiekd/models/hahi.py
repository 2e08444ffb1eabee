"""Hierarchical aggregation and heterogeneous interaction (HAHI), the neck of DepthFormer (Li et al.

2022, https://arxiv.org/abs/2203.14211).
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Size = tuple[int, int]


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention with its residual (Zhu et al. 2021, https://arxiv.org/abs/2010.04159).

    Each query samples a few points of every level, at predicted offsets from its reference point.
    """

    def __init__(self, width: int, levels: int, heads: int = 8, points: int = 8):
        super().__init__()
        self.shape = (heads, levels, points)
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(0.1)
        self._initialize()

    def _initialize(self) -> None:
        """Equal weights for all points; each head has a direction, in which its point k is k + 1 pixels away."""
        heads, levels, points = self.shape
        for linear in (self.offsets, self.weights):
            nn.init.zeros_(linear.weight)
        for linear in (self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)
        for linear in (self.weights, self.value, self.out):
            nn.init.zeros_(linear.bias)
        angles = torch.arange(heads) * (2 * math.pi / heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        offsets = directions[:, None, None] * torch.arange(1, points + 1)[:, None]
        with torch.no_grad():
            self.offsets.bias.copy_(offsets.expand(heads, levels, points, 2).flatten())

    def forward(self, tokens: Tensor, encoding: Tensor, reference: Tensor, memory: Tensor, sizes: Sequence[Size]) -> Tensor:
        """tokens [B, Q, C] plus encoding [Q, C] are the queries; reference [Q, 2] is their (x, y) in 0 .. 1.

        memory [B, N, C] holds the levels of `sizes`, concatenated, row by row. Returns [B, Q, C].
        """
        heads, levels, points = self.shape
        queries = tokens + encoding
        offsets = self.offsets(queries).unflatten(-1, (heads, levels, points, 2))
        weights = self.weights(queries).unflatten(-1, (heads, levels * points)).softmax(dim=-1)
        weights = weights.unflatten(-1, (levels, points))
        values = self.value(memory).split([height * width for height, width in sizes], dim=1)
        # In training, the backward pass samples again: stored samples would take 5 GB per crop of 352x704.
        sample = partial(checkpoint, _sample, use_reentrant=False, preserve_rng_state=False) if self.training else _sample
        attended = sum(
            sample(value, size, reference, offsets[..., level, :, :], weights[..., level, :])
            for level, (value, size) in enumerate(zip(values, sizes, strict=True))
        )
        return tokens + self.dropout(self.out(attended))


def _sample(value: Tensor, size: Size, reference: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the sampled points of one level.

    value [B, N, C] of `size`; reference [Q, 2]; offsets [B, Q, heads, points, 2] in pixels of the level; weights [B, Q, heads,
    points]. Returns [B, Q, C].
    """
    batch, queries, heads, _ = weights.shape
    height, width = size
    maps = value.transpose(1, 2).reshape(batch * heads, -1, height, width)
    locations = reference[:, None, None] + offsets / torch.tensor([width, height], device=offsets.device)
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    sampled = F.grid_sample(maps, grid, align_corners=False)  # [B * heads, C / heads, Q, points]; 0 outside
    total = (sampled * weights.transpose(1, 2).reshape(batch * heads, 1, queries, -1)).sum(dim=-1)
    return total.view(batch, -1, queries).transpose(1, 2)


def sine_encoding(size: Size, channels: int, device: torch.device) -> Tensor:
    """Sines and cosines of row and column, counted from 1 as in DETR, without normalization: [H * W, channels]."""
    half = channels // 2
    periods = 10000 ** (torch.arange(0, half, 2, device=device) / half)
    rows, columns = (torch.arange(1, n + 1, device=device)[:, None] / periods for n in size)
    rows, columns = (torch.stack([axis.sin(), axis.cos()], dim=-1).flatten(1) for axis in (rows, columns))
    grid = rows[:, None].expand(*size, half), columns.expand(*size, half)
    return torch.cat(grid, dim=-1).flatten(0, 1)


def pixel_centers(size: Size, device: torch.device) -> Tensor:
    """(x, y) of each pixel as fractions of the map's width and height: [H * W, 2]."""
    y, x = ((torch.arange(n, device=device) + 0.5) / n for n in size)
    return torch.cartesian_prod(y, x).flip(-1)


class ConvNormReLU(nn.Sequential):
    """A size-preserving convolution, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int):
        convolution = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
        nn.init.xavier_uniform_(convolution.weight)
        super().__init__(convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


class HAHI(nn.Module):
    """Self-attention among the transformer's levels, then cross-attention from the convolutional feature to them.

    channels: widths of the features, the convolutional one first; embedding: width of the attention.
    """

    def __init__(self, channels: Sequence[int], embedding: int = 512):
        super().__init__()
        levels = len(channels) - 1
        self.laterals = nn.ModuleList(ConvNormReLU(width, width, 1) for width in channels)
        self.projections = nn.ModuleList(ConvNormReLU(width, embedding, 1) for width in channels)
        self.level_embed = nn.Parameter(torch.randn(levels, embedding))
        self.reference = nn.Linear(embedding, 2)
        nn.init.xavier_uniform_(self.reference.weight)
        nn.init.zeros_(self.reference.bias)
        self.self_attention = DeformableAttention(embedding, levels)
        self.cross_attention = DeformableAttention(embedding, levels)
        self.fusions = nn.ModuleList(ConvNormReLU(width + embedding, width, 3) for width in channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """features [B, C_i, H_i, W_i], the convolutional one first. Returns maps of the same shapes."""
        laterals = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        sizes = [tuple(lateral.shape[-2:]) for lateral in laterals]
        local, *levels = (
            project(lateral).flatten(2).transpose(1, 2) for project, lateral in zip(self.projections, laterals, strict=True)
        )
        tokens = self._self_attend(torch.cat(levels, dim=1), sizes[1:])
        local = self._cross_attend(local, sizes[0], tokens, sizes[1:])
        attended = [local, *tokens.split([height * width for height, width in sizes[1:]], dim=1)]
        maps = [part.transpose(1, 2).unflatten(-1, size) for part, size in zip(attended, sizes, strict=True)]
        return [fuse(torch.cat(pair, dim=1)) for fuse, *pair in zip(self.fusions, laterals, maps, strict=True)]

    def _self_attend(self, tokens: Tensor, sizes: Sequence[Size]) -> Tensor:
        """tokens [B, N, C] of all levels; each samples around its own position."""
        _, _, channels = tokens.shape
        encodings = [sine_encoding(size, channels, tokens.device) for size in sizes]
        encoding = torch.cat([e + embed for e, embed in zip(encodings, self.level_embed, strict=True)])
        centers = torch.cat([pixel_centers(size, tokens.device) for size in sizes])
        return self.self_attention(tokens, encoding, centers, tokens, sizes)

    def _cross_attend(self, local: Tensor, size: Size, tokens: Tensor, sizes: Sequence[Size]) -> Tensor:
        """local [B, H * W, C]; each samples the levels around a point that is learned from its position."""
        encoding = sine_encoding(size, local.shape[-1], local.device)
        with torch.autocast(local.device.type, enabled=False):  # bfloat16 would round positions to whole pixels
            reference = self.reference(encoding).sigmoid()
        return self.cross_attention(local, encoding, reference, tokens, sizes)
