"""Export the depth maps of a teacher: predicted by a network or another model, or imported from another program's maps."""

import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from tiekd.config import RunConfig, override
from tiekd.data import Frame, FrameSource
from tiekd.data.depth_range import check_reach
from tiekd.data.inputs import made_maps_id, maps_folder, open_splits, run_id_of
from tiekd.data.progress import track
from tiekd.data.teacher_maps import MAPS_FORMAT, MapWriter, TeacherMaps
from tiekd.data.teacher_maps.blocks import MapBlocks
from tiekd.data.teacher_maps.external import ExternalMaps
from tiekd.data.teacher_maps.released_layout import ReleasedWriter, released_map_names
from tiekd.data.transforms import normalize_image
from tiekd.distill.runtime import run_device
from tiekd.errors import UserError, unknown
from tiekd.inference.predict import check_finite, predict
from tiekd.models.checkpoint import load_network
from tiekd.store.files import check_output_folder, safe_name
from tiekd.store.find_weights import fetch_weights
from tiekd.store.run_store import RunStore

LOG = logging.getLogger(__name__)
MAP_LAYOUTS = ("tiekd", "released")
Frames = dict[str, tuple[FrameSource, int]]  # source and index by key; a frame of both splits occurs once
DepthOf = Callable[[str, Frame], np.ndarray]  # a frame's key and the frame -> float32 [H, W] m


class TeacherModel(Protocol):
    """A model that predicts depth from an image."""

    @property
    def max_depth(self) -> float:
        """The depth at which its predictions end, m."""
        ...

    @property
    def made_by(self) -> dict[str, Any]:
        """Identifies the model in the manifest of its maps."""
        ...

    def depth(self, image: np.ndarray) -> np.ndarray:
        """image uint8 [H, W, 3] RGB. Returns float32 [H, W] m; NaN where the model's output is not finite."""
        ...


class NetworkTeacher:
    """A network of this project as a `TeacherModel`."""

    def __init__(self, weights: Path, flip_tta: bool, device: torch.device):
        network, self.config = load_network(weights)
        self.max_depth = self.config.data.max_depth
        self.device, self._network = device, network.to(device).eval()
        # In full precision whatever the training used, since maps are made once.
        self._settings = override(self.config, {"evaluation.flip_tta": flip_tta, "optim.precision": "fp32"})
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.made_by = {"config": self.config.document(), "weights": digest, "flip_tta": flip_tta}

    def depth(self, image: np.ndarray) -> np.ndarray:
        """image uint8 [H, W, 3] RGB. Returns float32 [H, W] m."""
        batch = normalize_image(image).unsqueeze(0).to(self.device)
        return predict(self._network, batch, self._settings).depth[0, 0].cpu().numpy()


def trained_weights(config: RunConfig) -> Path:
    """Find the weights of the config's run in its store. Raises UserError if the run is not done."""
    store, run_id = RunStore(config.execution.store), run_id_of(config)
    if store.run(run_id).status().state != "done":
        raise UserError(
            f"store {store.uri} has no finished run {run_id} of this config: train it with `tiekd run` and the same settings, "
            "or give --weights"
        )
    return fetch_weights(store, run_id)


def make_maps(config: RunConfig, share: int = 0, n_shares: int = 1) -> bool:
    """Make the maps of a config's teacher in the run store, unless they exist. Returns whether they are complete.

    Processes that call this with different `share` < `n_shares` divide the frames. A killed one loses the block that it was
    making. Raises UserError if the teacher has no weights, and the errors of `export_maps`.
    """
    assert config.teacher is not None
    store, maps_id = RunStore(config.execution.store), made_maps_id(config)
    train, test = open_splits(config)
    frames = _by_key(train, range(len(train))) | _by_key(test, range(len(test)))
    blocks = MapBlocks(store, maps_folder(maps_id), list(frames), config.data.max_depth, maps_id)
    if blocks.complete:
        return True
    maker = _teacher_model(config)
    check_reach(f"teacher {config.teacher.name}", maker.max_depth, config.data.max_depth)
    torch.set_num_threads(config.execution.threads)
    shared = [block for block in range(len(blocks)) if block % n_shares == share]
    made_by = {"teacher": config.teacher.name, **maker.made_by}
    return _make_blocks(blocks, shared, frames, maker, made_by)


def _teacher_model(config: RunConfig) -> TeacherModel:
    """Load the model of a config's teacher."""
    teacher, device = config.teacher, run_device(config.execution)
    assert teacher is not None
    if teacher.hf:
        from tiekd.deploy.huggingface import HuggingFaceTeacher

        return HuggingFaceTeacher.load(teacher.hf, config.data.max_depth, device, teacher.metric)
    weights = trained_weights(config.teacher_run) if config.teacher_run else Path(str(teacher.weights))
    return NetworkTeacher(weights, teacher.flip_tta, device)


