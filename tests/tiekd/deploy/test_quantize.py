"""Quantized ONNX files: what is in them, and when they are not kept."""

import math
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tiekd.config import build
from tiekd.data import open_frames
from tiekd.deploy import quantize
from tiekd.deploy.hub import DepthModel
from tiekd.deploy.onnx import export_onnx, open_session
from tiekd.deploy.quantize import Loss, check_int8, export_int8
from tiekd.errors import ExportError, UserError

pytestmark = pytest.mark.slow

DATA = {
    "dataset": "synthetic-outdoor",
    "train_frames": 6,
    "test_frames": 3,
    "frame_size": [64, 96],
    "train_crop": [64, 96],
}
STUDENT = {"name": "timm", "encoder": "test_resnet", "levels": [1, 2, 3, 4], "decoder_channels": [32, 24, 16, 8], "head": "dpm"}
CONFIG = build({"data": DATA, "student": STUDENT, "bins": {"n_bins": 16}, "loss": {"name": "si", "target": "ground_truth"}})


@pytest.fixture(scope="module")
def student() -> DepthModel:
    torch.manual_seed(0)
    return DepthModel(CONFIG.document()).eval()


@pytest.fixture(scope="module")
def exact(student, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("float32") / "student.onnx"
    export_onnx(student, path, "0123456789abcdef")
    return path


@pytest.fixture(autouse=True)
def _exported_once(exact, monkeypatch):
    """Tracing takes seconds: give each export the same file."""
    monkeypatch.setattr(quantize, "export_onnx", lambda model, out, run_id, dpm: shutil.copy(exact, out) and [])


def test_a_quantized_file_predicts_about_the_same_depth_with_8_bit_convolutions_and_a_float_head(student, exact, tmp_path):
    out = tmp_path / "int8.onnx"
    _, loss = export_int8(student, CONFIG, out, frames=4, max_loss=0.05)
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]
    assert out.stat().st_size < 0.5 * exact.stat().st_size

    graph = onnx.load(out).graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    weights = [makers.get(node.input[1]) for node in convolutions]
    assert len(weights) > 10
    assert weights.count("DequantizeLinear") == len(weights) - 1
    assert [node.output[0] for node in convolutions][weights.index(None)] in exact_outputs(exact)
    scales = {tensor.name: tensor for tensor in graph.initializer if tensor.name.endswith("_scale")}
    assert any(list(tensor.dims) == [32] for tensor in scales.values())  # one per output channel

    test = open_frames(CONFIG.data, "test")
    image = test.load(0).image.transpose(2, 0, 1)[None].astype(np.float32) / 255
    with torch.inference_mode():
        expected = student(torch.from_numpy(image)).depth.numpy()
    (found,) = open_session(out).run(["depth"], {"image": image})
    difference = np.abs(found - expected) / expected
    assert 0 < difference.mean() < 0.02
    assert (loss.frames, loss.calibration_frames) == (3, 3)


def exact_outputs(exact: Path) -> set[str]:
    """What the last convolution of the file gives: the logits."""
    return {[node for node in onnx.load(exact).graph.node if node.op_type == "Conv"][-1].output[0]}


def test_a_quantized_file_knows_its_run_and_what_it_lost(student, tmp_path):
    _, loss = export_int8(student, CONFIG, tmp_path / "int8.onnx", max_loss=0.05)
    about = open_session(tmp_path / "int8.onnx").get_modelmeta().custom_metadata_map
    assert about["run_id"] == "0123456789abcdef"
    assert about["quantization"] == f"int8 weights, uint8 activations, float32 head; {loss}"
    assert loss.calibration_frames == 6


def test_a_file_that_loses_too_much_is_not_kept(student, tmp_path):
    with pytest.raises(ExportError, match=r"not kept: int8 loses more than --max-loss -1: abs_rel .* on 3 test frames"):
        export_int8(student, CONFIG, tmp_path / "int8.onnx", max_loss=-1)
    assert list(tmp_path.iterdir()) == []


def test_nothing_passes_for_a_small_loss_that_is_no_number():
    assert Loss(0.2, 0.201, 1, 1).relative == pytest.approx(0.005)
    assert not Loss(0.2, math.nan, 1, 1).relative <= 1


def test_a_network_for_one_size_of_image_is_refused():
    student = {"name": "depthformer", "encoder": "swin_tiny_patch4_window7_224", "decoder_channels": [16, 16, 8, 8, 8]}
    with pytest.raises(UserError, match=r"^--int8: depthformer is not supported: its file accepts images of one size alone$"):
        check_int8(build({"data": DATA, "student": student}))
