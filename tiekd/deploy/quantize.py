"""Quantize an exported network to 8-bit integers, and keep the file only if its error on test frames grows little.

Static quantization by onnxruntime: uint8 activations with the ranges that they have on training frames, int8 weights with one
scale per output channel. The head stays in float32: the convolution before the depth or the logits, and all that follows it.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tiekd.config import RunConfig
from tiekd.data import FrameSource, open_frames
from tiekd.data.frame_source import evenly_spaced
from tiekd.data.progress import track
from tiekd.deploy.hub import DepthModel
from tiekd.deploy.onnx import Difference, any_size, export_onnx, open_session, quiet
from tiekd.errors import ExportError, UserError
from tiekd.inference.evaluate import score_image
from tiekd.metrics import mean_metrics

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CALIBRATION_FRAMES = 32
TEST_FRAMES = 100  # at most, evenly spaced
MAX_LOSS = 0.01  # of abs_rel, relative
# Operations that have an integer kernel. Between them, values stay 8 bits wide.
OPERATIONS = ["Conv", "Relu", "Clip", "Add", "Concat", "Resize", "MaxPool"]


class Loss(NamedTuple):
    """abs_rel of a network on test frames before and after quantization, without flip averaging."""

    before: float
    after: float
    frames: int
    calibration_frames: int

    @property
    def relative(self) -> float:
        return self.after / self.before - 1

    def __str__(self) -> str:
        return (
            f"abs_rel {self.before:.4f} in float32, {self.after:.4f} in int8 ({self.relative:+.2%}), on {self.frames} test "
            f"frames, calibrated on {self.calibration_frames} training frames"
        )


def check_int8(config: RunConfig) -> tuple[FrameSource, FrameSource]:
    """Return the training and test frames of a run. Raises UserError unless they are there and the network can be quantized."""
    if not any_size(config):
        raise UserError(f"--int8: {config.student.name} is not supported: its file accepts images of one size alone")
    sources = open_frames(config.data, "train"), open_frames(config.data, "test")
    for source in sources:
        source.check()
    if not any(sources[1].has_ground_truth(index) for index in range(len(sources[1]))):
        raise UserError("--int8: no test frame has ground truth to compare float32 and int8 on")
    return sources


def export_int8(
    model: DepthModel,
    config: RunConfig,
    out: Path,
    run_id: str = "",
    dpm: bool = False,
    frames: int = CALIBRATION_FRAMES,
    max_loss: float = MAX_LOSS,
) -> tuple[list[Difference], Loss]:
    """Export a network as `export_onnx` does, then quantize it. Returns the differences before quantization, and the loss.

    config: of the run, with the folder of its data set. frames: training frames that set the ranges, at most. Raises UserError
    like `check_int8`, and ExportError, without leaving a file, if abs_rel grows by more than `max_loss`, relative.
    """
    train, test = check_int8(config)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        exact, coarse = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        differences = export_onnx(model, exact, run_id, dpm)
        chosen = evenly_spaced(len(train), frames)
        quantize(exact, coarse, (_network_input(train.load(index).image) for index in chosen))
        loss = _loss(exact, coarse, config, test, len(chosen))
        if not loss.relative <= max_loss:  # or NaN
            raise ExportError(f"{out}: not kept: int8 loses more than --max-loss {max_loss:g}: {loss}")
        _add_metadata(coarse, loss)
        coarse.replace(out)
    return differences, loss


def quantize(source: Path, out: Path, images: Iterable[np.ndarray]) -> None:
    """Quantize an ONNX file of `export_onnx`; images: float32 [1, 3, H, W], RGB in 0..1, which set the activations' ranges."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        """The images, as onnxruntime asks for them."""

        def __init__(self) -> None:
            self._images: Iterator[np.ndarray] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {"image": image}

    fused = out.with_suffix(".fused.onnx")
    with quiet():
        quant_pre_process(source, fused, skip_symbolic_shape=True)
        quantize_static(
            fused,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=OPERATIONS,
            nodes_to_exclude=_head(onnx.load(fused).graph),
        )
    fused.unlink()


def _head(graph: Any) -> list[str]:
    """The names of the last convolutions before the outputs, and of what follows them."""
    producers = {output: node for node in graph.node for output in node.output}
    names, waiting = [], [output.name for output in graph.output]
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None:
            names.append(node.name)
            waiting += [] if node.op_type == "Conv" else node.input
    return names


def _loss(exact: Path, coarse: Path, config: RunConfig, test: FrameSource, calibration_frames: int) -> Loss:
    labelled = [index for index in range(len(test)) if test.has_ground_truth(index)]
    chosen = [labelled[place] for place in evenly_spaced(len(labelled), TEST_FRAMES)]
    sessions = open_session(exact), open_session(coarse)
    rows: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for index in track(chosen, "test frames"):
        frame = test.load(index)
        for session, scored in zip(sessions, rows, strict=True):
            scored.append(score_image(_depth(session, frame.image), frame, config.data, config.evaluation.protocol))
    before, after = (mean_metrics(scored)["abs_rel"] for scored in rows)
    return Loss(before, after, len(chosen), calibration_frames)


def _network_input(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] to float32 [1, 3, H, W] in 0..1."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32) / 255


def _depth(session: "InferenceSession", image: np.ndarray) -> np.ndarray:
    """Depth [H, W] m of an image [H, W, 3]."""
    (depth,) = session.run(["depth"], {"image": _network_input(image)})
    return depth[0, 0]


def _add_metadata(path: Path, loss: Loss) -> None:
    import onnx

    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = "quantization", f"int8 weights, uint8 activations, float32 head; {loss}"
    onnx.save(model, path)
