"""ONNX files: what onnxruntime makes of them, what they say of themselves, and when they are not kept."""

import json
import math
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch

from tiekd.bins import DepthBins
from tiekd.config import build
from tiekd.deploy import onnx
from tiekd.deploy.hub import DepthModel
from tiekd.deploy.onnx import Difference, check_onnx, export_onnx
from tiekd.errors import ExportError, UserError

pytestmark = pytest.mark.slow

DATA = {"dataset": "synthetic-outdoor", "frame_size": [64, 96], "train_crop": [64, 96]}
GROUND_TRUTH = {"name": "si", "target": "ground_truth"}
DPM = {"data": DATA, "student": {"name": "tiny", "head": "dpm"}, "bins": {"n_bins": 16}, "loss": GROUND_TRUTH}
BTS = {"data": DATA, "student": {"name": "bts", "encoder": "test_resnet", "decoder_channels": [32, 16, 16, 16, 8]}}
ADABINS = {
    "data": DATA | {"frame_size": [128, 160], "train_crop": [128, 160]},
    "student": {"name": "adabins", "encoder": "test_efficientnet", "decoder_channels": [16, 16, 8, 8, 8]},
}
DEPTHFORMER = {
    "data": DATA,
    "student": {"name": "depthformer", "encoder": "swin_tiny_patch4_window7_224", "decoder_channels": [16, 16, 8, 8, 8]},
}


def student_of(document: dict, seed: int = 0) -> DepthModel:
    torch.manual_seed(seed)
    return DepthModel(build(document).document()).eval()


@pytest.fixture(scope="module")
def dpm_student() -> DepthModel:
    return student_of(DPM)


@pytest.fixture(scope="module")
def exported(dpm_student, tmp_path_factory) -> SimpleNamespace:
    """A file, and the program that it was written from: tracing takes seconds."""
    path, trace, programs = tmp_path_factory.mktemp("onnx") / "student.onnx", onnx._trace, []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(onnx, "_trace", lambda *words: programs.append(trace(*words)) or programs[0])
        export_onnx(dpm_student, path, "0123456789abcdef", dpm=True)
    return SimpleNamespace(path=path, program=programs[0])


@pytest.mark.parametrize(("batch", "size"), [(1, (64, 96)), (3, (33, 71)), (2, (128, 40)), (1, (97, 320))])
def test_a_file_serves_any_batch_and_size(dpm_student, exported, batch, size):
    image = torch.rand(batch, 3, *size)
    with torch.inference_mode():
        ours = dpm_student(image)
    depth, dpm = onnxruntime.InferenceSession(exported.path).run(["depth", "dpm"], {"image": image.numpy()})
    assert (depth.shape, dpm.shape) == ((batch, 1, *size), (batch, 16, *size))
    np.testing.assert_allclose(depth, ours.depth, rtol=1e-4)
    centers = DepthBins(
        dpm_student.config.bins.n_bins, *dpm_student.config.data.depth_range, dpm_student.config.bins.spacing
    ).centers.numpy()
    np.testing.assert_allclose(np.einsum("bkhw,k->bhw", dpm, centers), depth[:, 0], rtol=1e-4)


def test_a_file_says_what_goes_in_and_what_comes_out(exported):
    session = onnxruntime.InferenceSession(exported.path)
    about = session.get_modelmeta()
    assert about.custom_metadata_map["run_id"] == "0123456789abcdef"
    assert json.loads(about.custom_metadata_map["depth_range"]) == [1e-3, 80.0]
    assert len(json.loads(about.custom_metadata_map["bin_edges"])) == 17
    assert about.custom_metadata_map["licence"].startswith("Apache-2.0")
    assert about.custom_metadata_map["output"].startswith("depth [batch, 1, height, width], metres")
    assert [(one.name, one.shape) for one in session.get_inputs()] == [("image", ["batch", 3, "height", "width"])]
    assert [(one.name, one.shape) for one in session.get_outputs()] == [
        ("depth", ["batch", 1, "height", "width"]),
        ("dpm", ["batch", 16, "height", "width"]),
    ]


def test_a_teacher_is_exported_too(tmp_path):
    differences = export_onnx(student_of(ADABINS), tmp_path / "teacher.onnx")
    assert len(differences) == 3
    assert max(difference.relative for difference in differences) < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.onnx"]


def test_a_file_of_depthformer_serves_any_batch_of_one_size(tmp_path):
    """Its windows, of 7, do not divide this size at any stage."""
    student, path = student_of(DEPTHFORMER), tmp_path / "depthformer.onnx"
    for stage, blocks in zip(student.get_submodule("network.encoder.stages"), (2, 1, 1, 1), strict=True):
        stage.blocks = stage.blocks[:blocks]  # of 2, 2, 6, 2, with and without a shift: each takes PyTorch 8 s to export
    assert [(difference.batch, difference.size) for difference in export_onnx(student, path)] == [(1, (64, 96)), (2, (64, 96))]
    session = onnxruntime.InferenceSession(path)
    image = torch.rand(3, 3, 64, 96)
    with torch.inference_mode():
        np.testing.assert_allclose(session.run(None, {"image": image.numpy()})[0], student(image).depth, rtol=1e-4)
    assert session.get_inputs()[0].shape == ["batch", 3, 64, 96]
    about = session.get_modelmeta().custom_metadata_map
    assert about["input"].startswith("image [batch, 3, 64, 96]")
    assert "size_multiple" not in about


def test_a_file_that_computes_something_else_is_not_kept(exported, tmp_path, monkeypatch):
    """The program of one network, compared with another one."""
    monkeypatch.setattr(onnx, "_trace", lambda graph, view: exported.program)
    with pytest.raises(ExportError, match=r"not kept: onnxruntime and PyTorch differ by more than 0\.001: batch 1, 64x96: "):
        export_onnx(student_of(DPM, seed=1), tmp_path / "student.onnx", dpm=True)
    assert list(tmp_path.iterdir()) == []


def test_nothing_passes_for_agreement_that_is_no_number():
    assert Difference(1, (64, 96), 0.0, 1e-6, 0.0).agrees
    assert not Difference(1, (64, 96), 0.0, 2e-3, 0.0).agrees
    assert not Difference(1, (64, 96), 0.0, 0.0, 2e-3).agrees
    assert not Difference(1, (64, 96), math.nan, math.nan, 0.0).agrees


def test_distributions_of_a_head_without_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"--dpm: needs a network with student\.head dpm, got regression"):
        export_onnx(student_of(BTS), tmp_path / "teacher.onnx", dpm=True)
    assert list(tmp_path.iterdir()) == []


def test_a_name_without_the_suffix_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected the name of an \.onnx file; a folder needs --format hub"):
        check_onnx(tmp_path / "model")
