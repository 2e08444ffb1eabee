import pytest

from tiekd import presets
from tiekd.config import LossConfig, build
from tiekd.data import DATASETS
from tiekd.evaluate import PROTOCOLS
from tiekd.losses import LOSSES
from tiekd.presets import presets_for
from tiekd.students import STUDENTS


@pytest.mark.parametrize(
    ("named", "built"),
    [
        (presets.DATASETS, DATASETS),
        (presets.STUDENTS, STUDENTS),
        (presets.LOSSES, LOSSES),
        (presets.PROTOCOLS, PROTOCOLS),
        (presets.LOSS_LABELS, LOSSES),
    ],
    ids=["data sets", "students", "losses", "protocols", "labels"],
)
def test_every_name_has_its_builder_and_every_builder_its_name(named, built):
    assert set(named) == set(built)


@pytest.mark.parametrize("dataset", presets.DATASETS)
@pytest.mark.parametrize("loss", presets.LOSSES)
def test_naming_a_data_set_and_a_loss_is_enough(dataset, loss):
    config = build({"data": {"dataset": dataset}, "teacher": {"name": "bts", "maps": "maps"}, "loss": {"name": loss}})
    assert config.student.head == presets.LOSSES[loss].head
    assert config.method == presets.LOSSES[loss].method


@pytest.mark.parametrize("loss", presets.LOSSES)
def test_a_loss_reads_settings_that_exist(loss):
    assert set(presets.LOSSES[loss].reads) <= LossConfig.model_fields.keys() - {"name", "target"}


@pytest.mark.parametrize("student", presets.STUDENTS.keys() - {"timm"})
def test_a_student_has_one_width_per_level(student):
    assert len(presets.STUDENTS[student]["levels"]) == len(presets.STUDENTS[student]["decoder_channels"])


def test_the_student_comes_before_the_loss_and_the_loss_before_the_data_set():
    named = {"data": {"dataset": "nyu"}, "student": {"name": "small"}, "loss": {"name": "si"}}
    head = {"student": {"head": "regression"}}
    assert presets_for(named) == [{"student": presets.STUDENTS["small"]}, head, presets.DATASETS["nyu"]]


@pytest.mark.parametrize("name", ["nowhere", None, 3, ["nyu"]])
def test_an_unknown_name_brings_no_preset(name):
    named = {"data": {"dataset": name}, "student": {"name": name}, "loss": {"name": name}}
    assert presets_for(named) == []


def test_ground_truth_makes_a_run_the_baseline():
    config = build({"data": {"dataset": "nyu"}, "loss": {"name": "si", "target": "ground_truth"}})
    assert config.method == "Baseline"
