"""A trained network as ONNX: any batch, mostly any size, metres, and kept only where onnxruntime agrees with PyTorch."""

import contextlib
import io
import json
import logging
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tiekd.config import RunConfig
from tiekd.config.labels import config_names
from tiekd.config.specs import NETWORKS
from tiekd.data.image_io import Size, format_size
from tiekd.deploy.hub import DepthModel
from tiekd.errors import ExportError, UserError
from tiekd.inference.predict_images import MIN_SIDE
from tiekd.store.files import check_output_folder

MAX_DIFFERENCE = 1e-3  # largest difference that is let pass: of a depth relative to it, of a probability


class Difference(NamedTuple):
    """How far onnxruntime is from PyTorch on one input."""

    batch: int
    size: Size
    absolute: float  # m, the largest of all pixels
    relative: float
    probability: float  # of the distributions; 0 without them

    @property
    def agrees(self) -> bool:
        return self.relative <= MAX_DIFFERENCE and self.probability <= MAX_DIFFERENCE  # False for NaN

    def __str__(self) -> str:
        line = f"batch {self.batch}, {format_size(self.size)}: depth {self.absolute:.1e} m, relative {self.relative:.1e}"
        return line + (f", probability {self.probability:.1e}" if self.probability else "")


class _Graph(nn.Module):
    """What the file computes: RGB in 0 .. 1 to metres, and where asked for to distributions."""

    def __init__(self, student: DepthModel, dpm: bool):
        super().__init__()
        self.student, self.dpm = student, dpm

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = self.student(image)
        return (found.depth, torch.softmax(found.dpm_logits, dim=1)) if self.dpm else (found.depth,)


def any_size(config: RunConfig) -> bool:
    """Whether the network's file takes images of any size, not only of the frames' size."""
    return NETWORKS[config.student.name].any_size


def _open_axes(config: RunConfig) -> dict[int, str]:
    """The axes of an image whose lengths the file leaves open, by name."""
    return {0: "batch", 2: "height", 3: "width"} if any_size(config) else {0: "batch"}


def check_onnx(out: Path) -> None:
    """Raise a `UserError` unless ONNX can be written there, before a network is loaded."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX needs the extra 'export' ({error.name} is missing): pip install 'tiekd[export]'") from None
    if out.suffix != ".onnx" or out.is_dir():
        raise UserError(f"--out {out}: needed the name of an .onnx file; a folder goes with --format hub")
    check_output_folder(out.parent, "--out: folder")


def export_onnx(student: DepthModel, out: Path, run_id: str = "", dpm: bool = False) -> list[Difference]:
    """Write a network as one ONNX file, checked at several batches and sizes; returns the differences.

    Input `image` [batch, 3, height, width], RGB, 0 to 1; output `depth` [batch, 1, height, width] m and, with `dpm`, `dpm`
    [batch, K, height, width]. Height and width are the frames' unless `any_size`. Without flip averaging. Raises UserError
    where there are no distributions to put out, and ExportError, leaving no file, where PyTorch cannot write the network as
    ONNX, or onnxruntime and PyTorch differ.
    """
    if dpm and student.config.student.head != "dpm":
        raise UserError(f"--dpm: needs a network with student.head dpm, got {student.config.student.head}")
    graph = _Graph(student, dpm).eval()
    view = student.config.data.evaluation_size
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        with torch.inference_mode():  # constants are made now: those of the first call would be the tracer's
            graph(torch.rand(1, 3, *view))
        program = _trace(graph, view)
        _describe(program.model, student, run_id)
        program.save(partial, external_data=False)
        differences = _compare(graph, partial, view)
        if not all(difference.agrees for difference in differences):
            told = "; ".join(str(difference) for difference in differences if not difference.agrees)
            raise ExportError(f"{out}: not kept: onnxruntime and PyTorch differ by more than {MAX_DIFFERENCE:g}: {told}")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return differences


def _trace(graph: _Graph, view: Size) -> "torch.onnx.ONNXProgram":
    """The program for every batch and size; of the example's, 2 and the view's, none is built in but what is not open."""
    import onnx_ir

    axes = _open_axes(graph.student.config)
    try:
        with _quiet():
            program = torch.onnx.export(
                graph,
                (torch.rand(2, 3, *view),),
                input_names=["image"],
                output_names=["depth", "dpm"] if graph.dpm else ["depth"],
                dynamic_shapes={"image": axes},
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        name = graph.student.config.student.encoder
        raise ExportError(f"{name}: PyTorch cannot write this network as ONNX: {str(error).strip().splitlines()[0]}") from error
    for output in program.model.graph.outputs:  # networks that pad tell them as long expressions
        output.shape = onnx_ir.Shape([axes.get(axis, length) for axis, length in enumerate(output.shape)])
    return program


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own words, which tell users nothing that they could act on."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(before)


def _describe(model: Any, student: DepthModel, run_id: str) -> None:
    """Put into the file what its user has to know."""
    config = student.config
    axes = _open_axes(config)
    height, width = (axes.get(axis, length) for axis, length in enumerate(config.data.evaluation_size, 2))
    about = {
        "run_id": run_id,
        "licence": config.data.spec.license.text,
        "input": f"image [batch, 3, {height}, {width}], RGB, 0 to 1; normalised inside",
        "output": f"depth [batch, 1, {height}, {width}], metres along the optical axis; one pass, without flip averaging",
        "depth_range": [config.data.min_depth, config.data.max_depth],
        "scale": 1.0,
        "frame_size": list(config.data.evaluation_size),
        "bin_edges": student.bins.edges.tolist() if student.bins else [],
        "network": config_names(config),
    }
    if any_size(config):
        about |= {"size_multiple": 1, "shortest_side": MIN_SIDE}
    model.doc_string = f"Monocular depth in metres, made by tiekd{f' from run {run_id}' if run_id else ''}."
    for name, value in about.items():
        model.metadata_props[name] = value if isinstance(value, str) else json.dumps(value)


@torch.inference_mode()
def _compare(graph: _Graph, path: Path, view: Size) -> list[Difference]:
    """onnxruntime against PyTorch on noise: at the frames' size, and a smaller odd and a narrower one where they are open."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    height, width = view
    differences = []
    others = (2, (height * 7 // 8 + 1, width * 7 // 8 + 3)), (3, (height, width * 3 // 4))
    for batch, size in ((1, view), *(others if any_size(graph.student.config) else [(2, view)])):
        image = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(batch))
        ours, theirs = graph(image), session.run(None, {"image": image.numpy()})
        depth, error = ours[0].numpy(), np.abs(theirs[0] - ours[0].numpy())
        unlike = float(np.abs(theirs[1] - ours[1].numpy()).max()) if graph.dpm else 0.0
        differences.append(Difference(batch, size, float(error.max()), float((error / depth).max()), unlike))
    return differences
