"""DepthFormer (Li et al. 2022, https://arxiv.org/abs/2203.14211): a Swin transformer and a convolutional stem, joined by HAHI.

The stem is the first layer of a ResNet. A DenseDepth-style decoder predicts depth at half the image's size.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import timm
import torch
from timm.layers import PatchEmbed
from timm.models import is_model_in_modules
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, SwinTransformerStage
from torch import Tensor, nn
from torch.nn import functional as F

from tiekd.config import RunConfig, StudentConfig
from tiekd.errors import UserError
from tiekd.models.decoder import DenseDepthDecoder, resize
from tiekd.models.encoder import create_encoder
from tiekd.models.hahi import HAHI
from tiekd.models.prediction import Prediction
from tiekd.models.released_keys import ReleasedKeys

STEM = 64  # channels
_LEVELS = (0, 1, 2, 3)
DROP_PATH = 0.3  # of the deepest block


class SwinEncoder(nn.Module):
    """A stem at stride 2, and a Swin transformer's stages at strides 4, 8, 16, 32, each followed by a layer norm."""

    def __init__(self, swin: SwinTransformer):
        super().__init__()
        widths = [stage["num_chs"] for stage in swin.feature_info]
        self.channels = [STEM, *widths]
        self.stem = nn.Sequential(
            nn.Conv2d(3, STEM, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(STEM), nn.ReLU(inplace=True)
        )
        self.patch_embed, self.stages = swin.patch_embed, swin.layers
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)

    def forward(self, image: Tensor) -> list[Tensor]:
        """image [B, 3, H, W] of any size. Returns [B, C_i, H_i, W_i], finest first; H_i and W_i are rounded up."""
        features = [self.stem(image)]
        x = self.patch_embed(image)
        for stage, norm in zip(self.stages, self.norms, strict=True):
            assert isinstance(stage, SwinTransformerStage)
            x = stage.downsample(x)
            for block in stage.blocks:
                assert isinstance(block, SwinTransformerBlock)
                x = run_block(block, x)
            features.append(norm(x).permute(0, 3, 1, 2).contiguous())
        return features


