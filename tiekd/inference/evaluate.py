"""Evaluate a network, or depth maps of any program, on the frames of a data set."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tiekd.config import DataConfig, RunConfig
from tiekd.config.specs import ProtocolSpec, protocol_of
from tiekd.data import Frame, FrameSource
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.data.teacher_maps.external import ExternalMaps
from tiekd.data.transforms import normalize_image
from tiekd.errors import DivergedError
from tiekd.inference.alignment import align
from tiekd.inference.predict import predict
from tiekd.inference.protocols import range_of, valid_mask
from tiekd.inference.structure import Structure
from tiekd.metrics import agreement_metrics, metrics_of_pixels, scale_ratio

NO_STRUCTURE = Structure()
CONSTANT_RTOL = 1e-5  # a dead network varies by float32 rounding, a barely trained one by a thousandth


def score_image(depth_pred: np.ndarray, frame: Frame, data: DataConfig, protocol: str) -> dict[str, Any]:
    """Score one image: number of valid pixels, metrics, scale, and the range of the prediction. depth_pred [H, W] m."""
    (row,) = score_protocols(depth_pred, frame, data, [protocol_of(protocol, "protocol")])
    return row


def score_protocols(
    depth_pred: np.ndarray,
    frame: Frame,
    data: DataConfig,
    protocols: Iterable[ProtocolSpec],
    raw: np.ndarray | None = None,
    structure: Structure = NO_STRUCTURE,
) -> list[dict[str, Any]]:
    """Score one image under each protocol; see `score_image`. Protocols that count the same pixels select them once.

    raw: the prediction before it was clamped, which is aligned in place of depth_pred. structure: the metrics that are added.
    "median_ratio" is the scale before the alignment.
    """
    extent = {"depth_min": float(depth_pred.min()), "depth_max": float(depth_pred.max())}
    selected: dict[tuple[ProtocolSpec, bool], _Pixels] = {}
    rows = []
    for protocol in protocols:
        is_raw = raw is not None and protocol.alignment != "none"
        counted = replace(protocol, label="", alignment="none"), is_raw
        if counted not in selected:
            valid = valid_mask(protocol, frame, data.depth_range)
            selected[counted] = _Pixels.of(raw if raw is not None and is_raw else depth_pred, frame.depth_gt, valid)
        pixels = selected[counted]
        metrics = pixels.metrics(protocol.alignment, range_of(protocol, data.depth_range), structure)
        rows.append({"n_valid": pixels.gt.numel(), **metrics, "median_ratio": pixels.ratio, **extent})
    return rows


@dataclass(frozen=True)
class _Pixels:
    """The valid pixels of an image, [N] float64: predicted and true depth in m, and the ratio of their medians."""

    pred: Tensor
    gt: Tensor
    ratio: float  # NaN without a pixel
    valid: np.ndarray  # bool [H, W]

    @classmethod
    def of(cls, depth_pred: np.ndarray, depth_gt: np.ndarray, valid: np.ndarray) -> "_Pixels":
        pred, gt = depth_pred[valid], depth_gt[valid]
        return cls(torch.from_numpy(pred).double(), torch.from_numpy(gt).double(), scale_ratio(pred, gt), valid)

    @cached_property
    def log_gt(self) -> Tensor:
        return torch.log(self.gt)

    def metrics(self, alignment: str, depth_range: tuple[float, float], structure: Structure) -> dict[str, float]:
        """The metrics of the aligned prediction, clamped to the protocol's range in m, as in Monodepth2 and Marigold."""
        pred = self.pred
        if alignment != "none" and pred.numel():
            pred = align(alignment, pred, self.gt, self.log_gt, self.ratio).clamp(*depth_range)
        found = metrics_of_pixels(pred, self.gt, torch.log(pred), self.log_gt)
        return found | (structure.metrics(self._map(pred), self._map(self.gt)) if structure.names else {})

    def _map(self, values: Tensor) -> np.ndarray:
        """The values of the valid pixels [N] as a map [H, W] with NaN elsewhere."""
        found = np.full(self.valid.shape, np.nan)
        found[self.valid] = values.numpy()
        return found


