"""Parts of the loss: what a document may state, and what a config makes of it."""

import pytest

from tiekd.config import RunConfig, build, override
from tiekd.errors import UserError

BASE = {"data": {"dataset": "synthetic-indoor"}, "teacher": {"name": "t", "maps": "maps"}, "student": {"name": "tiny"}}
MIX = {"si": {"target": "ground_truth"}, "l_dpm": {"weight": 0.1}}


def config(parts, **sections) -> RunConfig:
    return build({**BASE, "loss": {"parts": parts}, **sections})


def test_a_list_of_parts_is_a_mapping_by_their_names_in_any_order():
    listed = [{"name": "l_dpm", "target": "teacher", "weight": 0.1}, {"name": "si", "target": "ground_truth", "weight": 1}]
    assert config(listed).fingerprint() == config(MIX).fingerprint()
    assert config(listed).document() == config(dict(reversed(MIX.items()))).document()
    assert list(config(listed).loss.terms) == ["si", "l_dpm"]


def test_a_loss_on_both_targets_has_two_names():
    twice = config([{"name": "si", "target": "ground_truth"}, {"name": "si", "weight": 2}])
    assert {key: part.weight for key, part in twice.loss.terms.items()} == {"si_ground_truth": 1.0, "si_teacher": 2.0}
    named = config({"labels": {"name": "si", "target": "ground_truth"}, "si": {"weight": 2}})
    assert [(part.name, part.target) for part in named.loss.terms.values()] == [("si", "ground_truth"), ("si", "teacher")]


def test_a_document_of_parts_is_the_same_run_when_it_is_read_again():
    mix = config(MIX)
    assert build(mix.document()).fingerprint() == mix.fingerprint()
    assert mix.document()["loss"]["name"] is mix.document()["loss"]["target"] is None


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({}, "loss.parts: expected a mapping such as {si: {target: ground_truth}, "),
        (["si"], "loss.parts: expected a mapping such as "),
        ({"si": 3}, "got {'si': 3}"),
        ({"sii": {}}, "loss.parts: name: unknown 'sii'; did you mean si"),
        ({"si": {"weights": 1}}, "loss.parts.si.weights: no such setting: unknown 'weights'; did you mean weight"),
        ({"si": {"weight": -1}}, "loss.parts.si.weight: input should be greater than or equal to 0, got -1"),
        (
            {"si": {"target": "truth"}},
            "loss.parts.si.target: input should be 'teacher', 'ground_truth' or 'image', got 'truth'",
        ),
        ({"a.b": {"name": "si"}}, "loss.parts.a.b.[key]: string should match pattern"),
        ({"si": {"weight": 0}}, "loss.parts: at least one on the teacher or ground truth needs a weight above 0"),
        ({"smoothness": {}}, "loss.parts: at least one on the teacher or ground truth needs a weight above 0"),
        ([{"name": "si"}, {"name": "si"}], "loss.parts: 'si' on the target 'teacher' is given twice"),
        ({"a": {"name": "si"}, "b": {"name": "si"}}, "loss.parts: 'si' on the target 'teacher' is given twice"),
        ({"si": {"target": "image"}}, "loss.parts: target of 'si': expected 'teacher' or 'ground_truth', got 'image'"),
        ({"si": {}, "smoothness": {"target": "teacher"}}, "target of 'smoothness': expected 'image', got 'teacher'"),
        ({"si": {}, "ssim": {"target": "ground_truth"}}, "loss.parts.ssim.target: loss 'ssim' needs a dense target"),
        ({"l_dpm": {}, "si_chamfer": {}}, "loss.parts.l_dpm.name: 'l_dpm' needs student.head 'dpm', got 'adaptive_bins'"),
    ],
)
def test_parts_that_cannot_be_are_refused_in_one_line(parts, reason):
    student = {"student": {"name": "adabins"}} if "si_chamfer" in parts else {}
    with pytest.raises(UserError) as caught:
        config(parts, **student)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("setting", "value"), [("name", "si"), ("target", "teacher")])
