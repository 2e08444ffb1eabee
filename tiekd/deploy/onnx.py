"""Export a trained network to ONNX, and keep the file only if onnxruntime agrees with PyTorch."""

import contextlib
import io
import logging
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tiekd.config import RunConfig
from tiekd.config.labels import config_names
from tiekd.config.specs import NETWORKS
from tiekd.data.image_io import Size, format_size
from tiekd.deploy.hub import DepthModel
from tiekd.errors import ExportError, UserError
from tiekd.inference.predict import check_finite
from tiekd.inference.predict_images import MIN_SIDE
from tiekd.store.files import check_output_folder, json_text

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MAX_DIFFERENCE = 1e-3  # of depth, relative, and of probability


class Difference(NamedTuple):
    """Difference between onnxruntime and PyTorch on one input."""

    batch: int
    size: Size
    absolute: float  # m, maximum over all pixels
    relative: float
    probability: float  # of the distributions; 0 if there are none

    @property
    def agrees(self) -> bool:
        return self.relative <= MAX_DIFFERENCE and self.probability <= MAX_DIFFERENCE  # False for NaN

    def __str__(self) -> str:
        line = f"batch {self.batch}, {format_size(self.size)}: depth {self.absolute:.1e} m, relative {self.relative:.1e}"
        return line + (f", probability {self.probability:.1e}" if self.probability else "")


class _Graph(nn.Module):
    """The exported function: RGB in 0..1 to depth in m and, on request, to distributions."""

    def __init__(self, model: DepthModel, dpm: bool):
        super().__init__()
        self.model, self.dpm = model, dpm

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        prediction = self.model(image)
        depth = prediction.depth
        return (depth, torch.softmax(prediction.dpm_logits, dim=1)) if self.dpm else (depth,)


def any_size(config: RunConfig) -> bool:
    """Whether the exported network accepts images of any size, and not only of the frames' size."""
    return NETWORKS[config.student.name].any_size


def _dynamic_axes(config: RunConfig) -> dict[int, str]:
    """Names of the axes of an image that have no fixed length."""
    return {0: "batch", 2: "height", 3: "width"} if any_size(config) else {0: "batch"}


def require_onnx() -> None:
    """Raise UserError unless the packages of the extra 'export' are installed."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX needs the extra 'export' ({error.name} is missing): pip install 'tiekd[export]'") from None


def check_onnx(out: Path) -> None:
    """Raise UserError unless an ONNX file can be written at `out`, before a network is loaded."""
    require_onnx()
    if out.suffix != ".onnx" or out.is_dir():
        raise UserError(f"--out {out}: expected the name of an .onnx file; a folder needs --format hub")
    check_output_folder(out.parent, "--out: folder")


def export_onnx(model: DepthModel, out: Path, run_id: str = "", dpm: bool = False) -> list[Difference]:
    """Write a network as one ONNX file, and compare it with PyTorch at several batch and image sizes. Returns the differences.

    Input `image` [batch, 3, height, width], RGB, 0 to 1; output `depth` [batch, 1, height, width] m and, with `dpm`, `dpm`
    [batch, K, height, width]. Height and width are the frames' unless `any_size`. There is no flip averaging. Raises UserError
    if the head has no distributions to output, and ExportError, without leaving a file, if PyTorch cannot export the network or
    onnxruntime and PyTorch differ.
    """
    if dpm and model.config.student.head != "dpm":
        raise UserError(f"--dpm: needs a network with student.head dpm, got {model.config.student.head}")
    graph = _Graph(model, dpm).eval()
    size = model.config.data.evaluation_size
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        with torch.inference_mode():  # creates cached constants, which tracing would otherwise capture
            check_finite(graph(torch.rand(1, 3, *size))[0], "a test image")
        program = _trace(graph, size)
        _add_metadata(program.model, model, run_id)
        program.save(partial, external_data=False)
        differences = _compare(graph, partial, size)
        if not all(difference.agrees for difference in differences):
            listed = "; ".join(str(difference) for difference in differences if not difference.agrees)
            raise ExportError(f"{out}: not kept: onnxruntime and PyTorch differ by more than {MAX_DIFFERENCE:g}: {listed}")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return differences


def _trace(graph: _Graph, size: Size) -> "torch.onnx.ONNXProgram":
    """Trace the graph with a batch of 2 frames. Dynamic axes do not keep the example's lengths."""
    import onnx_ir

    axes = _dynamic_axes(graph.model.config)
    try:
        with quiet():
            program = torch.onnx.export(
                graph,
                (torch.rand(2, 3, *size),),
                input_names=["image"],
                output_names=["depth", "dpm"] if graph.dpm else ["depth"],
                dynamic_shapes={"image": axes},
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        name = graph.model.config.student.encoder
        raise ExportError(f"{name}: PyTorch cannot write this network as ONNX: {str(error).strip().splitlines()[0]}") from error
    assert program is not None
    for output in program.model.graph.outputs:  # for networks that pad, the exporter writes long expressions
        output.shape = onnx_ir.Shape([axes.get(axis, length) for axis, length in enumerate(output.shape or ())])
    return program


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the output of an exporter or a quantizer, on which users cannot act."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(before)


def _add_metadata(onnx_model: Any, model: DepthModel, run_id: str) -> None:
    """Describe input, output and origin in the file's metadata."""
    config = model.config
    axes = _dynamic_axes(config)
    height, width = (axes.get(axis, length) for axis, length in enumerate(config.data.evaluation_size, 2))
    metadata = {
        "run_id": run_id,
        "licence": config.data.spec.license.text,
        "input": f"image [batch, 3, {height}, {width}], RGB, 0 to 1; normalised inside",
        "output": f"depth [batch, 1, {height}, {width}], metres along the optical axis; one pass, without flip averaging",
        "depth_range": list(config.data.depth_range),
        "scale": 1.0,
        "frame_size": list(config.data.evaluation_size),
        "bin_edges": model.bins.edges.tolist() if model.bins else [],
        "network": config_names(config),
    }
    if any_size(config):
        metadata |= {"size_multiple": 1, "shortest_side": MIN_SIDE}
    onnx_model.doc_string = f"Monocular depth in metres, made by tiekd{f' from run {run_id}' if run_id else ''}."
    for name, value in metadata.items():
        onnx_model.metadata_props[name] = value if isinstance(value, str) else json_text(value)


def open_session(path: Path, threads: int = 0) -> "InferenceSession":
    """Open an ONNX file in onnxruntime, on the CPU; threads: 0 for all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@torch.inference_mode()
def _compare(graph: _Graph, path: Path, size: Size) -> list[Difference]:
    """Compare onnxruntime with PyTorch on noise, at the frames' size and, if it is dynamic, at two smaller sizes."""
    session = open_session(path)
    height, width = size
    differences = []
    inputs = [(1, size), (2, size)]
    if any_size(graph.model.config):
        inputs = [(1, size), (2, (height * 7 // 8 + 1, width * 7 // 8 + 3)), (3, (height, width * 3 // 4))]
    for batch, input_size in inputs:
        image = torch.rand(batch, 3, *input_size, generator=torch.Generator().manual_seed(batch))
        ours, theirs = graph(image), session.run(None, {"image": image.numpy()})
        depth, error = ours[0].numpy(), np.abs(theirs[0] - ours[0].numpy())
        probability = float(np.abs(theirs[1] - ours[1].numpy()).max()) if graph.dpm else 0.0
        differences.append(Difference(batch, input_size, float(error.max()), float((error / depth).max()), probability))
    return differences
