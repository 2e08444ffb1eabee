"""Export the depth maps of a teacher: predicted by a network or another model, or imported from another program's maps."""

import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch

from tiekd.config import RunConfig, override
from tiekd.data import Frame, FrameSource
from tiekd.data.depth_range import check_reach
from tiekd.data.frame_source import same_frames
from tiekd.data.inputs import made_maps_id, maps_folder, open_splits, run_id_of
from tiekd.data.progress import Pool, in_this_process, track
from tiekd.data.teacher_maps import MAPS_FORMAT, MapWriter, TeacherMaps, open_maps
from tiekd.data.teacher_maps.blocks import MapBlocks, in_blocks
from tiekd.data.teacher_maps.external import ExternalMaps
from tiekd.data.teacher_maps.released_layout import ReleasedWriter, released_map_names
from tiekd.data.transforms import normalize_image
from tiekd.distill.runtime import choose_device, run_device
from tiekd.errors import UserError, unknown
from tiekd.inference.alignment import UnalignedError, align_map
from tiekd.inference.predict import check_finite, predict
from tiekd.models.checkpoint import load_network
from tiekd.store.files import check_output_folder, safe_name
from tiekd.store.find_weights import fetch_weights
from tiekd.store.run_store import RunStore

LOG = logging.getLogger(__name__)
MAP_LAYOUTS = ("tiekd", "released")
# Largest mean relative difference between the depths in bf16 and in fp32: a tenth of a good teacher's own abs_rel.
BF16_BOUND = 0.005
Precision = Literal["fp32", "bf16"]
Frames = dict[str, tuple[FrameSource, int]]  # source and index by key; a frame of both splits occurs once
DepthOf = Callable[[str, Frame], np.ndarray]  # a frame's key and the frame -> float32 [H, W] m


class TeacherModel(Protocol):
    """A model that predicts depth from images. It can be sent to other processes until it has predicted for the first time."""

    @property
    def max_depth(self) -> float:
        """The depth at which its predictions end, m."""
        ...

    @property
    def made_by(self) -> dict[str, Any]:
        """Identifies the model in the manifest of its maps."""
        ...

    def depth(self, images: np.ndarray, precision: Precision = "fp32") -> np.ndarray:
        """images uint8 [B, H, W, 3] RGB. Returns float32 [B, H, W] m; NaN where the model's output is not finite."""
        ...


class NetworkTeacher:
    """A network of this project as a `TeacherModel`. device: a setting of `execution.device`."""

    def __init__(self, weights: Path, flip_tta: bool, device: str = "auto"):
        self._network, self.config = load_network(weights)
        self.max_depth = self.config.data.max_depth
        self._flip_tta, self._device = flip_tta, device
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.made_by = {"config": self.config.document(), "weights": digest, "flip_tta": flip_tta}

    @cached_property
    def device(self) -> torch.device:
        return choose_device(self._device)

    def depth(self, images: np.ndarray, precision: Precision = "fp32") -> np.ndarray:
        """images uint8 [B, H, W, 3] RGB; precision: whatever the training used. Returns float32 [B, H, W] m."""
        settings = override(self.config, {"evaluation.flip_tta": self._flip_tta, "optim.precision": precision})
        batch = torch.stack([normalize_image(image) for image in images]).to(self.device)
        return predict(self._network.to(self.device).eval(), batch, settings).depth[:, 0].cpu().numpy()


@dataclass(frozen=True)
class MapOptions:
    """How depth is predicted. What is not the default is part of the identity of the maps, since it changes numbers."""

    batch_size: int = 1  # frames of one size per forward pass; other sizes of batches are summed in another order
    precision: Precision = "fp32"

    @property
    def made_by(self) -> dict[str, Any]:
        default = asdict(DEFAULT_OPTIONS)
        return {name: value for name, value in asdict(self).items() if value != default[name]}