def _make_blocks(
    blocks: MapBlocks, numbers: Iterable[int], frames: Frames, maker: TeacherModel, made_by: dict[str, Any]
) -> bool:
    """Make those of the numbered blocks that are unfinished, and the manifest if no block is left.

    Begins at any of them, so that another process that makes the same maps probably makes other blocks.
    """
    todo = sorted(set(blocks.unfinished()) & set(numbers))
    first = secrets.randbelow(len(todo)) if todo else 0
    still = (block for block in todo[first:] + todo[:first] if not blocks.is_finished(block))
    total = sum(len(blocks.keys(block)) for block in todo)
    for key in track((key for block in still for key in blocks.keys(block)), "depth maps", total):
        source, index = frames[key]
        blocks.write(key, _predict(maker, key, source.load(index)))
    return blocks.close(made_by)


def _predict(maker: TeacherModel, key: str, frame: Frame) -> np.ndarray:
    """Predict a frame's depth, float32 [H, W] m. Raises DivergedError if it is not finite."""
    depth = maker.depth(frame.image)
    check_finite(depth, key)
    return depth


def check_export(config: RunConfig, out: Path, name: str, layout: str = "tiekd") -> None:
    """Raise UserError if frames cannot be read or maps cannot be written, before a model is loaded."""
    if layout not in MAP_LAYOUTS:
        raise UserError(unknown("--layout", layout, MAP_LAYOUTS))
    if layout == "released":
        released_map_names(config.data.dataset)  # raises UserError if it has none
        if safe_name(name) != name:
            raise UserError(f"--name: becomes part of a folder's name in --layout released, got {name!r}")
    check_output_folder(out, "--out")
    for source in open_splits(config):
        source.check()


def export_maps(config: RunConfig, maker: TeacherModel, out: Path, name: str, layout: str = "tiekd") -> dict[str, Any]:
    """Predict every train and test frame, and write 16-bit maps of its view. Returns a summary.

    Goes on with what a killed export of the same teacher and frames has left, except in the released layout. Raises
    UserError if the model's depth ends before that of the data, and DivergedError if a prediction is not finite.
    """
    check_reach(f"teacher {name}", maker.max_depth, config.data.max_depth)
    train, test = open_splits(config)
    torch.set_num_threads(config.execution.threads)
    frames = _by_key(train, range(len(train))) | _by_key(test, range(len(test)))
    if layout == "released":
        writer = ReleasedWriter(out, name, config.data.dataset, train.keys, test.keys)
        _write_each(frames, partial(_predict, maker), writer.write)
        return {"maps": len(frames), "out": str(out), "folders": [str(folder) for folder in writer.folders]}
    content = [maker.made_by, train.digest(), test.digest(), config.data.max_depth, MAPS_FORMAT]
    maps_id = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    blocks = MapBlocks(RunStore(out), "", list(frames), config.data.max_depth, maps_id)
    blocks.start_afresh()
    _make_blocks(blocks, range(len(blocks)), frames, maker, {"teacher": name, **maker.made_by})
    return {"maps": len(frames), "out": str(out), "digest": TeacherMaps(out).digest()}


def import_maps(
    config: RunConfig, folders: list[Path], out: Path, name: str, depth_scale: float | None = None
) -> dict[str, Any]:
    """Import another program's maps of every train frame and of every test frame with ground truth. Returns a summary.

    Maps of the other test frames are not needed, and the released code has none.
    """
    if out.resolve() in [folder.resolve() for folder in folders]:
        raise UserError(f"--out {out}: is one of the input folders; choose another one")
    train, test = open_splits(config)
    frames = _by_key(train, range(len(train))) | _by_key(test, filter(test.has_ground_truth, range(len(test))))
    maps = ExternalMaps(folders, config.data.dataset, frames, depth_scale)
    maps.check_headers(train, test)
    for source in (train, test):
        if remark := maps.check_units(source, config.data.max_depth):
            LOG.warning(remark)
    made_by = {"teacher": name, "imported_from": [str(folder) for folder in folders], "depth_scale": depth_scale}
    return _write_teacher(config, frames, maps.load, out, made_by)


def _by_key(source: FrameSource, indices: Iterable[int]) -> Frames:
    return {source.keys[index]: (source, index) for index in indices}


def _write_teacher(config: RunConfig, frames: Frames, depth_of: DepthOf, out: Path, made_by: dict[str, Any]) -> dict[str, Any]:
    with MapWriter(out, config.data.max_depth, made_by) as writer:
        _write_each(frames, depth_of, writer.write)
    return {"maps": len(frames), "out": str(out), "digest": TeacherMaps(out).digest()}


def _write_each(frames: Frames, depth_of: DepthOf, write: Callable[[str, np.ndarray], None]) -> None:
    for key, (source, index) in track(frames.items(), "depth maps"):
        write(key, depth_of(key, source.load(index)))
