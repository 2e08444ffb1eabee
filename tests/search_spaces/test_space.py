import optuna
import pytest

from search_spaces.space import FOLDER, Space, load_space
from tiekd.config import build
from tiekd.errors import UserError

PARAMETERS = {
    "loss.temperature": {"type": "float", "low": 0.01, "high": 10.0, "log": True},
    "optim.weight_decay": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
    "bins.n_bins": {"type": "int", "low": 32, "high": 128, "step": 16},
    "optim.batch_size": {"type": "int", "low": 1, "high": 64, "log": True},
    "bins.spacing": {"type": "categorical", "choices": ["uniform", "log"]},
    "student.pretrained": {"type": "categorical", "choices": [True, False]},
    "loss.scale": {"type": "categorical", "choices": [1, 2.5]},
}


@pytest.fixture(scope="module")
def points() -> list[dict]:
    """Two hundred points of a space, drawn by Optuna."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = Space.model_validate({"parameters": PARAMETERS})
    return [space.suggest(study.ask()) for _ in range(200)]


def test_a_point_has_every_parameter_in_its_order(points):
    assert all(list(point) == list(PARAMETERS) for point in points)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("optim.weight_decay", {0.0, 0.25, 0.5, 0.75, 1.0}),
        ("bins.n_bins", {32, 48, 64, 80, 96, 112, 128}),
        ("bins.spacing", {"uniform", "log"}),
        ("student.pretrained", {True, False}),
        ("loss.scale", {1, 2.5}),
    ],
)
def test_steps_and_choices_are_all_that_is_drawn(points, path, values):
    assert {point[path] for point in points} == values


def test_types_are_kept(points):
    assert {type(point["student.pretrained"]) for point in points} == {bool}
    assert {type(point["loss.scale"]) for point in points} == {int, float}
    assert {type(point["optim.batch_size"]) for point in points} == {int}


@pytest.mark.parametrize(("path", "middle"), [("loss.temperature", 0.316), ("optim.batch_size", 8)])
def test_a_logarithmic_range_has_half_its_points_below_its_geometric_mean(points, path, middle):
    low, high = PARAMETERS[path]["low"], PARAMETERS[path]["high"]
    assert all(low <= point[path] <= high for point in points)
    assert 0.35 < sum(point[path] < middle for point in points) / len(points) < 0.65


@pytest.fixture
def space_file(tmp_path, as_yaml):
    def write(document, name="space.yaml"):
        return as_yaml(tmp_path / name, document)

    return write


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"type": "float", "low": 2, "high": 1}, "loss.sigma: low must be below high, got 2.0 and 1.0"),
        ({"type": "int", "low": 1, "high": 1}, "loss.sigma: low must be below high, got 1 and 1"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, "loss.sigma: a logarithmic range must be positive, got low 0.0"),
        ({"type": "float", "low": 1, "high": 9, "log": True, "step": 2}, "loss.sigma: a logarithmic range has no step"),
        ({"type": "float", "low": 1}, "loss.sigma: high is needed"),
        ({"type": "float", "low": 1, "high": 2, "hihg": 3}, r"loss.sigma: hihg: no such setting: .*did you mean high\?"),
        ({"type": "float", "low": 1, "high": 2, "step": 0}, "loss.sigma: step: input should be greater than 0, got 0"),
        ({"type": "int", "low": 1.5, "high": 2}, "loss.sigma: low: input should be a valid integer"),
        ({"type": "float", "low": 1, "high": float("inf")}, "loss.sigma: high: input should be a finite number"),
        ({"type": "categorical", "choices": []}, "loss.sigma: choices: .* should have at least 1 item"),
        ({"type": "real", "low": 1, "high": 2}, "parameters.loss.sigma: input tag 'real' .* 'float', 'int', 'categorical'"),
        ({"low": 1, "high": 2}, "parameters.loss.sigma: unable to extract tag using discriminator 'type'"),
        (3, "parameters.loss.sigma: "),
    ],
)
def test_a_parameter_that_is_none_is_refused_in_one_line(space_file, parameter, message):
    path = space_file({"parameters": {"loss.sigma": parameter}})
    with pytest.raises(UserError, match=message) as caught:
        load_space(str(path))
    assert str(caught.value).startswith(f"search space {path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("document", [{}, {"parameters": {}}, {"parameters": [1]}, {"parameter": {}}])
def test_a_space_without_parameters_is_refused(space_file, document):
    with pytest.raises(UserError, match=r"parameters"):
        load_space(str(space_file(document)))


def test_a_space_is_found_in_the_folder_or_beside_the_study(space_file, tmp_path):
    space_file({"parameters": {"loss.alpha": {"type": "float", "low": 0, "high": 1}}}, "mine.yaml")
    assert "loss.temperature" in load_space("dpm.yaml", beside=tmp_path).parameters
    assert list(load_space("mine.yaml", beside=tmp_path).parameters) == ["loss.alpha"]


def test_a_space_that_is_nowhere_lists_those_there_are(tmp_path):
    with pytest.raises(UserError, match=r"search space 'dmp.yaml': no such file; of search_spaces/: .*dpm.yaml"):
        load_space("dmp.yaml", beside=tmp_path)


def test_paths_must_be_settings(tiny):
    document = build(tiny).document()
    wanted = {"type": "float", "low": 0.1, "high": 1.0}
    Space.model_validate({"parameters": {"loss.sigma": wanted, "optim.lr": wanted}}).check_paths(document)
    for path, near in (("loss.sigm", "loss.sigma"), ("optim", "optim"), ("los.sigma", "loss.sigma")):
        with pytest.raises(UserError, match=f"no such setting: unknown '{path}'; did you mean .*{near}"):
            Space.model_validate({"parameters": {path: wanted}}).check_paths(document)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_every_space_of_the_folder_fits_the_default_config(path, tiny):
    space = load_space(path.name)
    space.check_paths(build(tiny).document())
    study = optuna.create_study()
    for _ in range(20):
        build({**tiny, **_nested(space.suggest(study.ask()))})


def _nested(point):
    """Overrides by dotted path as a document of sections."""
    document = {}
    for path, value in point.items():
        section, name = path.split(".")
        document.setdefault(section, {})[name] = value
    return document
