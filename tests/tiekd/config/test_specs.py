"""What every entry of the spec dicts keeps to, and how a config that names one is completed."""

from pkgutil import resolve_name

import pytest

from tiekd.config import LossConfig, RunConfig, build
from tiekd.config.documents import flatten
from tiekd.config.run_config import defaults_for
from tiekd.config.specs import DATASETS, LOSSES, NETWORKS, PROTOCOLS, STUDENTS, TEACHERS
from tiekd.data.layouts.split_list import Layout
from tiekd.errors import UserError
from tiekd.models.registry import check_network

SELF_CONTAINED = [name for name, spec in DATASETS.items() if spec.layout]  # a config says where the others' files are
SPECS = {"loss": LOSSES, "data set": DATASETS, "network": NETWORKS, "protocol": PROTOCOLS}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, specs in SPECS.items() for name in specs])
def test_an_entry_has_a_label_and_names_code_that_exists(kind, name):
    spec = SPECS[kind][name]
    references = {value for value in vars(spec).values() if isinstance(value, str) and ":" in value}
    references |= {spec.released.released_keys} if getattr(spec, "released", None) else set()
    assert spec.label
    assert references
    assert all(resolve_name(reference) is not None for reference in references)


@pytest.mark.parametrize("dataset", SELF_CONTAINED)
def test_a_data_set_states_its_license_layout_and_evaluation_size(dataset):
    spec = DATASETS[dataset]
    assert isinstance(resolve_name(spec.layout), Layout)
    assert spec.license.name
    config = build({"data": {"dataset": dataset}, "loss": {"name": "si", "target": "ground_truth"}})
    assert config.data.evaluation_size == (spec.evaluation_size or config.data.frame_size)


def test_no_student_has_the_name_of_a_teacher():
    assert not STUDENTS.keys() & TEACHERS.keys()


@pytest.mark.parametrize("dataset", SELF_CONTAINED)
@pytest.mark.parametrize("loss", [loss for loss, spec in LOSSES.items() if spec.head != "adaptive_bins" and not spec.of_image])
def test_naming_a_data_set_and_a_loss_is_enough(dataset, loss):
    config = build({"data": {"dataset": dataset}, "teacher": {"name": "bts", "maps": "maps"}, "loss": {"name": loss}})
    assert config.student.head == LOSSES[loss].head
    assert config.method == LOSSES[loss].method


@pytest.mark.parametrize("dataset", SELF_CONTAINED)
@pytest.mark.parametrize("teacher", TEACHERS)
def test_naming_a_data_set_and_a_teachers_architecture_is_its_training_on_ground_truth(dataset, teacher):
    config = build({"data": {"dataset": dataset}, "student": {"name": teacher}})
    recipe = flatten(dict(TEACHERS[teacher].defaults))
    assert (config.method, config.reads_teacher, config.teacher) == ("Teacher", False, None)
    stated = flatten(config.document())
    assert {path: stated[path] for path in recipe} == recipe


def test_only_adabins_has_bins_of_each_image():
    teacher = {"name": "bts", "maps": "maps"}
    with pytest.raises(UserError, match=r"needs student\.head 'adaptive_bins', got 'regression'"):
        build({"data": {"dataset": "nyu"}, "teacher": teacher, "student": {"name": "bts"}, "loss": {"name": "si_chamfer"}})
    with pytest.raises(UserError, match=r"student\.head: 'adaptive_bins' is only valid for AdaBins"):
        build({"data": {"dataset": "nyu"}, "teacher": teacher, "loss": {"name": "si_chamfer"}})


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_reads_settings_that_exist(loss):
    assert set(LOSSES[loss].reads) <= LossConfig.model_fields.keys() - {"name", "target", "parts"}


@pytest.mark.parametrize("student", sorted(STUDENTS.keys() - {"timm"}))
def test_a_student_has_one_width_per_level(student):
    defaults = STUDENTS[student].defaults["student"]
    assert len(defaults["levels"]) == len(defaults["decoder_channels"])


def on_ground_truth(**student) -> RunConfig:
    return build({"data": {"dataset": "nyu"}, "student": student, "loss": {"name": "si", "target": "ground_truth"}})


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"timm"}))
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
    assert defaults_for(named) == [STUDENTS["small"].defaults, head, DATASETS["nyu"].defaults]


@pytest.mark.parametrize("name", ["nowhere", None, 3, ["nyu"]])
def test_an_unknown_name_brings_no_defaults(name):
    named = {"data": {"dataset": name}, "student": {"name": name}, "loss": {"name": name}}
    assert defaults_for(named) == []


def test_ground_truth_makes_a_run_the_baseline():
    config = build({"data": {"dataset": "nyu"}, "loss": {"name": "si", "target": "ground_truth"}})
    assert config.method == "Baseline"
