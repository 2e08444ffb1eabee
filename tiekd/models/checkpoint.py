"""Serialize the state of a training, to resume from, and a network's weights, to use.

Neither is a pickle: states are read with `torch.load(weights_only=True)`, weights are safetensors with the run's config in the
header.
"""

import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from tiekd.config import RunConfig, build, override
from tiekd.errors import UserError
from tiekd.models.registry import build_network
from tiekd.store.find_weights import check_weights_file


def pack_state(state: dict[str, Any]) -> bytes:
    """Serialize tensors, numbers and strings, nested in dicts and lists."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack_state(content: bytes) -> dict[str, Any]:
    """Inverse of `pack_state`, on the CPU."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def pack_network(network: nn.Module, config: RunConfig) -> bytes:
    """Serialize weights with the run's config in the header, so that the file is self-contained."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return save(tensors, metadata={"format": "pt", "tiekd": json.dumps(config.document())})


def load_network(path: str | Path) -> tuple[nn.Module, RunConfig]:
    """Load a network and its run's config from a safetensors file of this project. Raises UserError if it is not one."""
    path = Path(path)
    check_weights_file(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise UserError(f"weights {path}: not a safetensors file ({error})") from None
    if "tiekd" not in metadata:
        raise UserError(f"weights {path}: has no tiekd header; expected a student.safetensors of a run")
    config = build(json.loads(metadata["tiekd"]), source=str(path))
    network = build_network(override(config, {"student.pretrained": False}))
    network.load_state_dict(tensors)
    return network, config
