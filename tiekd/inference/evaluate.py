"""Evaluate a network, or depth maps of any program, on the frames of a data set."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from tiekd.config import DataConfig, RunConfig
from tiekd.config.specs import PROTOCOLS
from tiekd.data import Frame, FrameSource
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.data.teacher_maps.external import ExternalMaps
from tiekd.data.transforms import normalize_image
from tiekd.errors import DivergedError
from tiekd.inference.predict import predict
from tiekd.inference.protocols import valid_mask
from tiekd.metrics import agreement_metrics, depth_metrics, scale_ratio

CONSTANT_RTOL = 1e-5  # a dead network varies by float32 rounding, a barely trained one by a thousandth


def score_image(depth_pred: np.ndarray, frame: Frame, data: DataConfig, protocol: str) -> dict[str, Any]:
    """Score one image: number of valid pixels, metrics, scale, and the range of the prediction. depth_pred [H, W] m."""
    valid = valid_mask(PROTOCOLS[protocol], frame, data.depth_range)
    return {
        "n_valid": int(valid.sum()),
        **depth_metrics(torch.from_numpy(depth_pred), torch.from_numpy(frame.depth_gt), torch.from_numpy(valid)),
        "median_ratio": scale_ratio(depth_pred, frame.depth_gt, valid),
        "depth_min": float(depth_pred.min()),
        "depth_max": float(depth_pred.max()),
    }


def evaluate(
    network: nn.Module,
    config: RunConfig,
    source: FrameSource,
    device: torch.device,
    indices: Sequence[int],
    teacher: TeacherMaps | None = None,
) -> Iterator[dict[str, Any]]:
    """Evaluate a network on the frames at `indices` with the config's protocol. Yields rows of images.parquet.

    With a teacher's maps, the rows also hold the agreement with them.
    """
    return _score(_predict_frames(network, config, source, device, indices), config, source, teacher)


def evaluate_maps(
    maps: ExternalMaps, config: RunConfig, source: FrameSource, indices: Sequence[int], teacher: TeacherMaps | None = None
) -> Iterator[dict[str, Any]]:
    """`evaluate` for depth maps of another program, which are clamped to the depth range of the data like a network's."""
    frames = ((index, source.load(index)) for index in indices)
    clamped = ((index, frame, maps.load(source.keys[index], frame).clip(*config.data.depth_range)) for index, frame in frames)
    return _score(clamped, config, source, teacher)


def require_finite(rows: list[dict[str, Any]]) -> None:
    """Raise DivergedError for a prediction that is not finite everywhere."""
    for row in rows:
        if not math.isfinite(row["depth_min"]):
            raise DivergedError(f"the prediction for test image {row['image']} is not finite")


def is_constant(rows: list[dict[str, Any]]) -> bool:
    """Whether every prediction is the same depth everywhere, which means that the training failed."""
    return all(math.isclose(row["depth_min"], row["depth_max"], rel_tol=CONSTANT_RTOL) for row in rows)


def _score(
    predictions: Iterable[tuple[int, Frame, np.ndarray]], config: RunConfig, source: FrameSource, teacher: TeacherMaps | None
) -> Iterator[dict[str, Any]]:
    """Rows of images.parquet for frames by index and their predicted depth [H, W] m."""
    for index, frame, depth in predictions:
        key = source.keys[index]
        row: dict[str, Any] = {"image": key, "group": source.group(index)}
        row |= score_image(depth, frame, config.data, config.evaluation.protocol)
        if teacher is not None:
            row |= agreement_metrics(depth, teacher.load(key, frame.size), config.data.spec.agreement_first_row)
        yield row


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
