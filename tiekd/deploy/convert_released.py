"""A checkpoint of the released code as weights of ours.

Which network it is, its keys tell; its head and bins, the shapes; its data set, the number of bins or the training's config
beside the weights.
"""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.config.specs import DATASETS, NETWORKS, STUDENTS, ReleasedCheckpoint
from tiekd.errors import UserError, unknown
from tiekd.models.checkpoint import pack_network
from tiekd.models.registry import build_network, count_parameters
from tiekd.models.released_keys import ReleasedKeys
from tiekd.store.files import check_output_folder, write_atomically

CHECKPOINTS: dict[str, ReleasedCheckpoint] = {name: spec.released for name, spec in NETWORKS.items() if spec.released}
BINS = "decode_head.conv_out.0.weight"  # [K, C, 1, 1], in every head but BTS'
UNUSED_BINS = 256  # its default, left in heads that regress
DPM_CLASS = "DenseDepthHead_DPM"
RELEASED_DATASETS = {name: spec.defaults for name, spec in DATASETS.items() if spec.released_map_names}

# mmcv notes the best score of a training as a number of NumPy's, whose module had another name before NumPy 2.
_SCALAR = np.float64().__reduce__()[0]
NUMPY_SCALARS = [_SCALAR, (_SCALAR, "numpy.core.multiarray.scalar"), np.dtype, np.dtypes.Float32DType, np.dtypes.Float64DType]


def convert_checkpoint(path: Path, out: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Write the network of a released checkpoint to `out` as our safetensors; returns what it was, as plain values.

    Raises UserError, before anything is written, for a file that is no checkpoint or of no known network, for tensors that are
    missing, unknown or of another shape, and where `overrides` lack a data set that the file does not tell.
    """
    source = f"checkpoint {path}"
    theirs, training = read_checkpoint(path)
    check_output_folder(out.parent, "--out")
    if out.is_dir() or (out.exists() and out.samefile(path)):
        raise UserError(f"--out {out}: is {'a folder' if out.is_dir() else 'the checkpoint itself'}; expected a file to write")
    document = recognize_network(theirs, training, source)
    if document["data"]["dataset"] is None and "data.dataset" not in overrides:
        raise UserError(
            f"{source}: does not tell the data set of this {document['student']['name']}, whose max_depth scales its depth; "
            f"needed --dataset, one of: {', '.join(RELEASED_DATASETS)}"
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
    """The state dict of a file of mmcv's or of a bare state dict, and the text of the training's config, "" without one.

    The prefix that DataParallel puts before each key is taken off.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file")
    content = _load(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"checkpoint {path}: holds no state dict; expected tensors by name, alone or as 'state_dict'")
    meta = content.get("meta")
    training = meta.get("config") if isinstance(meta, Mapping) else None
    tensors = {str(key).removeprefix("module."): value for key, value in state.items()}
    return tensors, training if isinstance(training, str) else ""


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other files' pickle protocols, ahead of the error
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind: PyTorch takes a file of another format for a pickle and stumbles anywhere in it
        foreign = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if foreign is None:
            raise UserError(f"checkpoint {path}: not a checkpoint that torch.save wrote ({type(error).__name__})") from None
        raise UserError(
            f"checkpoint {path}: holds a pickled {foreign[1]}, which could run code and is not read; expected tensors and "
            "plain values: save its state dict alone, where the file is trusted"
        ) from None


def recognize_network(theirs: Mapping[str, Tensor], training: str, source: str) -> dict[str, Any]:
    """The config document of the network whose state dict this is; its data.dataset is None where nothing tells it."""
    keys = theirs.keys()
    name = next((n for n, known in CHECKPOINTS.items() if keys >= set(known.has) and not keys & set(known.lacks)), None)
    if name is None:
        raise UserError(
            f"{source}: of no known network ({len(theirs)} tensors, first {next(iter(theirs))}); "
            f"known in the released code: {', '.join(CHECKPOINTS)}"
        )
    shape = theirs[BINS].shape if BINS in theirs else ()
    n_bins = shape[0] if shape else None
    document: dict[str, Any] = {"data": {"dataset": _dataset(n_bins, training)}, "student": {"name": name}}
    if n_bins is not None:
        document["bins"] = {"n_bins": n_bins}
    if name in STUDENTS:
        regresses = n_bins in (None, UNUSED_BINS) and DPM_CLASS not in training
        document["student"]["head"] = "regression" if regresses else "dpm"
        document["loss"] = {"name": "si", "target": "ground_truth"}  # needs no teacher, whose maps are not in the file
    return document


def _dataset(n_bins: int | None, training: str) -> str | None:
    """By the one max_depth that the training's config states, else by the published number of bins."""
    depths = {float(depth) for depth in re.findall(r"\bmax_depth=(\d+\.?\d*)", training)}
    for name, defaults in RELEASED_DATASETS.items():
        if depths == {defaults["data"]["max_depth"]} or (not depths and n_bins == defaults["bins"]["n_bins"]):
            return name
    return None


def rename_tensors(
    theirs: Mapping[str, Tensor], keys: ReleasedKeys, ours: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Their tensors by our names, with the shapes of `ours`. Raises UserError that lists all that does not fit."""
    named = set(keys.names.values())
    pairs = [(key, name) for key, name in keys.names.items() if name in theirs]
    faults = {
        "missing": sorted(named - theirs.keys()),
        "unknown": sorted(theirs.keys() - named - keys.unused),
        "of another shape": [
            f"{name} {list(theirs[name].shape)} instead of {list(ours[key].shape)}"
            for key, name in pairs
            if theirs[name].shape != ours[key].shape
        ],
    }
    if any(faults.values()):
        told = "; ".join(f"{fault} ({len(found)}): {', '.join(found)}" for fault, found in faults.items() if found)
        raise UserError(f"{source}: {told}")
    return {key: keys.layouts[key](theirs[name]) if key in keys.layouts else theirs[name] for key, name in pairs}
