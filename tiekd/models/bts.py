"""BTS: a decoder with local planar guidance (Lee et al. 2019, "From Big to Small", https://arxiv.org/abs/1907.10326).

At 1/8, 1/4 and 1/2 of the image's size the decoder predicts a plane for each cell of 8x8, 4x4 and 2x2 pixels. A plane gives
every pixel of its cell a depth, so each of these levels yields a depth map at the image's size; the last layers combine the
three with a fourth map, which is predicted pixel by pixel.

As in the released configs, depth is not scaled by the camera's focal length.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tiekd.config import RunConfig
from tiekd.errors import UserError
from tiekd.models.encoder import build_encoder, feature_info
from tiekd.models.prediction import Prediction
from tiekd.models.released_keys import ReleasedKeys

STRIDES = [2, 4, 8, 16, 32]
DILATIONS = (3, 6, 12, 18, 24)
NARROWEST = 8  # channels; the last width before the output


def _conv(channels_in: int, channels_out: int, size: int = 3) -> nn.Sequential:
    """Convolution without bias, and ELU."""
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, size, padding=size // 2, bias=False), nn.ELU())


def _norm(channels: int, eps: float = 1.1e-5) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=eps, momentum=0.01)


def _upsample(channels_in: int, channels_out: int) -> nn.Sequential:
    """Double height and width, then convolve."""
    return nn.Sequential(nn.Upsample(scale_factor=2), _conv(channels_in, channels_out))


def _narrow(channels_in: int, first: int, channels_out: int) -> nn.Sequential:
    """1x1 convolutions of widths first, first / 2, first / 4 .. NARROWEST, and an output layer without activation."""
    layers: list[nn.Module] = []
    below = channels_in
    while first >= NARROWEST:
        layers.append(_conv(below, first, 1))
        below, first = first, first // 2
    return nn.Sequential(*layers, nn.Conv2d(below, channels_out, 1, bias=False))


class LocalPlanarGuidance(nn.Module):
    """Predict a plane for each cell of cell x cell pixels, and intersect it with the rays through the pixels.

    A plane has a distance d, as a fraction of max_depth, and a unit normal n, given by its tilt theta in 0 .. pi / 3 and its
    azimuth phi in 0 .. 2 pi. The pixel at (u, v), in units of cells from the center of its cell, has

        depth = d / (n1 u + n2 v + n3)    where n = (sin theta cos phi, sin theta sin phi, cos theta).

    This is unbounded: in the corners of 8x8 pixels, |u| = |v| = 7/16, the divisor reaches zero at a tilt of 58 degrees.
    """

    def __init__(self, channels: int, first: int, cell: int):
        super().__init__()
        self.cell = cell
        self.plane = _narrow(channels, first, 3)

    def forward(self, features: Tensor) -> Tensor:
        """features [B, C, h, w] -> depth [B, 1, h * cell, w * cell] as a fraction of max_depth, float32."""
        theta, phi, distance = torch.sigmoid(self.plane(features).float()).chunk(3, dim=1)
        theta, phi = theta * (math.pi / 3), phi * (2 * math.pi)
        v, u = self._pixels(features.device)
        divisor = theta.sin() * (phi.cos() * u + phi.sin() * v) + theta.cos()  # [B, cell^2, h, w]
        return F.pixel_shuffle(distance / divisor, self.cell)

    def _pixels(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rows and columns of a cell's pixels from its center, in units of cells: [cell^2, 1, 1] each."""
        steps = (torch.arange(self.cell, device=device) - (self.cell - 1) / 2) / self.cell
        return steps.repeat_interleave(self.cell)[:, None, None], steps.repeat(self.cell)[:, None, None]


