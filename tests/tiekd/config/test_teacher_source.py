"""The teacher of a config: a folder of maps, or what its maps are made from."""

import pytest
import yaml

from tiekd.config import build, load_config, override
from tiekd.errors import UserError

BASE = {
    "data": {"dataset": "synthetic-outdoor"},
    "student": {"name": "tiny"},
    "loss": {"name": "tie_kd", "sigma": 0.8},
    "optim": {"lr": 3e-3, "epochs": 6},
    "seed": 5,
}


def with_teacher(**teacher):
    return build(BASE | {"teacher": {"name": "embedded", **teacher}})


@pytest.mark.parametrize(
    ("teacher", "got"),
    [({}, "none of them"), ({"maps": "a", "run": {}}, "maps and run"), ({"weights": "w", "hf": "a@b"}, "weights and hf")],
)
def test_a_teacher_has_exactly_one_source(teacher, got):
    with pytest.raises(UserError, match=f"teacher: needs exactly one of maps, run, weights, hf, got {got}$"):
        with_teacher(**teacher)


def test_a_model_of_the_hub_needs_a_revision():
    assert with_teacher(hf="org/model@main").teacher.made
    with pytest.raises(UserError, match=r"teacher\.hf"):
        with_teacher(hf="org/model")


def test_the_run_of_a_teacher_changes_this_document_and_inherits_neither_loss_nor_seed():
    config = with_teacher(run={"student.name": "small", "optim": {"epochs": 24}})
    teacher = config.teacher_run
    assert (teacher.student.name, teacher.optim.epochs, teacher.optim.lr) == ("small", 24, 3e-3)
    assert (teacher.loss.name, teacher.loss.target, teacher.loss.sigma) == ("si", "ground_truth", 0.5)
    assert (teacher.seed, teacher.teacher) == (0, None)


def test_dotted_paths_and_sections_of_a_teachers_run_are_merged_and_the_last_counts():
    teacher = with_teacher(run={"optim.lr": 1e-2, "optim.epochs": 3, "optim": {"epochs": 9, "batch_size": 2}}).teacher_run
    assert (teacher.optim.lr, teacher.optim.epochs, teacher.optim.batch_size) == (1e-2, 9, 2)


def test_the_recipe_of_a_published_teacher_has_its_own_loss():
    assert with_teacher(run={"student.name": "adabins"}).teacher_run.loss.name == "si_chamfer"


def test_the_run_of_a_teacher_may_be_a_file(tmp_path):
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump({**BASE, "loss": {"name": "mse", "target": "ground_truth"}}))
    teacher = with_teacher(run=str(tmp_path / "teacher.yaml")).teacher_run
    assert (teacher.loss.name, teacher.seed) == ("mse", 5)
    with pytest.raises(UserError, match=r"teacher\.run .*missing\.yaml: no such file"):
        with_teacher(run=str(tmp_path / "missing.yaml"))


@pytest.mark.parametrize("run", [7, ["student.name"], True])
def test_the_run_of_a_teacher_is_a_file_or_settings(run):
    with pytest.raises(UserError, match=r"teacher\.run: expected a run config's file or a mapping of settings, got"):
        with_teacher(run=run)


def test_an_invalid_run_of_a_teacher_is_refused_with_its_place():
    with pytest.raises(UserError, match=r"teacher\.run: student\.name: unknown 'small2'; did you mean small"):
        with_teacher(run={"student.name": "small2"})


def test_a_complete_document_has_the_same_teacher_as_the_short_one():
    config = with_teacher(run={"student.name": "small"})
    assert build(config.document()).document() == config.document()


def test_a_changed_student_keeps_its_teacher():
    config = with_teacher(run={"student.name": "small"})
    assert override(config, {"optim.lr": 1e-3, "bins.n_bins": 8}).teacher_run == config.teacher_run


def test_the_teacher_is_computed_where_its_student_is(tmp_path):
    config = override(with_teacher(run={}), {"execution.store": str(tmp_path), "execution.cpus_per_worker": 3})
    assert config.teacher_run.execution == config.execution
    assert "execution" not in config.teacher.run


@pytest.mark.parametrize("source", [{"run": {"optim.epochs": 3}}, {"weights": "w.safetensors"}, {"hf": "a/b@c"}])
def test_the_source_is_not_part_of_the_identity_that_a_config_alone_gives(source):
    assert with_teacher(**source).identity() == with_teacher(maps="any").identity()


def test_absolute_paths_reach_into_the_teachers_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    document = {**BASE, "data": {"dataset": "kitti", "root": "kitti"}}
    config = build({**document, "teacher": {"name": "t", "run": {"data.root": "other"}}}).with_absolute_paths()
    assert config.data.root == str(tmp_path / "kitti")
    assert config.teacher_run.data.root == str(tmp_path / "other")
    assert build({**document, "teacher": {"name": "t", "weights": "w"}}).with_absolute_paths().teacher.weights == str(
        tmp_path / "w"
    )


def test_a_source_that_is_set_replaces_the_one_of_the_document(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**BASE, "teacher": {"name": "t", "run": {"student.name": "small"}}}))
    config = load_config(tmp_path / "run.yaml", ["teacher.maps=somewhere"])
    assert (config.teacher.maps, config.teacher.run, config.teacher.name) == ("somewhere", None, "t")
    assert load_config(tmp_path / "run.yaml", ["teacher.run.student.name=tiny"]).teacher_run.student.name == "tiny"
