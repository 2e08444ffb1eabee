"""Encoders: any timm model that gives features at several strides."""

import difflib
from typing import Any

import timm
from torch import nn

from tiekd.config import StudentConfig
from tiekd.errors import UserError


def _check_name(config: StudentConfig) -> None:
    if not timm.is_model(config.encoder):
        models = timm.list_models()
        near = difflib.get_close_matches(config.encoder, models, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"student.encoder: unknown {config.encoder!r}; {hint}valid: the {len(models)} of timm.list_models()")


def build_encoder(config: StudentConfig) -> nn.Module:
    """A timm `features_only` model whose levels are `config.levels`, finest first.

    Raises UserError for a name timm does not know, levels it does not have, or weights that cannot be fetched.
    """
    return create_encoder(config, features_only=True, out_indices=config.levels)


def create_encoder(config: StudentConfig, **options: Any) -> nn.Module:
    """The timm model of the config's name, stride and weights, with further options. Raises UserError like `build_encoder`."""
    _check_name(config)
    name = config.encoder
    if config.output_stride != 32:
        options["output_stride"] = config.output_stride
    try:
        encoder = timm.create_model(name, pretrained=config.pretrained, **options)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError, OSError) as error:
        if config.pretrained and _offline(error):
            raise UserError(
                f"student.pretrained: the weights of {name} could not be fetched ({type(error).__name__}); "
                "connect to the network, fill the Hugging Face cache, or set student.pretrained=false"
            ) from None
        raise UserError(
            f"student.encoder {name!r} does not work with levels {list(config.levels)} and output_stride "
            f"{config.output_stride}: {type(error).__name__}: {' '.join(str(error).split()) or 'refused by timm'}"
        ) from None
    if name.startswith("mobilenetv2"):
        _dilate_as_published(encoder)
    return encoder


def _dilate_as_published(encoder: nn.Module) -> None:
    """Dilate the first block of a MobileNetV2's stage and no other, as mmseg does; timm dilates the others.

    In place; nothing changes where no stage is dilated.
    """
    for stage in encoder.blocks:
        dilation = stage[-1].conv_dw.dilation
        for position, block in enumerate(stage):
            # The padding that keeps the size under a 3x3 kernel is its dilation.
            block.conv_dw.dilation = block.conv_dw.padding = (1, 1) if position else dilation


def _offline(error: BaseException) -> bool:
    names = {type(e).__name__ for e in (error, error.__cause__, error.__context__) if e is not None}
    return bool(names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "URLError"}) or isinstance(
        error, OSError
    )
