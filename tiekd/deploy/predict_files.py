"""Predict image and video files, in one process or in several, and write what was predicted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from tiekd.config import RunConfig
from tiekd.data.progress import Pool, in_this_process, track
from tiekd.distill.runtime import choose_device
from tiekd.errors import UserError
from tiekd.inference.inputs import InputFile, count_inputs, read_inputs
from tiekd.inference.outputs import SUMMARY, OutputOptions, PredictionReport, encode_outputs
from tiekd.inference.predict_images import predict_images
from tiekd.store.files import write_atomically

BLOCK_FILES = 64
DEFAULT_OPTIONS = OutputOptions()


class Outcome(NamedTuple):
    """What became of an image: its row of predictions.json, or why it was skipped."""

    row: dict[str, Any] | None
    problem: str | None


@dataclass(frozen=True)
class PredictionTask:
    """Predicts input files and writes the output files of each image, in any process.

    The files are OUT/NAME_depth.png, _colour.png, _entropy.png, .ply and _pixel_X_Y.csv.
    """

    network: nn.Module
    config: RunConfig
    out: Path
    options: OutputOptions = DEFAULT_OPTIONS
    every: int = 1  # of a video, every so manyth frame is predicted
    batch_size: int = 1

    def start(self) -> Callable[[Sequence[InputFile]], Iterator[Outcome]]:
        return partial(self._predict, choose_device(self.config.execution.device))

    def _predict(self, device: torch.device, files: Sequence[InputFile]) -> Iterator[Outcome]:
        failed: list[str] = []
        inputs = read_inputs(files, self.every, failed.append)
        for prediction in predict_images(self.network, inputs, self.config, device, failed.append, self.batch_size):
            try:
                content, row = encode_outputs(prediction, self.config, self.options)
            except UserError as error:
                failed.append(f"{prediction.image.name}: {error}")
                continue
            for suffix, data in content.items():
                write_atomically(self.out / f"{prediction.image.name}{suffix}", data)
            yield Outcome(row, None)
        for problem in failed:
            yield Outcome(None, problem)


def write_predictions(task: PredictionTask, files: Sequence[InputFile], pool: Pool = in_this_process) -> PredictionReport:
    """Predict input files, write the output files of each image and, at the end, predictions.json; the same for any pool."""
    report = PredictionReport(task.config)
    blocks = [files[start : start + BLOCK_FILES] for start in range(0, len(files), BLOCK_FILES)]
    for outcome in track(pool(task.start, blocks), "images", count_inputs(files, task.every)):
        if outcome.row is not None:
            report.images.append(outcome.row)
        if outcome.problem is not None:
            report.failed.append(outcome.problem)
    write_atomically(task.out / SUMMARY, report.to_json())
    return report
