"""TensorBoard files of a run. Imports neither PyTorch nor TensorBoard."""

import io
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from tiekd.config.labels import METRICS

NOT_SCALARS = ("epoch", "step")


class EventLog:
    """The TensorBoard files of one run, in a folder that is written anew.

    Raises FileNotFoundError unless the folder of a run or a study is there, in which it may be two levels deep: a store that
    has vanished is not made again.
    """

    def __init__(self, folder: Path):
        # Not SummaryWriter: its threads print errors such as a full disk to the screen, and again when the process ends.
        from tensorboardX.event_file_writer import EventsWriter

        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        folder.mkdir()
        self._writer = EventsWriter(str(folder / "events"))

    def write_epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """Write the scalars of an epoch."""
        from tensorboardX.summary import scalar

        for name, value in row.items():
            if name not in NOT_SCALARS and value is not None and value == value:
                self._add(scalar(_tag(name), value), epoch)
        self._writer.flush()

    def write_outcome(self, settings: Mapping[str, Any], metrics: Mapping[str, float | None], picture: bytes | None) -> None:
        """Write what the hyperparameters and their result were, and a picture of predictions."""
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.summary import hparams

        values = {name: v if isinstance(v, bool | int | float) else str(v) for name, v in settings.items()}
        for summary in hparams(values, {_tag(name): value for name, value in metrics.items() if value is not None}):
            self._add(summary, 0)
        if picture:
            width, height = Image.open(io.BytesIO(picture)).size
            image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=picture)
            self._add(Summary(value=[Summary.Value(tag="predictions: image, ground truth, prediction", image=image)]), 0)

    def close(self) -> None:
        self._writer.close()

    def _add(self, summary: Any, epoch: int) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(summary=summary, step=epoch, wall_time=time.time()))


def _tag(name: str) -> str:
    return f"evaluation/{name}" if name in METRICS else f"training/{name}"