def run_block(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """Run one of timm's blocks on x [B, H, W, C], padded to whole windows before the shift.

    Swin's code for dense prediction does the same. timm pads after the shift, so that opposite borders of the map attend to
    each other.
    """
    _, height, width, _ = x.shape
    rows, columns = (-n % window for n, window in zip((height, width), block.window_size, strict=True))
    padded = F.pad(block.norm1(x), (0, 0, 0, columns, 0, rows))
    x = x + block.drop_path1(block._attn(padded)[:, :height, :width])
    return x + block.drop_path2(block.mlp(block.norm2(x)))


class DepthFormer(nn.Module):
    """Encoder, HAHI, decoder, and a convolution that outputs depth."""

    def __init__(self, encoder: SwinEncoder, widths: Sequence[int], depth_range: tuple[float, float], embedding: int = 512):
        super().__init__()
        self.min_depth, self.max_depth = depth_range
        self.encoder = encoder
        self.neck = HAHI(encoder.channels, embedding)
        strides = [1, 2, 4, 8, 16]  # relative to the finest feature, at whose size the decoder outputs
        self.decoder = DenseDepthDecoder(encoder.channels, strides, tuple(widths), activation=nn.LeakyReLU)
        self.depth = nn.Conv2d(self.decoder.channels_out, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Prediction:
        """image [B, 3, H, W], normalized, of any size. In evaluation mode, depth is clamped to max_depth."""
        features = self.neck(self.encoder(image))
        maps = self.decoder(features, features[0].shape[-2:])
        depth = torch.relu(self.depth(maps).float()) + self.min_depth
        if not self.training:
            depth = depth.clamp(max=self.max_depth)
        return Prediction(resize(depth, image.shape[-2:]))


def build_depthformer(config: RunConfig) -> DepthFormer:
    """Build DepthFormer with the config's Swin transformer (version 1). Raises UserError for other encoders and levels."""
    encoder = SwinEncoder(_swin(config.student))
    return DepthFormer(encoder, config.student.decoder_channels, config.data.depth_range)


def _swin(config: StudentConfig) -> SwinTransformer:
    name = config.encoder
    if name and timm.is_model(name) and not is_model_in_modules(name, {"swin_transformer"}):
        valid = ", ".join(timm.list_models(module="swin_transformer"))
        raise UserError(f"student.encoder: depthformer needs a Swin transformer, got {config.encoder!r}; valid: {valid}")
    if config.levels != _LEVELS or config.output_stride != 32:
        raise UserError(
            f"student.levels, student.output_stride: depthformer has the levels {list(_LEVELS)} and stride 32, "
            f"got {list(config.levels)} and {config.output_stride}"
        )
    network = create_encoder(
        config,
        num_classes=0,
        drop_path_rate=DROP_PATH,
        strict_img_size=False,
        always_partition=True,  # whole windows even if the map is smaller than one
        embed_layer=partial(PatchEmbed, dynamic_img_pad=True),
    )
    assert isinstance(network, SwinTransformer)
    return network


# -- the released checkpoint ---------------------------------------------------------------------------------------------------

# Released modules by ours, in a block of Swin, an attention of HAHI, ConvNormReLU and DoubleConv.
_BLOCK = {
    "norm1": "norm1",
    "attn": "attn.w_msa",
    "attn.qkv": "attn.w_msa.qkv",
    "attn.proj": "attn.w_msa.proj",
    "norm2": "norm2",
    "mlp.fc1": "ffn.layers.0.0",
    "mlp.fc2": "ffn.layers.1",
}
_ATTENTION = {"offsets": "sampling_offsets", "weights": "attention_weights", "value": "value_proj", "out": "output_proj"}
_CONV_NORM = {"0": "conv", "1": "bn"}
_DOUBLE_CONV = {"0": "convA.conv", "2": "convB.conv"}


def depthformer_released_keys(network: DepthFormer) -> ReleasedKeys:
    """The released keys. Unused are a classifier of bins, and the windows' indices, which are computed."""
    modules = dict(_released_modules(network))
    names = {}
    for key in network.state_dict():
        module, _, tensor = key.rpartition(".")
        names[key] = f"{modules[module]}.{tensor}"
    classifier = {f"decode_head.conv_out.0.{tensor}" for tensor in ("weight", "bias")}
    indices = {f"{theirs}.relative_position_index" for theirs in modules.values() if theirs.endswith(".attn.w_msa")}
    layouts = {key: _reorder_patches for key in names if ".downsample." in key}
    layouts["neck.fusions.0.0.weight"] = partial(torch.roll, shifts=STEM, dims=1)  # theirs has the stem's channels last
    return ReleasedKeys(names, frozenset(classifier | indices), layouts)


def _reorder_patches(tensor: Tensor) -> Tensor:
    """Reorder merged patches along the last axis from (channel, row, column) to timm's (column, row, channel)."""
    return tensor.unflatten(-1, (-1, 2, 2)).transpose(-3, -1).flatten(-3)


def _released_modules(network: DepthFormer) -> Iterator[tuple[str, str]]:
    """Our modules with tensors, and theirs."""
    yield "encoder.stem.0", "backbone.conv1"
    yield "encoder.stem.1", "backbone.bn1"
    yield "encoder.patch_embed.proj", "backbone.patch_embed.projection"
    yield "encoder.patch_embed.norm", "backbone.patch_embed.norm"
    for i, stage in enumerate(network.encoder.stages):
        for j in range(len(list(stage.get_submodule("blocks").children()))):
            yield from _submodules(f"encoder.stages.{i}.blocks.{j}", f"backbone.stages.{i}.blocks.{j}", _BLOCK)
        if i:  # timm merges patches before a stage, they do after it
            merging = {part: part for part in ("norm", "reduction")}
            yield from _submodules(f"encoder.stages.{i}.downsample", f"backbone.stages.{i - 1}.downsample", merging)
        yield f"encoder.norms.{i}", f"backbone.norm{i}"
    for i in range(len(network.encoder.channels)):
        branch, index = ("trans", i - 1) if i else ("conv", 0)
        yield from _submodules(f"neck.laterals.{i}", f"neck.lateral_convs.{i}", _CONV_NORM)
        yield from _submodules(f"neck.projections.{i}", f"neck.{branch}_proj.{index}", _CONV_NORM)
        yield from _submodules(f"neck.fusions.{i}", f"neck.{branch}_fusion.{index}", _CONV_NORM)
    yield from _submodules("neck.self_attention", "neck.self_attn", _ATTENTION)
    yield from _submodules("neck.cross_attention", "neck.multi_att", _ATTENTION)
    yield "neck.reference", "neck.reference_points"
    yield "neck", "neck"
    yield "decoder.bottleneck", "decode_head.conv_list.0.conv"
    for i in range(len(network.decoder.merges)):
        yield from _submodules(f"decoder.merges.{i}", f"decode_head.conv_list.{i + 1}", _DOUBLE_CONV)
    yield "depth", "decode_head.conv_depth"


def _submodules(ours: str, theirs: str, parts: dict[str, str]) -> Iterator[tuple[str, str]]:
    for part, released in parts.items():
        yield f"{ours}.{part}", f"{theirs}.{released}"
