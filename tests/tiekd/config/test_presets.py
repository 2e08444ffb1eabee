import pytest

from tiekd.config import LossConfig, RunConfig, build, presets
from tiekd.config.documents import flatten
from tiekd.config.presets import presets_for
from tiekd.data import DATASETS
from tiekd.errors import UserError
from tiekd.inference.protocols import PROTOCOLS
from tiekd.losses import LOSSES
from tiekd.models import STUDENTS
from tiekd.models.registry import TEACHERS, check_network


@pytest.mark.parametrize(
    ("named", "built"),
    [
        (presets.DATASETS, DATASETS),
        (presets.STUDENTS, STUDENTS),
        (presets.TEACHERS, TEACHERS),
        (presets.LOSSES, LOSSES),
        (presets.PROTOCOLS, PROTOCOLS),
        (presets.LOSS_LABELS, LOSSES),
    ],
    ids=["data sets", "students", "teachers", "losses", "protocols", "labels"],
)
def test_every_name_has_its_builder_and_every_builder_its_name(named, built):
    assert set(named) == set(built)


def test_no_student_has_the_name_of_a_teacher():
    assert not presets.STUDENTS.keys() & presets.TEACHERS.keys()


@pytest.mark.parametrize("dataset", presets.DATASETS)
@pytest.mark.parametrize("loss", [loss for loss, traits in presets.LOSSES.items() if traits.head != "adaptive_bins"])
def test_naming_a_data_set_and_a_loss_is_enough(dataset, loss):
    config = build({"data": {"dataset": dataset}, "teacher": {"name": "bts", "maps": "maps"}, "loss": {"name": loss}})
    assert config.student.head == presets.LOSSES[loss].head
    assert config.method == presets.LOSSES[loss].method


@pytest.mark.parametrize("dataset", presets.DATASETS)
@pytest.mark.parametrize("teacher", presets.TEACHERS)
def test_naming_a_data_set_and_a_teachers_architecture_is_its_training_on_ground_truth(dataset, teacher):
    config = build({"data": {"dataset": dataset}, "student": {"name": teacher}})
    recipe = flatten(presets.TEACHERS[teacher])
    assert (config.method, config.reads_teacher, config.teacher) == ("Teacher", False, None)
    stated = flatten(config.document())
    assert {path: stated[path] for path in recipe} == recipe


@pytest.mark.parametrize("loss", [loss for loss, traits in presets.LOSSES.items() if traits.needs_head])
def test_a_loss_that_needs_a_head_brings_it(loss):
    assert presets.LOSSES[loss].head == presets.LOSSES[loss].needs_head


def test_only_adabins_has_bins_of_each_image():
    teacher = {"name": "bts", "maps": "maps"}
    with pytest.raises(UserError, match=r"needs student\.head 'adaptive_bins', got 'regression'"):
        build({"data": {"dataset": "nyu"}, "teacher": teacher, "student": {"name": "bts"}, "loss": {"name": "si_chamfer"}})
    with pytest.raises(UserError, match=r"student\.head 'adaptive_bins' is AdaBins' own"):
        build({"data": {"dataset": "nyu"}, "teacher": teacher, "loss": {"name": "si_chamfer"}})


@pytest.mark.parametrize("loss", presets.LOSSES)
def test_a_loss_reads_settings_that_exist(loss):
    assert set(presets.LOSSES[loss].reads) <= LossConfig.model_fields.keys() - {"name", "target"}


@pytest.mark.parametrize("student", sorted(presets.STUDENTS.keys() - {"timm"}))
def test_a_student_has_one_width_per_level(student):
    assert len(presets.STUDENTS[student]["levels"]) == len(presets.STUDENTS[student]["decoder_channels"])


def on_ground_truth(**student) -> RunConfig:
    return build({"data": {"dataset": "nyu"}, "student": student, "loss": {"name": "si", "target": "ground_truth"}})


@pytest.mark.parametrize("name", sorted(presets.NETWORKS.keys() - {"timm"}))
def test_the_network_of_a_preset_is_known_to_build_and_does(name):
    config = on_ground_truth(name=name)
    assert config.student.is_preset
    check_network(config)


@pytest.mark.parametrize(
    "changed",
    [{"name": "timm"}, {"levels": [0, 1, 2, 3]}, {"output_stride": 16}, {"encoder": "resnet34"}, {"pretrained": True}],
)
def test_a_network_of_other_settings_is_none_of_a_preset(changed):
    stated = {"name": "resnet18", "encoder": "resnet18", "levels": [1, 2, 3, 4], "decoder_channels": [64, 32, 16, 8]}
    assert not on_ground_truth(**stated | changed).student.is_preset


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
