import pytest

from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.config.labels import config_names, fidelity, labels
from tiekd.config.quirks import QUIRKS
from tiekd.errors import UserError

BASE = {"data": {"dataset": "kitti", "root": "kitti"}, "teacher": {"name": "bts", "maps": "maps"}}
BASELINE = {"loss.name": "si", "loss.target": "ground_truth"}


def config_of(**changes):
    return build(with_values(BASE, changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("kitti", "bts", "TIE-KD", "L_DPM, L_DEPTH", "MobileNetV2")),
        (BASELINE, ("kitti", "", "Baseline", "SI", "MobileNetV2")),
        (BASELINE | {"fidelity": "released"}, ("kitti", "", "Baseline", "SI", "MobileNetV2")),
        ({"student.name": "tiny"}, ("kitti", "bts", "TIE-KD", "L_DPM, L_DEPTH", "tiny")),
        ({"student.name": "adabins"}, ("kitti", "adabins", "Teacher", "SI, Chamfer", "EfficientNetB5-AP")),
        ({"student.name": "bts"}, ("kitti", "bts", "Teacher", "SI", "ResNet-50")),
        ({"student.name": "depthformer"}, ("kitti", "depthformer", "Teacher", "SI", "SwinL-w7-22k")),
        ({"student.name": "depthformer", "loss.target": "teacher"}, ("kitti", "bts", "Res-KD", "SI", "SwinL-w7-22k")),
        (
            {"loss.name": "ssim_si", "student.name": "timm", "student.encoder": "resnet26"},
            ("kitti", "bts", "Res-KD", "SSIM, SI", "resnet26"),
        ),
    ],
)
def test_a_run_is_called_as_in_the_published_tables(changes, expected):
    assert tuple(labels(config_of(**changes)).values()) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"si": {"target": "ground_truth"}, "l_dpm": {"weight": 0.1}}, ("bts", "Mixed", "SI (ground truth) + 0.1 L_DPM")),
        ({"si": {"target": "ground_truth"}, "mse": {"target": "ground_truth", "weight": 2}}, ("", "Baseline", "2 MSE + SI")),
        ({"tie_kd": {"weight": 0.5}, "berhu": {}}, ("bts", "Res-KD, TIE-KD", "berHu + 0.5 (L_DPM, L_DEPTH)")),
        ({"l_dpm": {}, "smoothness": {"weight": 1e-3}}, ("bts", "TIE-KD", "0.001 Smoothness + L_DPM")),
    ],
)
def test_parts_are_called_by_their_sum(parts, expected):
    found = labels(config_of(**{"loss.parts": parts}))
    assert (found["teacher"], found["method"], found["loss"]) == expected


def test_parts_are_the_words_of_configs():
    parts = {"labels": {"name": "si", "target": "ground_truth"}, "l_dpm": {"weight": 0.1}}
    assert config_names(config_of(**{"loss.parts": parts}))["loss"] == "labels + 0.1 l_dpm"


@pytest.mark.parametrize("student", ["mobilenetv2", "bts"])
def test_another_encoder_is_called_by_its_own_name(student):
    """And so does not stand beside the published value of the student's."""
    config = config_of(**{"student.name": student, "student.encoder": "resnet18"})
    assert labels(config)["backbone"] == config_names(config)["backbone"] == "resnet18"


def test_names_are_the_words_of_configs():
    assert tuple(config_names(config_of()).values()) == ("kitti", "bts", "TIE-KD", "tie_kd", "mobilenetv2")
    assert tuple(config_names(config_of(**{"student.name": "bts"})).values()) == ("kitti", "bts", "Teacher", "si", "bts")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "corrected"),
        ({"fidelity": "released"}, "released"),
        ({"fidelity": sorted(QUIRKS)}, "released"),
        ({"fidelity": ["unmasked", "fixed_sigma"]}, "fixed_sigma, unmasked"),
        ({"fidelity": ["ignored_weights"]}, "corrected"),  # it does not act on TIE-KD
        (BASELINE | {"fidelity": ["fixed_sigma", "unmasked"]}, "unmasked"),
    ],
)
def test_fidelity_tells_what_acts(changes, expected):
    assert fidelity(config_of(**changes)) == expected


def test_runs_of_one_fidelity_have_one_identity_whatever_was_asked_for():
    asked = [config_of(**BASELINE, fidelity=value) for value in ("corrected", ["fixed_sigma"])]
    assert [fidelity(config) for config in asked] == ["corrected", "corrected"]
    assert asked[0].fingerprint() == asked[1].fingerprint()


def test_a_baseline_without_a_teacher_is_corrected():
    document = with_values({"data": BASE["data"]}, BASELINE)
    assert fidelity(build(document)) == "corrected"
    with pytest.raises(UserError, match="baseline_on_teacher needs a section"):
        build(document | {"fidelity": "released"})
