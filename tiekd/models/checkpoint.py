"""A network's weights in a safetensors file, with the run's config in its header."""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tiekd.config import RunConfig, build, override
from tiekd.errors import DivergedError, UserError
from tiekd.models.encoder import listed, tensor_mismatches
from tiekd.models.registry import build_network
from tiekd.store.find_weights import check_weights_file

PYTORCH_STARTS = (b"PK\x03\x04", b"\x80")  # a zip file, and the pickle of old releases


def pack_network(network: nn.Module, config: RunConfig) -> bytes:
    """Serialize weights with the run's config in the header, so that the file is self-contained."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return save(tensors, metadata={"format": "pt", "tiekd": json.dumps(config.document())})


def load_network(path: str | Path) -> tuple[nn.Module, RunConfig]:
    """Load a network and its run's config from a safetensors file of this project.

    Raises UserError for any other file, and for tensors that are not those of the network or are not finite.
    """
    path = Path(path)
    check_weights_file(path)
    tensors, metadata = _read_tensors(path)
    if "tiekd" not in metadata:
        raise UserError(f"weights {path}: has no tiekd header; expected a student.safetensors of a run")
    try:
        document = json.loads(metadata["tiekd"])
    except (ValueError, RecursionError) as error:
        raise UserError(f"weights {path}: the tiekd header is not valid JSON ({error})") from None
    config = build(document, source=f"weights {path}")
    network = build_network(override(config, {"student.pretrained": False}))
    if mismatches := tensor_mismatches(network.state_dict(), tensors):
        raise UserError(f"weights {path}: not those of the network in the header: {mismatches}")
    if broken := [name for name, tensor in tensors.items() if not tensor.float().isfinite().all()]:
        raise DivergedError(f"weights {path}: not finite in {listed(broken)}")
    network.load_state_dict(tensors)
    return network, config


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - not a dict
    except Exception as error:  # SafetensorError, OSError, and what PyTorch makes of damaged content
        message = f"weights {path}: not a safetensors file ({' '.join(str(error).split())})"
    with path.open("rb") as stream:
        if stream.read(4).startswith(PYTORCH_STARTS):
            message = (
                f"weights {path}: a checkpoint of PyTorch; convert one of the released code with `tiekd convert {path} "
                f"--out {path.with_suffix('.safetensors').name}`"
            )
    raise UserError(message)
