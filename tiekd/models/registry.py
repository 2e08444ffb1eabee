"""The network that a run trains: a student, or a teacher's architecture."""

from pkgutil import resolve_name

import torch
from torch import nn

from tiekd.config import RunConfig, override
from tiekd.config.specs import NETWORKS
from tiekd.models.encoder import check_pretrained_weights

_buildable: set[tuple] = set()  # the settings of networks that this process has built before


def build_network(config: RunConfig) -> nn.Module:
    """The network of a run, on the CPU, initialised from PyTorch's global generator.

    It maps normalised images [B, 3, H, W] to a `tiekd.models.Prediction` whose depth has the images' size, and keeps what was
    pretrained under `encoder`.
    """
    return resolve_name(NETWORKS[config.student.name].build)(config)


def check_network(config: RunConfig) -> None:
    """Raise UserError unless the run's network can be built, and its weights be had; takes no memory and fetches nothing."""
    reads = (config.student, config.bins, config.data)
    if reads not in _buildable:
        with torch.device("meta"):
            build_network(override(config, {"student.pretrained": False}))
        if config.student.pretrained:
            check_pretrained_weights(config.student)
        _buildable.add(reads)


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