class DenseASPP(nn.Module):
    """Atrous convolutions of increasing dilation with dense connections (DenseASPP, Yang et al. 2018).

    channels: width of the features; channels_joined: width of the features' own input, which all but the first convolution also
    read.
    """

    def __init__(self, channels: int, channels_joined: int, width: int):
        super().__init__()
        inputs = [channels, *(channels_joined + n * width for n in range(1, len(DILATIONS)))]
        self.branches = nn.ModuleList(
            nn.Sequential(
                _norm(width_in) if n else nn.Identity(),  # the input of the first is normalized
                nn.ReLU(),
                nn.Conv2d(width_in, 2 * width, 1, bias=False),
                _norm(2 * width, eps=1e-5),
                nn.ReLU(),
                nn.Conv2d(2 * width, width, 3, padding=dilation, dilation=dilation, bias=False),
            )
            for n, (width_in, dilation) in enumerate(zip(inputs, DILATIONS, strict=True))
        )
        self.merge = _conv(channels + len(DILATIONS) * width, width)

    def forward(self, features: Tensor, joined: Tensor) -> Tensor:
        """[B, channels, h, w] and [B, channels_joined, h, w] -> [B, width, h, w]."""
        first, *others = self.branches
        outputs = [first(features)]
        for branch in others:
            outputs.append(branch(torch.cat([joined, *outputs], dim=1)))
        return self.merge(torch.cat([features, *outputs], dim=1))


