"""One pass over a validation set."""

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
from tiekd.inference.predict import predict
from tiekd.inference.protocols import valid_mask
from tiekd.metrics import agreement_metrics, depth_metrics


def score_image(depth_pred: np.ndarray, frame: Frame, data: DataConfig, protocol: str) -> dict[str, Any]:
    """One row of images.parquet: valid pixels, metrics, and the range of the prediction. depth_pred [H, W] m."""
    valid = valid_mask(PROTOCOLS[protocol], frame, data)
    return {
        "n_valid": int(valid.sum()),
        **depth_metrics(torch.from_numpy(depth_pred), torch.from_numpy(frame.depth_gt), torch.from_numpy(valid)),
        "depth_min": float(depth_pred.min()),
        "depth_max": float(depth_pred.max()),
    }


def evaluate(
    student: nn.Module,
    config: RunConfig,
    source: FrameSource,
    device: torch.device,
    indices: Sequence[int],
    teacher: TeacherMaps | None = None,
) -> list[dict[str, Any]]:
    """Rows of images.parquet for the frames at `indices`, each scored once by the config's protocol."""
    return _score(_predicted(student, config, source, device, indices), config, source, teacher)


def evaluate_maps(
    maps: ExternalMaps, config: RunConfig, source: FrameSource, indices: Sequence[int], teacher: TeacherMaps | None = None
) -> list[dict[str, Any]]:
    """The same rows for depth maps that another program made, clamped to the data's range as a student's depth is."""
    frames = ((index, source.load(index)) for index in indices)
    clamped = (
        (index, frame, maps.load(source.keys[index], frame).clip(config.data.min_depth, config.data.max_depth))
        for index, frame in frames
    )
    return _score(clamped, config, source, teacher)


def _score(
    predicted: Iterable[tuple[int, Frame, np.ndarray]], config: RunConfig, source: FrameSource, teacher: TeacherMaps | None
) -> list[dict[str, Any]]:
    """Rows of images.parquet for frames and their predicted depths [H, W] m; with a teacher's maps the agreement, too."""
    rows = []
    for index, frame, depth in predicted:
        key = source.keys[index]
        row: dict[str, Any] = {"image": key, "group": source.group(index)}
        row |= score_image(depth, frame, config.data, config.evaluation.protocol)
        if teacher is not None:
            depth_teacher = torch.from_numpy(teacher.load(key, frame.size))
            row |= agreement_metrics(torch.from_numpy(depth), depth_teacher, config.data.spec.agreement_first_row)
        rows.append(row)
    return rows


def _predicted(
    student: nn.Module, config: RunConfig, source: FrameSource, device: torch.device, indices: Sequence[int]
) -> Iterator[tuple[int, Frame, np.ndarray]]:
    """The frames at `indices` with the student's depth of each, [H, W] m."""
    student.eval()
    for batch in _batches(source, indices, config):
        images = torch.stack([normalize_image(frame.image) for _, frame in batch]).to(device)
        depths = predict(student, images, config).depth
        for (index, frame), depth in zip(batch, depths[:, 0].cpu().numpy(), strict=True):
            yield index, frame, depth


def _batches(source: FrameSource, indices: Sequence[int], config: RunConfig) -> Iterator[list[tuple[int, Frame]]]:
    """Frames in order, together as long as they are of one size."""
    frames = DataLoader(_Indexed(source), None, sampler=indices, num_workers=config.execution.data_workers)
    batch: list[tuple[int, Frame]] = []
    for index, frame in frames:
        if batch and (len(batch) == config.optim.batch_size or frame.image.shape != batch[0][1].image.shape):
            yield batch
            batch = []
        batch.append((index, frame))
    if batch:
        yield batch


@dataclass(frozen=True)
class _Indexed(Dataset):
    source: FrameSource

    def __getitem__(self, index: int) -> tuple[int, Frame]:
        return index, self.source.load(index)


SAME_DEPTH = 1e-5  # relative; a dead network varies by float32's rounding, a barely trained one by a thousandth


def is_constant(rows: list[dict[str, Any]]) -> bool:
    """Whether every prediction is one depth all over: a training that failed silently."""
    return all(math.isclose(row["depth_min"], row["depth_max"], rel_tol=SAME_DEPTH) for row in rows)