def evaluate(
    network: nn.Module, config: RunConfig, source: FrameSource, device: torch.device, indices: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Evaluate a network on the frames at `indices` with the config's protocol. Yields rows of images.parquet."""
    first = dict(list(config.evaluation.specs.items())[:1])
    return (without_protocol(row) for (row,) in evaluate_protocols(network, config, source, device, indices, first))


def evaluate_protocols(
    network: nn.Module,
    config: RunConfig,
    source: FrameSource,
    device: torch.device,
    indices: Sequence[int],
    protocols: Mapping[str, ProtocolSpec],
    teacher: TeacherMaps | None = None,
    structure: Structure = NO_STRUCTURE,
) -> Iterator[list[dict[str, Any]]]:
    """Evaluate a network on the frames at `indices`, whose depth is predicted once. Yields a frame's rows, one per protocol.

    With a teacher's maps, the rows also hold the agreement with them; with a structure, its metrics.
    """
    for index, frame, depth in _predict_frames(network, config, source, device, indices):
        rows = score_protocols(depth, frame, config.data, protocols.values(), structure=structure)
        yield _named(rows, protocols, depth, index, config, source, teacher)


def evaluate_maps(
    maps: ExternalMaps,
    config: RunConfig,
    source: FrameSource,
    indices: Sequence[int],
    protocols: Mapping[str, ProtocolSpec],
    teacher: TeacherMaps | None = None,
    structure: Structure = NO_STRUCTURE,
) -> Iterator[list[dict[str, Any]]]:
    """`evaluate_protocols` for depth maps of another program.

    They are clamped to the depth range of the data like a network's, except where they are aligned.
    """
    for index in indices:
        frame = source.load(index)
        raw = maps.load(source.keys[index], frame)
        depth = raw.clip(*config.data.depth_range)
        rows = score_protocols(depth, frame, config.data, protocols.values(), raw, structure)
        yield _named(rows, protocols, depth, index, config, source, teacher)


def without_protocol(row: dict[str, Any]) -> dict[str, Any]:
    """A row of images.parquet, all of which have the run's protocol."""
    return {name: value for name, value in row.items() if name != "protocol"}


def require_finite(rows: list[dict[str, Any]]) -> None:
    """Raise DivergedError for a prediction that is not finite everywhere."""
    for row in rows:
        if not math.isfinite(row["depth_min"]):
            raise DivergedError(f"the prediction for test image {row['image']} is not finite")


def is_constant(rows: list[dict[str, Any]]) -> bool:
    """Whether every prediction is the same depth everywhere, which means that the training failed."""
    return all(math.isclose(row["depth_min"], row["depth_max"], rel_tol=CONSTANT_RTOL) for row in rows)


def _named(
    rows: list[dict[str, Any]],
    protocols: Iterable[str],
    depth: np.ndarray,
    index: int,
    config: RunConfig,
    source: FrameSource,
    teacher: TeacherMaps | None,
) -> list[dict[str, Any]]:
    """Rows of one frame with their protocols, its name, and the agreement of its depth [H, W] m with the teacher."""
    key, agreement = source.keys[index], dict[str, float]()
    if teacher is not None:
        height, width = depth.shape
        agreement = agreement_metrics(depth, teacher.load(key, (height, width)), config.data.spec.agreement_first_row)
    named = {"image": key, "group": source.group(index)}
    return [{"protocol": name, **named, **row, **agreement} for name, row in zip(protocols, rows, strict=True)]


def _predict_frames(
    network: nn.Module, config: RunConfig, source: FrameSource, device: torch.device, indices: Sequence[int]
) -> Iterator[tuple[int, Frame, np.ndarray]]:
    """The frames at `indices` with the network's depth of each, [H, W] m."""
    network.eval()
    for batch in _batches(source, indices, config):
        images = torch.stack([normalize_image(frame.image) for _, frame in batch]).to(device)
        depths = predict(network, images, config).depth
        for (index, frame), depth in zip(batch, depths[:, 0].cpu().numpy(), strict=True):
            yield index, frame, depth


def _batches(source: FrameSource, indices: Sequence[int], config: RunConfig) -> Iterator[list[tuple[int, Frame]]]:
    """Frames in order; consecutive frames of one size share a batch."""
    frames = DataLoader(_IndexedFrames(source), None, sampler=indices, num_workers=config.execution.loader_processes)
    batch: list[tuple[int, Frame]] = []
    for index, frame in frames:
        if batch and (len(batch) == config.optim.batch_size or frame.image.shape != batch[0][1].image.shape):
            yield batch
            batch = []
        batch.append((index, frame))
    if batch:
        yield batch


@dataclass(frozen=True)
class _IndexedFrames(Dataset):
    source: FrameSource

    def __getitem__(self, index: int) -> tuple[int, Frame]:
        return index, self.source.load(index)