DEFAULT_OPTIONS = MapOptions()


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
    align = config.teacher.align
    keys = list(_frames_of(config, align))
    blocks = MapBlocks(store, maps_folder(maps_id), keys, config.data.max_depth, maps_id)
    if blocks.complete:
        return True
    maker = _teacher_model(config)
    made_by = {"maps": maker.digest()} if isinstance(maker, TeacherMaps) else maker.made_by
    if config.teacher.is_aligned:
        made_by = {**made_by, "align": align}
    else:
        check_reach(f"teacher {config.teacher.name}", maker.max_depth, config.data.max_depth)
    open_writer = partial(_open_blocks, store.uri, maps_folder(maps_id), config.data.max_depth, maps_id)
    shared = [blocks.keys(block) for block in blocks.unfinished() if block % n_shares == share]
    _predict_blocks(_MapsTask(config, maker, DEFAULT_OPTIONS, open_writer, align), shared, in_this_process)
    return blocks.close({"teacher": config.teacher.name, **made_by})


def _teacher_model(config: RunConfig) -> TeacherModel | TeacherMaps:
    """Load the model of a config's teacher, or open its maps if they are only aligned."""
    teacher, device = config.teacher, run_device(config.execution).type
    assert teacher is not None
    if teacher.maps:
        return open_maps(teacher.maps)
    if teacher.hf:
        from tiekd.deploy.huggingface import HuggingFaceTeacher

        return HuggingFaceTeacher.load(teacher.hf, config.data.max_depth, device, teacher.metric, teacher.is_aligned)
    weights = trained_weights(config.teacher_run) if config.teacher_run else Path(str(teacher.weights))
    return NetworkTeacher(weights, teacher.flip_tta, device)


class _Writer(NamedTuple):
    write: Callable[[str, np.ndarray], None]  # a frame's key and its depth
    has: Callable[[str], bool] = lambda key: False  # whether another process has finished the block of a frame


@dataclass(frozen=True)
class _MapsTask:
    """Predicts blocks of frames, in any process."""

    config: RunConfig  # of the frames
    maker: TeacherModel | TeacherMaps
    options: MapOptions
    open_writer: Callable[[Sequence[str]], _Writer]  # from the keys of all frames
    align: str = "none"  # a value of `teacher.align`

    def start(self) -> Callable[[Sequence[str]], Iterator[float]]:
        torch.set_num_threads(self.config.execution.threads)
        frames = _frames_of(self.config, self.align)
        return partial(self._make, frames, self.open_writer(list(frames)))

    def _make(self, frames: Frames, writer: _Writer, keys: Sequence[str]) -> Iterator[float]:
        """Write the maps of a block. Yields for each frame how far bf16 is from fp32, if it was compared, else 0.

        The first frame of each block is compared. Raises UserError if the difference is above BF16_BOUND, or the alignment
        fails for more than a quarter of the block, and DivergedError if a prediction is not finite.
        """
        if writer.has(keys[0]):
            return
        is_compared = self.options.precision == "bf16"
        unaligned: list[str] = []
        for batch in self._batches(frames, keys):
            difference = 0.0
            for (key, frame), depth in zip(batch.items(), self._depths(batch, self.options.precision), strict=True):
                check_finite(depth, key)
                if is_compared:
                    difference = _difference(key, depth, self._depths({key: frame})[0])
                writer.write(key, depth if self.align == "none" else self._aligned(key, frame, depth, unaligned, len(keys)))
                yield difference
                is_compared, difference = False, 0.0
        if unaligned:
            LOG.warning(
                "teacher.align %s: %d of %d maps are left without depth, first %s",
                *(self.align, len(unaligned), len(keys), unaligned[0]),
            )

    def _depths(self, batch: dict[str, Frame], precision: Precision = "fp32") -> Sequence[np.ndarray] | np.ndarray:
        if isinstance(self.maker, TeacherMaps):
            return [self.maker.load(key, frame.size) for key, frame in batch.items()]
        return self.maker.depth(np.stack([frame.image for frame in batch.values()]), precision)

    def _aligned(self, key: str, frame: Frame, relative: np.ndarray, unaligned: list[str], n_frames: int) -> np.ndarray:
        """Fit a map to the ground truth of its frame; a map without any depth, and a line in `unaligned`, if that fails."""
        try:
            return align_map(self.align, relative, frame.depth_gt, self.config.data.max_depth)
        except UnalignedError as error:
            unaligned.append(f"{key}: {error}")
        if 4 * len(unaligned) > n_frames:
            raise UserError(
                f"teacher.align {self.align}: fails for more than a quarter of {n_frames} frames, first {unaligned[0]}; maps "
                "of depth need affine_depth, those of disparity affine_disparity"
            )
        return np.zeros_like(relative)

    def _batches(self, frames: Frames, keys: Sequence[str]) -> Iterator[dict[str, Frame]]:
        """The frames of a block, by key: consecutive ones of one size together."""
        batch: dict[str, Frame] = {}
        for key in keys:
            source, index = frames[key]
            frame = source.load(index)
            if batch and (len(batch) == self.options.batch_size or frame.size != next(iter(batch.values())).size):
                yield batch
                batch = {}
            batch[key] = frame
        if batch:
            yield batch


