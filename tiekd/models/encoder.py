"""Encoders: any timm model that returns features at several strides."""

import difflib
import logging
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import timm
from huggingface_hub import HfApi, try_to_load_from_cache
from timm.models import FeatureInfo
from torch import Tensor, nn

from tiekd.config import StudentConfig
from tiekd.errors import UserError, error_line, shorten

HUB_TIMEOUT_S = 10.0
MAX_LISTED = 3  # names in a message


def build_encoder(config: StudentConfig) -> nn.Module:
    """Build a timm `features_only` model whose levels are `config.levels`, finest first.

    Raises UserError for an unknown name, unsupported levels, or weights that cannot be fetched.
    """
    return create_encoder(config, features_only=True, out_indices=config.levels)


def feature_info(encoder: nn.Module) -> FeatureInfo:
    """Channels and strides of the levels of an encoder of `build_encoder`."""
    info = encoder.feature_info
    assert isinstance(info, FeatureInfo)
    return info


def create_encoder(config: StudentConfig, **options: Any) -> nn.Module:
    """Build the timm model of a config with further options. Raises UserError like `build_encoder`."""
    name = _known_name(config)
    if config.output_stride != 32:
        options["output_stride"] = config.output_stride
    if isinstance(config.pretrained, str):
        check_encoder_file(config)
        options["pretrained_cfg_overlay"] = {"file": config.pretrained}
    # timm warns of tensors that only the classifier has.
    logging.getLogger("timm.models._builder").setLevel(logging.ERROR)
    try:
        encoder = timm.create_model(name, pretrained=bool(config.pretrained), **options)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError, OSError) as error:
        if config.pretrained and _is_connection_error(error):
            raise _weights_unreachable(name, error) from None
        raise UserError(
            f"student.encoder {name!r} does not work with levels {list(config.levels)} and output_stride "
            f"{config.output_stride}: {type(error).__name__}: {' '.join(str(error).split()) or 'refused by timm'}"
        ) from None
    if name.startswith("mobilenetv2"):
        _dilate_as_released(encoder)
    return encoder


def check_encoder_file(config: StudentConfig) -> None:
    """Raise UserError unless the file of `student.pretrained` has every tensor of the encoder, in its shape.

    It may have more, such as those of a classifier. No code is run: a pickle of anything but tensors is refused.
    """
    name, path = _known_name(config), str(config.pretrained)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, before the error
            found = timm.models.load_state_dict(path, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"student.pretrained {path}: no such file") from None
    except Exception as error:  # PyTorch and safetensors raise errors of many types
        raise UserError(f"student.pretrained {path}: not a file of weights ({shorten(error_line(error))})") from None
    network = timm.create_model(name, pretrained=False, num_classes=0)
    adapt = getattr(sys.modules[timm.model_entrypoint(name).__module__], "checkpoint_filter_fn", None)
    try:
        found = adapt(found, network) if adapt else found  # names of tensors that timm has changed since
    except Exception as error:  # of a file of something else
        raise UserError(f"student.pretrained {path}: not weights of {name} ({shorten(error_line(error))})") from None
    wanted = network.state_dict()
    if mismatches := tensor_mismatches(wanted, {key: found[key] for key in wanted if key in found}):
        unknown = sorted(found.keys() - wanted.keys())[:MAX_LISTED]
        hint = f"; the file has {', '.join(unknown)}" if unknown else ""
        raise UserError(f"student.pretrained {path}: not weights of {name}: {mismatches}{hint}")


def tensor_mismatches(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """List the tensors that are missing, unknown or of another shape, in one line; empty if there are none."""
    kinds = {
        "missing": sorted(expected.keys() - found.keys()),
        "unknown": sorted(found.keys() - expected.keys()),
        "of another shape": [
            f"{name} {list(found[name].shape)} instead of {list(tensor.shape)}"
            for name, tensor in expected.items()
            if name in found and found[name].shape != tensor.shape
        ],
    }
    return "; ".join(f"{kind} ({len(names)}): {listed(names)}" for kind, names in kinds.items() if names)


def listed(names: list[str]) -> str:
    return ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")


def check_pretrained_weights(config: StudentConfig) -> None:
    """Raise UserError unless pretrained weights fit (a file), are in the Hugging Face cache, or the hub responds.

    Downloads nothing.
    """
    if isinstance(config.pretrained, str):
        return check_encoder_file(config)
    encoder = _known_name(config)
    source = timm.get_pretrained_cfg(encoder)
    if source is None or not source.has_weights:
        raise UserError(f"student.pretrained: timm has no weights for {encoder}; set student.pretrained=false")
    if source.hf_hub_id is None:
        return  # at another URL, which is not checked
    name, _, revision = source.hf_hub_id.partition("@")
    files = [source.hf_hub_filename] if source.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    if not any(isinstance(try_to_load_from_cache(name, file, revision=revision or None), str) for file in files):
        try:
            HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
        except Exception as error:  # its type depends on the HTTP client of this version of huggingface_hub
            raise _weights_unreachable(encoder, error) from None


def _known_name(config: StudentConfig) -> str:
    """The name of a config's timm model. Raises UserError if timm does not have it."""
    name = config.encoder
    assert name is not None  # as the config checks
    if not timm.is_model(name):
        models = timm.list_models()
        near = difflib.get_close_matches(name, models, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"student.encoder: unknown {name!r}; {hint}valid: the {len(models)} of timm.list_models()")
    return name


def _weights_unreachable(encoder: str, error: Exception) -> UserError:
    return UserError(
        f"student.pretrained: the weights of {encoder} could not be fetched ({type(error).__name__}); "
        "connect to the network, fill the Hugging Face cache, or set student.pretrained=false"
    )


def _is_connection_error(error: BaseException) -> bool:
    names = {type(e).__name__ for e in (error, error.__cause__, error.__context__) if e is not None}
    return bool(names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "URLError"}) or isinstance(
        error, OSError
    )


def _dilate_as_released(encoder: nn.Module) -> None:
    """Dilate only the first block of a MobileNetV2's stage, as mmseg does; timm dilates the other blocks.

    In place; a stage without dilation is unchanged.
    """
    for stage in encoder.get_submodule("blocks").children():
        layers = [block.get_submodule("conv_dw") for block in stage.children()]
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        dilation = convolutions[-1].dilation
        for position, convolution in enumerate(convolutions):
            # With a 3x3 kernel, a padding equal to the dilation keeps the size.
            convolution.dilation = convolution.padding = (1, 1) if position else dilation
