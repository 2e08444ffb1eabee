"""The names of tensors in the released students' checkpoints.

Their backbones are mmseg's, and the decoder is part of their heads. Every head has the layers of both kinds of output and two
upsamplings, whether it uses them or not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from tiekd.errors import UserError
from tiekd.models.decoder import DenseDepthDecoder
from tiekd.models.student import DepthStudent


@dataclass(frozen=True)
class ReleasedKeys:
    """How a released state dict maps to ours. A released key that is neither in `names` nor `unused` is unknown."""

    names: Mapping[str, str]  # released key by our key
    unused: frozenset[str] = frozenset()  # released keys that the released model never uses or computes itself
    layouts: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)  # permutation of entries, by our key


# Modules of a MobileNetV2's blocks: mmseg's name by timm's.
FIRST_BLOCK = {"conv_dw": "0.conv", "bn1": "0.bn", "conv_pw": "1.conv", "bn2": "1.bn"}
LATER_BLOCKS = {"conv_pw": "0.conv", "bn1": "0.bn", "conv_dw": "1.conv", "bn2": "1.bn", "conv_pwl": "2.conv", "bn3": "2.bn"}

OUTPUTS = {"logits": "conv_out.0", "depth": "conv_depth"}
ALWAYS_PRESENT = {*OUTPUTS.values(), "upsample_custom2.convA.conv", "upsample_custom2.convB.conv"}


def student_released_keys(network: DepthStudent) -> ReleasedKeys:
    """The released keys of a student whose encoder is a MobileNetV2 or a ResNet."""
    if not isinstance(network.decoder, DenseDepthDecoder):
        raise UserError("student.decoder: the released students have 'densedepth', got 'fastdepth'")
    parts = {
        "encoder": ("backbone", _encoder_modules(network.encoder)),
        "decoder": ("decode_head", _decoder_modules(network.decoder)),
        "head": ("decode_head", OUTPUTS),
    }
    names = {}
    for key in network.state_dict():
        part, _, rest = key.partition(".")
        module, _, tensor = rest.rpartition(".")
        prefix, modules = parts[part]
        names[key] = f"{prefix}.{modules[module]}.{tensor}"
    present = {f"decode_head.{module}.{tensor}" for module in ALWAYS_PRESENT for tensor in ("weight", "bias")}
    return ReleasedKeys(names, frozenset(present - set(names.values())))


def _encoder_modules(encoder: nn.Module) -> dict[str, str]:
    """mmseg's modules by timm's. Those of a ResNet have the same names."""
    modules = {name: name for name, _ in encoder.named_modules()}
    if hasattr(encoder, "conv_stem"):
        modules |= {"conv_stem": "conv1.conv", "bn1": "conv1.bn"}
        modules |= {
            f"blocks.{s}.{b}.{ours}": f"layer{s + 1}.{b}.conv.{theirs}"
            for s, stage in enumerate(encoder.get_submodule("blocks").children())
            for b in range(len(list(stage.children())))
            for ours, theirs in (LATER_BLOCKS if s else FIRST_BLOCK).items()
        }
    return modules


def _decoder_modules(decoder: DenseDepthDecoder) -> dict[str, str]:
    """Released modules by ours."""
    pairs = {f"merges.{i}": f"conv_list.{i + 1}" for i in range(len(decoder.merges))}
    pairs |= {f"upsamples.{i}": f"upsample_custom{i + 1 if i else ''}" for i in range(len(decoder.upsamples))}
    modules = {"bottleneck": "conv_list.0.conv"}
    for ours, theirs in pairs.items():
        modules |= {f"{ours}.0": f"{theirs}.convA.conv", f"{ours}.2": f"{theirs}.convB.conv"}
    return modules
