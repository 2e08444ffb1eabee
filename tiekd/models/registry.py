"""Build the network of a run: a student, or a teacher's architecture."""

from pkgutil import resolve_name

import torch
from torch import nn

from tiekd.bins import DepthBins
from tiekd.config import BinsConfig, DataConfig, RunConfig, StudentConfig, override
from tiekd.config.specs import NETWORKS
from tiekd.data.image_io import format_size
from tiekd.errors import UserError
from tiekd.models.decoder import DenseDepthDecoder, FastDepthDecoder
from tiekd.models.dpm_head import DPMHead
from tiekd.models.encoder import build_encoder, check_pretrained_weights, feature_info
from tiekd.models.student import DepthStudent, RegressionHead

_checked: set[tuple[StudentConfig, BinsConfig, DataConfig]] = set()  # networks that this process has built


def build_network(config: RunConfig) -> nn.Module:
    """Build the network of a run on the CPU, initialized from PyTorch's global generator.

    It maps normalized images [B, 3, H, W] to a `tiekd.models.prediction.Prediction` with depth of the same size. Pretrained
    layers are in its submodule `encoder`.
    """
    return resolve_name(NETWORKS[config.student.name].build)(config)


def build_depth_student(config: RunConfig) -> DepthStudent:
    """Build the student of a run from its encoder, decoder and head."""
    student = config.student
    encoder = build_encoder(student)
    levels = feature_info(encoder)
    decoder: DenseDepthDecoder | FastDepthDecoder
    if student.decoder == "fastdepth":
        decoder = FastDepthDecoder(levels.channels(), student.decoder_channels)
    else:
        decoder = DenseDepthDecoder(levels.channels(), levels.reduction(), student.decoder_channels)
    if student.head == "dpm":
        bins = DepthBins(config.bins.n_bins, *config.data.depth_range, config.bins.spacing)
        return DepthStudent(encoder, decoder, DPMHead(decoder.channels_out, bins, config.execution.kernel))
    return DepthStudent(encoder, decoder, RegressionHead(decoder.channels_out, config.data.max_depth))


def check_network(config: RunConfig) -> None:
    """Raise UserError unless the run's network can be built and its weights are available. Needs no memory, fetches nothing."""
    settings = (config.student, config.bins, config.data)
    if settings not in _checked:
        with torch.device("meta"):
            build_network(override(config, {"student.pretrained": False}))
        if config.student.pretrained:
            check_pretrained_weights(config.student)
        _checked.add(settings)


def check_batch_of_one(config: RunConfig) -> None:
    """Raise UserError if a batch norm of the network gets one value per channel from one training frame. Needs no memory."""
    with torch.device("meta"):
        network = build_network(override(config, {"student.pretrained": False})).train()
        try:
            network(torch.zeros(1, 3, *config.data.train_crop))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                f"optim.batch_size: {config.student.encoder} cannot be trained on one frame at a time, because a batch norm "
                f"gets one value from data.train_crop {format_size(config.data.train_crop)}; needed 2 frames or more"
            ) from None
        except RuntimeError:  # an operation that the meta device lacks, such as autocast; the norms before it have been checked
            pass


def count_parameters(network: nn.Module) -> int:
    """Number of parameters, trainable or not."""
    return sum(parameter.numel() for parameter in network.parameters())