def _difference(key: str, depth: np.ndarray, full: np.ndarray) -> float:
    """The mean relative difference of a depth map in bf16 from that in fp32. Raises UserError if it is above BF16_BOUND."""
    difference = float((np.abs(depth - full) / full.clip(np.finfo(np.float32).tiny)).mean())
    if not difference <= BF16_BOUND:
        raise UserError(
            f"--precision bf16: the depth of {key} differs from that in fp32 by {difference:.2%} on average, the bound is "
            f"{BF16_BOUND:.1%}; valid: fp32"
        )
    return difference


def _predict_blocks(task: _MapsTask, blocks: Sequence[Sequence[str]], pool: Pool) -> float:
    """Write the maps of blocks of frames, given by their keys. Returns the largest difference that was found.

    Begins at any of them, so that another process that makes the same maps probably makes other blocks.
    """
    first = secrets.randbelow(len(blocks)) if blocks else 0
    blocks = [*blocks[first:], *blocks[:first]]
    return max(track(pool(task.start, blocks), "depth maps", sum(map(len, blocks))), default=0.0)


def _open_blocks(store: str, folder: str, max_depth: float, maps_id: str, keys: Sequence[str]) -> _Writer:
    blocks = MapBlocks(RunStore(store), folder, keys, max_depth, maps_id)
    return _Writer(blocks.write, lambda key: blocks.is_finished(blocks.number(key)))


def _open_released(config: RunConfig, out: Path, name: str, keys: Sequence[str]) -> _Writer:
    return _Writer(_released_writer(config, out, name).write)


def _released_writer(config: RunConfig, out: Path, name: str) -> ReleasedWriter:
    train, test = open_splits(config)
    return ReleasedWriter(out, name, config.data.dataset, train.keys, test.keys)


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


