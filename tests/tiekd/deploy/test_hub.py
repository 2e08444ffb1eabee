"""`load_student`: a trained network from wherever it is stored, ready to predict."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiekd
from tiekd.config import build
from tiekd.deploy.hub import DepthModel
from tiekd.errors import UserError

DPM = {
    "data": {"dataset": "synthetic-indoor", "frame_size": [64, 96], "train_crop": [48, 64]},
    "student": {"name": "tiny", "head": "dpm"},
    "bins": {"n_bins": 16},
    "loss": {"name": "si", "target": "ground_truth"},
}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    """A model folder of a random network with a DPM head."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hub") / "model"
    DepthModel(build(DPM).document()).eval().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("named_by", ["run folder", "weights file", "run id"])
def test_a_students_run_is_found_and_predicts(teacher, image, named_by):
    store = teacher.record.store.uri
    folder = Path(store) / teacher.record.folder
    student = {
        "run folder": lambda: tiekd.load_student(folder),
        "weights file": lambda: tiekd.load_student(str(folder / "student.safetensors"), device="cpu"),
        "run id": lambda: tiekd.load_student(teacher.record.run_id[:8], store=store),
    }[named_by]()
    prediction = student.predict(image)
    assert (prediction.depth.shape, prediction.depth.dtype) == ((80, 120), np.float32)
    assert student.config.student == teacher.config.student
    assert prediction.entropy is student.bins is None
    with pytest.raises(UserError, match="no distributions over depth bins"):
        prediction.distribution(3, 5)


def test_a_model_folder_predicts_an_image_file_with_distributions(model_folder, image, tmp_path):
    student = tiekd.load_student(model_folder)
    Image.fromarray(image).save(tmp_path / "image.png")
    prediction = student.predict(tmp_path / "image.png")
    np.testing.assert_array_equal(prediction.depth, student.predict(image).depth)
    assert 0 < prediction.entropy.min() <= prediction.entropy.max() <= 1
    distribution = prediction.distribution(7, 13)
    assert distribution @ student.bins.centers.numpy() == pytest.approx(prediction.depth[13, 7], rel=1e-4)


def test_settings_of_the_evaluation_can_be_changed(model_folder, image):
    student = tiekd.load_student(model_folder, overrides={"evaluation.flip_tta": False})
    assert not student.config.evaluation.flip_tta
    with pytest.raises(UserError, match=r"^data.max_depth: prediction only reads evaluation.flip_tta, "):
        tiekd.load_student(model_folder, overrides={"data.max_depth": 2.0})


def test_an_image_that_the_network_cannot_process_is_refused(model_folder):
    with pytest.raises(UserError, match="image: 4x4000 px would be processed at 2x2479"):
        tiekd.load_student(model_folder).predict(np.zeros((4, 4000, 3), np.uint8))


def test_missing_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"student\.safetensors: no such file"):
        tiekd.load_student(tmp_path)