def test_parts_exclude_a_name_and_a_target(setting, value):
    with pytest.raises(UserError, match=rf"loss\.{setting}: loss\.parts state their own, got '{value}' and parts si, l_dpm"):
        build({**BASE, "loss": {setting: value, "parts": MIX}})


def test_a_loss_of_the_image_is_only_a_part():
    with pytest.raises(UserError, match=r"loss\.name: 'smoothness' compares with the image alone, so it is only one of loss"):
        build({**BASE, "loss": {"name": "smoothness"}})
    assert config({"si": {}, "smoothness": {}}).loss.targets == {"teacher", "image"}


@pytest.mark.parametrize("fidelity", ["released", ["kl_epsilon"]])
def test_the_released_code_has_no_parts(fidelity):
    with pytest.raises(UserError, match=r"fidelity: the released code has no loss\.parts; expected 'corrected'"):
        config(MIX, fidelity=fidelity)


def test_a_part_of_weight_0_is_left_out_of_the_run_but_keeps_the_head():
    mix = config(MIX)
    without = override(mix, {"loss.parts.l_dpm.weight": 0})
    assert (without.reads_teacher, without.method, without.student.head) == (False, "Baseline", "dpm")
    alone = config({"si": {"target": "ground_truth"}}, student={"name": "tiny", "head": "dpm"})
    assert without.fingerprint() == override(alone, {"teacher": None}).fingerprint()
    assert mix.fingerprint() != without.fingerprint()


def test_a_teacher_is_needed_if_a_part_reads_it():
    with pytest.raises(UserError, match=r"teacher: loss\.target 'teacher' needs a section with name and maps"):
        config(MIX, teacher=None)
    assert config({"si": {"target": "ground_truth"}}, teacher=None).reads_teacher is False


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("loss.parts.l_dpm.weight", 0.2),
        ("loss.parts.si.target", "teacher"),
        ("loss.sigma", 0.9),
        ("loss.si_mean_weight", 0.5),
        ("teacher.name", "bts"),
    ],
)
def test_what_a_part_reads_identifies_the_run(setting, value):
    assert override(config(MIX), {setting: value}).fingerprint() != config(MIX).fingerprint()


@pytest.mark.parametrize("setting", ["loss.alpha", "loss.scale", "loss.mse_weight"])
def test_what_no_part_reads_does_not(setting):
    assert override(config(MIX), {setting: 0.5}).fingerprint() == config(MIX).fingerprint()


def test_the_teacher_of_a_student_with_parts_is_trained_on_ground_truth_alone_unless_it_states_parts():
    made = config(MIX, teacher={"name": "t", "run": {"student.name": "small"}})
    assert (made.teacher_run.loss.name, made.teacher_run.loss.parts) == ("si", None)
    own = {"student.name": "small", "loss.parts": {"mse": {"target": "ground_truth"}}}
    assert list(config(MIX, teacher={"name": "t", "run": own}).teacher_run.loss.terms) == ["mse"]


def test_a_teachers_architecture_with_parts_does_not_take_the_loss_of_its_recipe():
    chamfer = {"si": {"target": "ground_truth"}, "si_chamfer": {"target": "ground_truth", "weight": 0.5}}
    adabins = config(chamfer, student={"name": "adabins"}, teacher=None)
    assert (adabins.loss.name, adabins.method, adabins.loss.si_weight) == (None, "Teacher", 10.0)


def test_an_override_by_parts_replaces_a_name_and_the_reverse():
    named = build({**BASE, "loss": {"name": "si", "target": "ground_truth", "sigma": 0.3}})
    mix = override(named, {"loss.parts": MIX})
    assert (mix.fingerprint(), mix.loss.sigma) == (override(config(MIX), {"loss.sigma": 0.3}).fingerprint(), 0.3)
    assert override(mix, {"loss.name": "si", "loss.target": "ground_truth"}).fingerprint() == named.fingerprint()
    assert override(mix, {"loss.name": "l_dpm"}).loss.target == "teacher"
    assert build({**mix.document(), "loss": mix.document()["loss"] | {"name": "si", "parts": None}}).loss.target == "teacher"
