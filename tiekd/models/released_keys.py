"""How the released students' checkpoints name what our students hold.

Their backbones are mmseg's, and their heads hold the decoder. Each head carries both kinds of output and two upsamplings,
whichever of them it uses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from tiekd.models.decoder import DenseDepthDecoder
from tiekd.models.student import DepthStudent


@dataclass(frozen=True)
class ReleasedKeys:
    """The way from a released state dict to ours. A key of theirs that is neither named nor unused is unknown.

    A layout puts the entries of one of their tensors into our order; the shape stays.
    """

    names: Mapping[str, str]  # our key: theirs
    unused: frozenset[str] = frozenset()  # theirs that the released model carries but never uses, or computes anew
    layouts: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)  # by our key


# Modules of a MobileNetV2's blocks: timm's name, mmseg's name.
FIRST_BLOCK = {"conv_dw": "0.conv", "bn1": "0.bn", "conv_pw": "1.conv", "bn2": "1.bn"}
LATER_BLOCKS = {"conv_pw": "0.conv", "bn1": "0.bn", "conv_dw": "1.conv", "bn2": "1.bn", "conv_pwl": "2.conv", "bn3": "2.bn"}

OUTPUTS = {"logits": "conv_out.0", "depth": "conv_depth"}
CARRIED = {*OUTPUTS.values(), "upsample_custom2.convA.conv", "upsample_custom2.convB.conv"}


def student_released_keys(network: DepthStudent) -> ReleasedKeys:
    """The keys of a student whose encoder is a MobileNetV2 or a ResNet."""
    parts = {
        "encoder": ("backbone", _encoder(network.encoder)),
        "decoder": ("decode_head", _decoder(network.decoder)),
        "head": ("decode_head", OUTPUTS),
    }
    names = {}
    for key in network.state_dict():
        part, _, rest = key.partition(".")
        module, _, tensor = rest.rpartition(".")
        prefix, modules = parts[part]
        names[key] = f"{prefix}.{modules[module]}.{tensor}"
    carried = {f"decode_head.{module}.{tensor}" for module in CARRIED for tensor in ("weight", "bias")}
    return ReleasedKeys(names, frozenset(carried - set(names.values())))


def _encoder(encoder: nn.Module) -> dict[str, str]:
    """Our modules and theirs. A ResNet's have the same names in timm and in mmseg."""
    modules = {name: name for name, _ in encoder.named_modules()}
    if hasattr(encoder, "conv_stem"):
        modules |= {"conv_stem": "conv1.conv", "bn1": "conv1.bn"}
        modules |= {
            f"blocks.{s}.{b}.{ours}": f"layer{s + 1}.{b}.conv.{theirs}"
            for s, stage in enumerate(encoder.blocks)
            for b in range(len(stage))
            for ours, theirs in (LATER_BLOCKS if s else FIRST_BLOCK).items()
        }
    return modules


def _decoder(decoder: DenseDepthDecoder) -> dict[str, str]:
    """Our modules and theirs."""
    pairs = {f"merges.{i}": f"conv_list.{i + 1}" for i in range(len(decoder.merges))}
    pairs |= {f"upsamples.{i}": f"upsample_custom{i + 1 if i else ''}" for i in range(len(decoder.upsamples))}
    modules = {"bottleneck": "conv_list.0.conv"}
    for ours, theirs in pairs.items():
        modules |= {f"{ours}.0": f"{theirs}.convA.conv", f"{ours}.2": f"{theirs}.convB.conv"}
    return modules