def export_maps(
    config: RunConfig,
    maker: TeacherModel,
    out: Path,
    name: str,
    layout: str = "tiekd",
    options: MapOptions = DEFAULT_OPTIONS,
    pool: Pool = in_this_process,
) -> dict[str, Any]:
    """Predict every train and test frame, and write 16-bit maps of its view. Returns a summary.

    Goes on with what a killed export of the same teacher, frames and options has left, except in the released layout. The maps
    are the same for any pool. Raises UserError if the model's depth ends before that of the data, or if bf16 is too far from
    fp32, and DivergedError if a prediction is not finite.
    """
    check_reach(f"teacher {name}", maker.max_depth, config.data.max_depth)
    train, test = open_splits(config)
    keys, made_by = list(_all_frames(train, test)), {**maker.made_by, **options.made_by}
    summary: dict[str, Any] = {"maps": len(keys), "out": str(out)}
    if layout == "released":
        writer = _released_writer(config, out, name)
        task = _MapsTask(config, maker, options, partial(_open_released, config, out, name))
        difference = _predict_blocks(task, in_blocks(keys), pool)
        summary["folders"] = [str(folder) for folder in writer.folders]
    else:
        content = [made_by, train.digest(), test.digest(), config.data.max_depth, MAPS_FORMAT]
        maps_id = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        blocks = MapBlocks(RunStore(out), "", keys, config.data.max_depth, maps_id)
        blocks.start_afresh()
        open_writer = partial(_open_blocks, str(out), "", config.data.max_depth, maps_id)
        task = _MapsTask(config, maker, options, open_writer)
        difference = _predict_blocks(task, [blocks.keys(block) for block in blocks.unfinished()], pool)
        blocks.close({"teacher": name, **made_by})
        summary["digest"] = TeacherMaps(out).digest()
    if options.precision == "bf16":
        summary["bf16"] = {"largest_difference": difference, "bound": BF16_BOUND}
    return summary


def import_maps(
    config: RunConfig, folders: list[Path], out: Path, name: str, depth_scale: float | None = None, relative: bool = False
) -> dict[str, Any]:
    """Import another program's maps of every train frame and of every test frame with ground truth. Returns a summary.

    Maps of the other test frames are not needed, and the released code has none. relative: the maps have no unit; those of
    the train frames are imported, each divided by its largest value, for `teacher.align`.
    """
    if relative and depth_scale is not None:
        raise UserError(f"--depth-scale {depth_scale:g}: relative maps have no unit; leave it out with --relative")
    if out.resolve() in [folder.resolve() for folder in folders]:
        raise UserError(f"--out {out}: is one of the input folders; choose another one")
    train, test = open_splits(config)
    same_frames(train, test)
    frames = _by_key(train, range(len(train)))
    made_by = {"teacher": name, "imported_from": [str(folder) for folder in folders], "depth_scale": depth_scale}
    if relative:
        maps = ExternalMaps(folders, config.data.dataset, frames, relative=True)
        maps.check_headers(train)
        return _write_teacher(frames, lambda key, frame: _to_one(maps.load(key, frame)), MapWriter(out, 1.0, made_by, True))
    frames |= _by_key(test, filter(test.has_ground_truth, range(len(test))))
    maps = ExternalMaps(folders, config.data.dataset, frames, depth_scale)
    maps.check_headers(train, test)
    for source in (train, test):
        if remark := maps.check_units(source, config.data.max_depth):
            LOG.warning(remark)
    return _write_teacher(frames, maps.load, MapWriter(out, config.data.max_depth, made_by))


def _to_one(values: np.ndarray) -> np.ndarray:
    """A relative map on 0 .. 1. Of a map with negative values the smallest becomes 0, which a fitted shift undoes."""
    from_zero = values - min(values.min(), 0)
    return from_zero / (from_zero.max() or 1)


def _frames_of(config: RunConfig, align: str) -> Frames:
    """The frames that have a map: those of both splits, or if it is aligned the training frames."""
    train, test = open_splits(config)
    return _all_frames(train, test) if align == "none" else _by_key(train, range(len(train)))


def _all_frames(train: FrameSource, test: FrameSource) -> Frames:
    """The frames of both splits by key. Raises UserError if two different images have one."""
    same_frames(train, test)
    return _by_key(train, range(len(train))) | _by_key(test, range(len(test)))


def _by_key(source: FrameSource, indices: Iterable[int]) -> Frames:
    return {source.keys[index]: (source, index) for index in indices}


def _write_teacher(frames: Frames, depth_of: DepthOf, maps: MapWriter) -> dict[str, Any]:
    with maps as writer:
        for key, (source, index) in track(frames.items(), "depth maps"):
            writer.write(key, depth_of(key, source.load(index)))
    return {"maps": len(frames), "out": str(maps.folder), "digest": TeacherMaps(maps.folder).digest()}
