"""Predict image and video files, in one process or in several, and write what was predicted.

OUT/NAME_depth.png, _colour.png, _entropy.png, .ply and _pixel_X_Y.csv, of each image
OUT/parts/<number>.json  what predictions.json will say of a finished block of files; see `BlockParts`
OUT/predictions.json     written last
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from tiekd.config import RunConfig
from tiekd.data.progress import Pool, in_this_process, track
from tiekd.distill.runtime import choose_device
from tiekd.errors import UserError
from tiekd.inference.inputs import InputFile, count_inputs, read_inputs
from tiekd.inference.outputs import SUMMARY, OutputOptions, PredictionReport, encode_outputs
from tiekd.inference.predict_images import predict_images
from tiekd.store.block_parts import PARTS, BlockParts
from tiekd.store.files import delete_partial_files, json_text, write_atomically
from tiekd.store.run_store import RunStore

BLOCK_FILES = 64
DEFAULT_OPTIONS = OutputOptions()


class _Part(BaseModel):
    """A finished block."""

    model_config = ConfigDict(frozen=True)

    made_of: str
    images: list[dict[str, Any]]  # rows of predictions.json
    failed: list[Any]  # texts about images that were skipped; a file's name need not be Unicode, as pydantic's texts must


class _Block(NamedTuple):
    """Consecutive input files."""

    number: int
    files: Sequence[InputFile]
    made_of: str  # identifies the network, the settings and the files


def _parse_part(content: bytes) -> _Part:
    return _Part.model_validate(json.loads(content))


@dataclass(frozen=True)
class PredictionTask:
    """Predicts blocks of input files and writes the output files of each image, in any process."""

    network: nn.Module
    config: RunConfig
    weights: str  # digest of the network's file
    out: Path
    options: OutputOptions = DEFAULT_OPTIONS
    every: int = 1  # of a video, every so manyth frame is predicted
    batch_size: int = 1

    def start(self) -> Callable[[_Block], Iterator[None]]:
        return partial(self._predict, choose_device(self.config.execution.device))

    def _predict(self, device: torch.device, block: _Block) -> Iterator[None]:
        """Predict a block. Yields after each image that was predicted or skipped."""
        images: list[dict[str, Any]] = []
        failed: list[str] = []
        inputs = read_inputs(block.files, self.every, failed.append)
        for prediction in predict_images(self.network, inputs, self.config, device, failed.append, self.batch_size):
            try:
                content, row = encode_outputs(prediction, self.config, self.options)
            except UserError as error:
                failed.append(f"{prediction.image.name}: {error}")
                continue
            for suffix, data in content.items():
                write_atomically(self.out / f"{prediction.image.name}{suffix}", data)
            images.append(row)
            yield
        part = {"made_of": block.made_of, "images": images, "failed": failed}
        self.parts([block]).write(block.number, json_text(part).encode())
        yield from (None for _ in failed)

    def blocks(self, files: Sequence[InputFile]) -> list[_Block]:
        settings = self.weights, self.config.document(), asdict(self.options), self.every, self.batch_size
        groups = [files[start : start + BLOCK_FILES] for start in range(0, len(files), BLOCK_FILES)]
        return [_Block(number, group, _digest(*settings, *map(_signature, group))) for number, group in enumerate(groups)]

    def parts(self, blocks: Sequence[_Block]) -> BlockParts[_Part]:
        made_of = {block.number: block.made_of for block in blocks}
        return BlockParts(RunStore(self.out), "", _parse_part, lambda number, part: part.made_of == made_of.get(number))


def write_predictions(task: PredictionTask, files: Sequence[InputFile], pool: Pool = in_this_process) -> PredictionReport:
    """Predict input files, write the output files of each image and, at the end, predictions.json; the same for any pool.

    Goes on with what a killed process has left of the same network, settings and files.
    """
    (task.out / SUMMARY).unlink(missing_ok=True)  # the folder counts as unfinished
    folders = {(task.out / file.name) if file.is_video else (task.out / file.name).parent for file in files}
    for folder in folders:
        delete_partial_files(folder)
    blocks = task.blocks(files)
    parts = task.parts(blocks)
    parts.delete_others()
    unfinished = [block for block in blocks if parts.read(block.number) is None]
    waiting = [file for block in unfinished for file in block.files]
    for _ in track(pool(task.start, unfinished), "images", count_inputs(waiting, task.every)):
        pass
    for folder in folders:  # a process of the pool may have been killed
        delete_partial_files(folder)
    report = PredictionReport(task.config)
    for block in blocks:
        part = parts.read(block.number)
        if part is None:
            raise UserError(f"--out {task.out}: another process has written to it meanwhile; give each its own folder")
        report.images += part.images
        report.failed += part.failed
    write_atomically(task.out / SUMMARY, report.to_json())
    parts.delete()
    with contextlib.suppress(OSError):  # images of a folder with this name
        (task.out / PARTS).rmdir()
    return report


def _signature(file: InputFile) -> tuple[str, int, int] | None:
    """What changes with the content of a file; None if it is gone."""
    try:
        status = file.path.stat()
    except OSError:
        return None
    return file.name, status.st_size, status.st_mtime_ns


def _digest(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
