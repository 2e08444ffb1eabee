"""Decoders: from features of several strides to one map at the image's size.

The published students have the one of DenseDepth (Alhashim & Wonka 2018, https://arxiv.org/abs/1812.11941), in which most of a
training's memory is used. For its gradients a level keeps the outputs of its convolutions, and computes the resized and
concatenated input again in the backward pass, which costs little. The one of FastDepth (Wofk et al. 2019,
https://arxiv.org/abs/1903.03273) needs a fraction of its operations.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with activation; with `normed`, a batch norm replaces their bias."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        activation: type[nn.ReLU] | type[nn.LeakyReLU] = nn.ReLU,
        normed: bool = False,
    ):
        layers: list[nn.Module] = []
        for channels in (channels_in, channels_out):
            norm = [nn.BatchNorm2d(channels_out)] if normed else []
            layers += [nn.Conv2d(channels, channels_out, 3, padding=1, bias=not normed), *norm, activation(inplace=True)]
        super().__init__(*layers)

    def forward(  # type: ignore[override]  # a Sequential has one input
        self, x: Tensor, size: torch.Size | tuple[int, int], *skip: Tensor
    ) -> Tensor:
        """Resize x [B, C, h, w] to `size`, concatenate skips [B, C_i, *size], convolve: [B, channels_out, *size]."""
        # The convolution runs once: in the backward pass, PyTorch stops the recomputation at the convolution's input.
        x = checkpoint(self._first, x, size, *skip, use_reentrant=False, preserve_rng_state=False)
        for layer in list(self)[1:]:
            x = layer(x)
        return x

    def _first(self, x: Tensor, size: torch.Size | tuple[int, int], *skip: Tensor) -> Tensor:
        x = resize(x, size)
        return self[0](torch.cat([x, *skip], dim=1) if skip else x)


class LastReLU(nn.Module):
    """In-place ReLU for the decoder's output, which keeps one byte per value for its gradient.

    Inside the decoder `nn.ReLU` is better: it keeps its output, which the next convolution keeps anyway. This output is only
    kept by the head, which frees it before the gradient arrives here.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _LastReLU.apply(x) if x.requires_grad else F.relu(x, inplace=True)


class _LastReLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(x <= 0)
        x.relu_()
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (negative,) = ctx.saved_tensors
        return torch.where(negative, 0, grad)


def resize(maps: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Resize bilinearly with aligned corners, as in the published decoder; returns `maps` if the size is the same."""
    # An exported graph is for all sizes, so it must not depend on the size of the example.
    if not torch.compiler.is_exporting() and maps.shape[-2:] == tuple(size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


class DenseDepthDecoder(nn.Module):
    """Features of several strides to one map at the input's size.

    channels_in: widths of the features, finest first; reductions: their strides; widths: of the decoder's levels, deepest
    first.
    """

    def __init__(
        self,
        channels_in: list[int],
        reductions: list[int],
        widths: tuple[int, ...],
        activation: type[nn.ReLU] | type[nn.LeakyReLU] = nn.ReLU,
        normed: bool = False,
    ):
        super().__init__()
        deepest_first = channels_in[::-1]
        self.bottleneck = nn.Conv2d(deepest_first[0], widths[0], 1)
        self.merges = nn.ModuleList(
            DoubleConv(below + skip, width, activation, normed)
            for below, skip, width in zip(widths[:-1], deepest_first[1:], widths[1:], strict=True)
        )
        doublings = max(reductions[0].bit_length() - 1, 0)
        self.upsamples = nn.ModuleList(DoubleConv(widths[-1], widths[-1], activation, normed) for _ in range(doublings))
        blocks = [*self.merges, *self.upsamples]
        if blocks and activation is nn.ReLU:
            blocks[-1][-1] = LastReLU()
        self.channels_out = widths[-1]

    def forward(self, features: list[Tensor], size: torch.Size | tuple[int, int]) -> Tensor:
        """features [B, C_i, H_i, W_i], finest first. Returns [B, channels_out, *size]."""
        *skips, deepest = features
        x = self.bottleneck(deepest)
        for merge, skip in zip(self.merges, reversed(skips), strict=True):
            x = merge(x, skip.shape[-2:], skip)
        for upsample in self.upsamples:
            x = upsample(x, (x.shape[-2] * 2, x.shape[-1] * 2))
        return resize(x, size)


class SeparableConv(nn.Sequential):
    """A 5x5 depthwise convolution and a 1x1 convolution, each with batch norm and ReLU."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(
            nn.Conv2d(channels_in, channels_in, 5, padding=2, groups=channels_in, bias=False),
            nn.BatchNorm2d(channels_in),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class FastDepthDecoder(nn.Module):
    """FastDepth's NNConv5 with added skips: at each level a separable convolution, then nearest upsampling, then the skip.

    channels_in: widths of the features, finest first; widths: of the decoder's levels, deepest first. A skip of another width
    than the level to which it is added goes through a 1x1 convolution; the paper's skips have the same.
    """

    def __init__(self, channels_in: list[int], widths: tuple[int, ...]):
        super().__init__()
        deepest, *skips = channels_in[::-1]
        self.levels = nn.ModuleList(
            SeparableConv(below, width) for below, width in zip((deepest, *widths[:-1]), widths, strict=True)
        )
        self.skips = nn.ModuleList(
            nn.Identity() if skip == width else nn.Conv2d(skip, width, 1)
            for skip, width in zip(skips, widths[:-1], strict=True)
        )
        self.channels_out = widths[-1]

    def forward(self, features: list[Tensor], size: torch.Size | tuple[int, int]) -> Tensor:
        """features [B, C_i, H_i, W_i], finest first. Returns [B, channels_out, *size]."""
        *skips, x = features
        *levels, last = self.levels
        for level, project, skip in zip(levels, self.skips, reversed(skips), strict=True):
            x = F.interpolate(level(x), size=skip.shape[-2:], mode="nearest") + project(skip)
        return F.interpolate(last(x), size=size, mode="nearest")
