"""What is kept of a training: the state to go on from, and the weights to use.

Neither is a pickle: states are read with `torch.load(weights_only=True)`, weights are safetensors with their settings inside.
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
    """Tensors, numbers and strings, nested in dicts and lists, as bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack_state(content: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def pack_network(student: nn.Module, config: RunConfig) -> bytes:
    """Weights with the run's config in the header, so that the file alone suffices."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in student.state_dict().items()}
    return save(tensors, metadata={"format": "pt", "tiekd": json.dumps(config.document())})


def load_network(path: str | Path) -> tuple[nn.Module, RunConfig]:
    """A student and the config it was trained with, from its safetensors file."""
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
    student = build_network(override(config, {"student.pretrained": False}))
    student.load_state_dict(tensors)
    return student, config