class BTSDecoder(nn.Module):
    """Features of STRIDES to depth. Layers are named after the stride of their output.

    channels_in: the encoder's widths, finest first; widths: the decoder's at strides 16, 8, 4, 2 and 1. The output of the ASPP,
    at stride 8, already has the width of stride 4.
    """

    def __init__(self, channels_in: list[int], widths: tuple[int, ...], max_depth: float):
        super().__init__()
        self.max_depth = max_depth
        c2, c4, c8, c16, c32 = channels_in
        w16, w8, w4, w2, w1 = widths

        self.up16, self.norm16 = _upsample(c32, w16), _norm(w16)
        self.merge16 = _conv(w16 + c16, w16)

        self.up8, self.norm8 = _upsample(w16, w8), _norm(w8)
        self.merge8 = nn.Sequential(_conv(w8 + c8, w8), _norm(w8))
        self.aspp = DenseASPP(w8, w8 + c8, w4)
        self.guide8 = LocalPlanarGuidance(w4, w4, cell=8)

        self.up4, self.norm4 = _upsample(w4, w4), _norm(w4)
        self.merge4 = _conv(w4 + c4 + 1, w4)
        self.guide4 = LocalPlanarGuidance(w4, w4 // 2, cell=4)

        self.up2, self.norm2 = _upsample(w4, w2), _norm(w2)
        self.merge2 = _conv(w2 + c2 + 1, w2)
        self.guide2 = LocalPlanarGuidance(w2, w2 // 2, cell=2)

        self.up1 = _upsample(w2, w1)
        self.direct = _narrow(w1, w1 // 2, 1)
        self.merge1 = _conv(w1 + 4, w1)
        self.depth = nn.Conv2d(w1, 1, 3, padding=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """features [B, C_i, H / stride, W / stride], finest first. Returns depth [B, 1, H, W] m, float32."""
        skip2, skip4, skip8, skip16, deepest = features
        x = self.norm16(self.up16(F.relu(deepest)))  # not every encoder ends in an activation
        x = self.merge16(torch.cat([x, skip16], dim=1))

        joined = torch.cat([self.norm8(self.up8(x)), skip8], dim=1)
        x = self.aspp(self.merge8(joined), joined)
        depth8 = self.guide8(x)

        x = self.norm4(self.up4(x))
        x = self.merge4(torch.cat([x, skip4, depth8[..., ::4, ::4]], dim=1))
        depth4 = self.guide4(x)

        x = self.norm2(self.up2(x))
        x = self.merge2(torch.cat([x, skip2, depth4[..., ::2, ::2]], dim=1))
        depth2 = self.guide2(x)

        x = self.up1(x)
        depth1 = torch.sigmoid(self.direct(x))
        x = self.merge1(torch.cat([x, depth1, depth2, depth4, depth8], dim=1))
        return torch.sigmoid(self.depth(x).float()) * self.max_depth


class BTS(nn.Module):
    """Encoder and decoder."""

    def __init__(self, encoder: nn.Module, decoder: BTSDecoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, image: Tensor) -> Prediction:
        """image [B, 3, H, W], normalized, of any size; padded to a multiple of 32 by repeating the last row and column."""
        height, width = image.shape[-2:]
        whole = F.pad(image, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1]), mode="replicate")
        return Prediction(self.decoder(self.encoder(whole))[..., :height, :width])


def build_bts(config: RunConfig) -> BTS:
    """Build BTS. Raises UserError unless the encoder's levels have STRIDES."""
    encoder = build_encoder(config.student)
    levels = feature_info(encoder)
    strides = levels.reduction()
    if strides != STRIDES:
        raise UserError(f"student.encoder {config.student.encoder!r}: bts needs levels of strides {STRIDES}, got {strides}")
    decoder = BTSDecoder(levels.channels(), config.student.decoder_channels, config.data.max_depth)
    return BTS(encoder, decoder)


# -- the released checkpoint ---------------------------------------------------------------------------------------------------

# Released modules by ours, below `decoder` and `decode_head`, except for planes and branches.
_RELEASED = {
    **{f"up{stride}.1.0": f"upconv{n}.conv" for stride, n in ((16, 5), (8, 4), (4, 3), (2, 2), (1, 1))},
    **{f"norm{stride}": f"bn{n}" for stride, n in ((16, 5), (8, 4), (4, 3), (2, 2))},
    **{f"merge{stride}.0": f"conv{n}.0" for stride, n in ((16, 5), (4, 3), (2, 2), (1, 1))},
    "merge8.0.0": "conv4.0",
    "merge8.1": "bn4_2",
    "aspp.merge.0": "daspp_conv.0",
    "depth": "conv_depth",
}
_BRANCH = {"0": "first_bn", "2": "aconv_sequence.1", "3": "aconv_sequence.2", "5": "aconv_sequence.4"}


def bts_released_keys(network: BTS) -> ReleasedKeys:
    """The released keys with a ResNet, whose layers have the same names in timm. All of them are used."""
    modules = {f"decoder.{ours}": f"decode_head.{theirs}" for ours, theirs in _released_modules(network.decoder)}
    names = {}
    for key in network.state_dict():
        module, _, tensor = key.rpartition(".")
        names[key] = f"backbone.{key.removeprefix('encoder.')}" if key.startswith("encoder.") else f"{modules[module]}.{tensor}"
    return ReleasedKeys(names)


def _released_modules(decoder: BTSDecoder) -> Iterator[tuple[str, str]]:
    """Our modules and theirs."""
    yield from _RELEASED.items()
    for n, dilation in enumerate(DILATIONS):
        for ours, theirs in _BRANCH.items():
            yield f"aspp.branches.{n}.{ours}", f"daspp_{dilation}.atrous_conv.{theirs}"
    for cell in (8, 4, 2):
        plane = getattr(decoder, f"guide{cell}").plane
        yield from _released_narrow_layers(f"guide{cell}.plane", plane, f"reduc{cell}x{cell}.reduc", "plane_params")
    yield from _released_narrow_layers("direct", decoder.direct, "reduc1x1.reduc", "final.0")


def _released_narrow_layers(ours: str, layers: nn.Sequential, theirs: str, last: str) -> Iterator[tuple[str, str]]:
    """The released code names a layer after its widths, and the last one after its output."""
    for n, layer in enumerate(list(layers)[:-1]):
        conv = layer.get_submodule("0")
        assert isinstance(conv, nn.Conv2d)
        yield f"{ours}.{n}.0", f"{theirs}.inter_{conv.in_channels}_{conv.out_channels}.0"
    yield f"{ours}.{len(layers) - 1}", f"{theirs}.{last}"
