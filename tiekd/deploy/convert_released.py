"""Convert a checkpoint of the released code to a weights file of this project.

The network is recognized by the keys of the state dict, head and bins by the shapes, and the data set by the number of bins or
the training's config in the checkpoint.
"""

import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.config.specs import DATASETS, NETWORKS, STUDENTS, ReleasedCheckpoint
from tiekd.errors import UserError, unknown
from tiekd.models.checkpoint import pack_network
from tiekd.models.encoder import tensor_mismatches
from tiekd.models.registry import build_network, count_parameters
from tiekd.models.released_keys import ReleasedKeys
from tiekd.store.files import check_output_folder, write_atomically

CHECKPOINTS: dict[str, ReleasedCheckpoint] = {name: spec.released for name, spec in NETWORKS.items() if spec.released}
BINS = "decode_head.conv_out.0.weight"  # [K, C, 1, 1], in every head except BTS'
UNUSED_BINS = 256  # the default, left in regression heads
DPM_CLASS = "DenseDepthHead_DPM"
RELEASED_DATASETS = {name: spec.defaults for name, spec in DATASETS.items() if spec.released_map_names}

# mmcv stores the best score of a training as a NumPy scalar, whose module had another name before NumPy 2.
_SCALAR = cast(Callable[..., Any], np.float64().__reduce__()[0])
NUMPY_SCALARS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
]


def convert_checkpoint(path: Path, out: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Write the network of a released checkpoint to `out` as safetensors. Returns a summary as plain values.

    overrides: settings of its config by dotted path. Raises UserError, before anything is written, for a file that is not a
    checkpoint of a known network, for tensors that are missing, unknown or of another shape, and for an unknown data set.
    """
    source = f"checkpoint {path}"
    theirs, training = read_checkpoint(path)
    check_output_folder(out.parent, "--out")
    if out.is_dir() or (out.exists() and out.samefile(path)):
        raise UserError(f"--out {out}: is {'a folder' if out.is_dir() else 'the checkpoint itself'}; expected a file to write")
    document = recognize_network(theirs, training, source)
    if document["data"]["dataset"] is None and "data.dataset" not in overrides:
        raise UserError(
            f"{source}: does not state the data set of this {document['student']['name']}, whose max_depth scales its depth; "
            f"needs --dataset, one of: {', '.join(RELEASED_DATASETS)}"
        )
    config = build(with_values(document, overrides), source)
    if config.student.name not in CHECKPOINTS:
        raise UserError(f"{source}: {unknown('student.name', config.student.name, CHECKPOINTS)}")
    network = build_network(config)
    keys: ReleasedKeys = resolve_name(CHECKPOINTS[config.student.name].released_keys)(network)
    tensors = rename_tensors(theirs, keys, network.state_dict(), f"{source} as {config.student.name}, {config.student.head}")
    network.load_state_dict(tensors)
    write_atomically(out, pack_network(network, config))
    return {
        "network": config.student.name,
        "head": config.student.head,
        "n_bins": None if config.student.head == "regression" else config.bins.n_bins,
        "dataset": config.data.dataset,
        "tensors": len(tensors),
        "parameters": count_parameters(network),
        "unused": sorted(theirs.keys() & keys.unused),
        "out": str(out),
    }


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read the state dict of a file, and the text of the training's config, "" if there is none.

    The file is mmcv's or a bare state dict. Removes DataParallel's prefix from the keys.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file")
    content = _load(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"checkpoint {path}: has no state dict; expected tensors by name, alone or as 'state_dict'")
    meta = content.get("meta")
    training = meta.get("config") if isinstance(meta, Mapping) else None
    tensors = {str(key).removeprefix("module."): value for key, value in state.items()}
    return tensors, training if isinstance(training, str) else ""


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, before the error
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of any type: PyTorch tries to unpickle files of other formats
        foreign = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if foreign is None:
            raise UserError(f"checkpoint {path}: not a checkpoint that torch.save wrote ({type(error).__name__})") from None
        raise UserError(
            f"checkpoint {path}: has a pickled {foreign[1]}, which could run code and is not read; expected tensors and "
            "plain values: if you trust the file, save only its state dict"
        ) from None


def recognize_network(theirs: Mapping[str, Tensor], training: str, source: str) -> dict[str, Any]:
    """Recognize the network of a state dict. Returns a config document; its data.dataset is None if it is not known."""
    keys = theirs.keys()
    name = next((n for n, known in CHECKPOINTS.items() if keys >= set(known.has) and not keys & set(known.lacks)), None)
    if name is None:
        raise UserError(
            f"{source}: not a known network ({len(theirs)} tensors, first {next(iter(theirs))}); "
            f"valid: checkpoints of the released code of {', '.join(CHECKPOINTS)}"
        )
    shape = theirs[BINS].shape if BINS in theirs else ()
    n_bins = shape[0] if shape else None
    document: dict[str, Any] = {"data": {"dataset": _dataset(n_bins, training)}, "student": {"name": name}}
    if n_bins is not None:
        document["bins"] = {"n_bins": n_bins}
    if name in STUDENTS:
        regresses = n_bins in (None, UNUSED_BINS) and DPM_CLASS not in training
        document["student"]["head"] = "regression" if regresses else "dpm"
        document["loss"] = {"name": "si", "target": "ground_truth"}  # needs no teacher maps, which the file does not have
    return document


def _dataset(n_bins: int | None, training: str) -> str | None:
    """The data set of the only max_depth in the training's config, or else of the published number of bins."""
    depths = {float(depth) for depth in re.findall(r"\bmax_depth=(\d+\.?\d*)", training)}
    for name, defaults in RELEASED_DATASETS.items():
        if depths == {defaults["data"]["max_depth"]} or (not depths and n_bins == defaults["bins"]["n_bins"]):
            return name
    return None


def rename_tensors(
    theirs: Mapping[str, Tensor], keys: ReleasedKeys, ours: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Rename released tensors to our keys. Raises UserError that lists the mismatches of names and shapes."""
    expected = {name: ours[key] for key, name in keys.names.items()}
    if mismatches := tensor_mismatches(
        expected, {name: theirs[name] for name in theirs.keys() - (keys.unused - expected.keys())}
    ):
        raise UserError(f"{source}: {mismatches}")
    return {key: keys.layouts[key](theirs[name]) if key in keys.layouts else theirs[name] for key, name in keys.names.items()}
