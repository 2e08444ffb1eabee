import optuna
import pytest

from search_spaces.parameters import from_optuna
from search_spaces.space import SPACES_FOLDER, SearchSpace, load_space
from tiekd.config import build, override
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
    space = SearchSpace.model_validate({"parameters": PARAMETERS})
    return [space.suggest(study.ask()) for _ in range(200)]


def test_point_has_the_parameters_in_their_order(points):
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
def test_only_steps_and_choices_are_drawn(points, path, values):
    assert {point[path] for point in points} == values


def test_types_of_choices_are_kept(points):
    assert {type(point["student.pretrained"]) for point in points} == {bool}
    assert {type(point["loss.scale"]) for point in points} == {int, float}
    assert {type(point["optim.batch_size"]) for point in points} == {int}


@pytest.mark.parametrize(("path", "middle"), [("loss.temperature", 0.316), ("optim.batch_size", 8)])
def test_half_of_a_logarithmic_range_is_below_its_geometric_mean(points, path, middle):
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
        ({"type": "float", "low": 1, "high": 2, "points": 1}, "loss.sigma: points: input should be greater than or equal to 2"),
        ({"type": "int", "low": 1, "high": 9, "step": 2, "points": 3}, "loss.sigma: points and step both define a grid"),
        ({"type": "float", "low": 1, "high": 2, "when": {"loss.name": []}}, "loss.sigma: when.loss.name: .* at least 1 item"),
        ({"type": "float", "low": 1, "high": 2, "when": {"loss.name": "si"}}, "loss.sigma: when.loss.name: .* valid tuple"),
        ({"type": "categorical", "choices": []}, "loss.sigma: choices: .* should have at least 1 item"),
        ({"type": "real", "low": 1, "high": 2}, "parameters.loss.sigma: input tag 'real' .* 'float', 'int', 'categorical'"),
        ({"low": 1, "high": 2}, "parameters.loss.sigma: unable to extract tag using discriminator 'type'"),
        (3, "parameters.loss.sigma: "),
    ],
)
def test_invalid_parameter_is_refused_in_one_line(space_file, parameter, message):
    path = space_file({"parameters": {"loss.sigma": parameter}})
    with pytest.raises(UserError, match=message) as caught:
        load_space(str(path))
    assert str(caught.value).startswith(f"search space {path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("document", [{}, {"parameters": {}}, {"parameters": [1]}, {"parameter": {}}])
def test_space_without_parameters_is_refused(space_file, document):
    with pytest.raises(UserError, match=r"parameters"):
        load_space(str(space_file(document)))


def test_space_is_found_in_the_package_or_beside_the_study(space_file, tmp_path):
    space_file({"parameters": {"loss.alpha": {"type": "float", "low": 0, "high": 1}}}, "mine.yaml")
    assert "loss.temperature" in load_space("dpm.yaml", beside=tmp_path).parameters
    assert list(load_space("mine.yaml", beside=tmp_path).parameters) == ["loss.alpha"]


def test_unknown_space_lists_the_packaged_ones(tmp_path):
    with pytest.raises(UserError, match=r"search space 'dmp.yaml': no such file; packaged spaces: .*dpm.yaml"):
        load_space("dmp.yaml", beside=tmp_path)


def test_parameter_paths_must_be_settings(document):
    wanted = {"type": "float", "low": 0.1, "high": 1.0}
    space_of({"loss.sigma": wanted, "optim.lr": wanted}).for_base(document)
    for path, near in (("loss.sigm", "loss.sigma"), ("optim", "optim"), ("los.sigma", "loss.sigma")):
        with pytest.raises(UserError, match=f"no such setting: unknown '{path}'; did you mean .*{near}"):
            space_of({path: wanted}).for_base(document)


# -- conditions ----------------------------------------------------------------------------------------------------------------

SHARE = {"type": "float", "low": 0.0, "high": 1.0, "points": 3}
POSITIVE = SHARE | {"low": 0.1}
CHAIN = {
    "loss.alpha": SHARE | {"when": {"bins.n_bins": [16]}},  # documents may list a parameter before its parents
    "bins.n_bins": {"type": "int", "low": 16, "high": 32, "step": 16, "when": {"loss.name": ["tie_kd", "l_dpm"]}},
    "loss.name": {"type": "categorical", "choices": ["tie_kd", "si"]},
}


def space_of(parameters):
    return SearchSpace.model_validate({"parameters": parameters})


@pytest.fixture(scope="module")
def document(tiny):
    return build(tiny | {"loss": {"name": "tie_kd"}}).document()


def test_parameter_is_drawn_only_if_all_its_parents_are_active():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    kinds = {tuple(space_of(CHAIN).suggest(study.ask())) for _ in range(50)}
    assert kinds == {("loss.name",), ("bins.n_bins", "loss.name"), ("loss.alpha", "bins.n_bins", "loss.name")}


def test_grid_has_each_combination_of_active_parameters_once():
    points = space_of(CHAIN).grid()
    assert points == [
        {"loss.alpha": 0.0, "bins.n_bins": 16, "loss.name": "tie_kd"},
        {"loss.alpha": 0.5, "bins.n_bins": 16, "loss.name": "tie_kd"},
        {"loss.alpha": 1.0, "bins.n_bins": 16, "loss.name": "tie_kd"},
        {"bins.n_bins": 32, "loss.name": "tie_kd"},
        {"loss.name": "si"},
    ]


def test_conditions_on_the_base_are_evaluated(document):
    space = space_of(
        {
            "loss.alpha": SHARE | {"when": {"loss.name": ["tie_kd"], "bins.spacing": ["log"]}},
            "loss.sigma": POSITIVE | {"when": {"loss.name": ["tie_kd"]}},
            "loss.mse_weight": POSITIVE | {"when": {"loss.name": ["mse"]}},
            "loss.si_weight": POSITIVE | {"when": {"loss.mse_weight": [0.5]}},
            "bins.spacing": {"type": "categorical", "choices": ["log", "uniform"]},
        }
    ).for_base(document)
    assert list(space.parameters) == ["loss.alpha", "loss.sigma", "bins.spacing"]
    assert space.conditional == ["loss.alpha"]
    assert space.categorical == ["bins.spacing"]


def test_space_without_active_parameters_is_refused(document):
    space = space_of({"loss.mse_weight": POSITIVE | {"when": {"loss.name": ["mse", "ssim_mse"]}}})
    with pytest.raises(UserError, match=r"none of loss.mse_weight is active if the base config has loss.name 'tie_kd'"):
        space.for_base(document)


def test_unknown_parent_is_refused(document):
    with pytest.raises(UserError, match=r"no such setting: unknown 'loss.nam'; did you mean loss.name"):
        space_of({"loss.sigma": SHARE | {"when": {"loss.nam": ["si"]}}}).for_base(document)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"loss.sigma": SHARE | {"when": {"loss.sigma": [1]}}}, "in a circle: loss.sigma -> loss.sigma"),
        (
            {"loss.sigma": SHARE | {"when": {"loss.alpha": [1]}}, "loss.alpha": SHARE | {"when": {"loss.sigma": [1]}}},
            "in a circle: loss.sigma -> loss.alpha -> loss.sigma",
        ),
        (
            {**CHAIN, "loss.sigma": SHARE | {"when": {"loss.name": ["mse"]}}},
            "loss.sigma: when: in this space loss.name is never 'mse'",
        ),
        (
            {**CHAIN, "loss.sigma": SHARE | {"when": {"bins.n_bins": [17, 8]}}},
            "loss.sigma: when: in this space bins.n_bins is never 17 or 8",
        ),
    ],
)
def test_impossible_conditions_are_refused_in_one_line(space_file, parameters, message):
    with pytest.raises(UserError, match=message) as caught:
        load_space(str(space_file({"parameters": parameters})))
    assert "\n" not in str(caught.value)


# -- types and limits of settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "choices", "converted"),
    [
        ("optim.lr", ["1e-3", 0.01], (0.001, 0.01)),  # YAML reads 1e-3 as a text
        ("optim.momentum_cycle", [None, [0.95, "85e-2"]], (None, [0.95, 0.85])),
        ("student.decoder_channels", [[64, 48, 32, 16], [8, 8, 8, 8]], ([64, 48, 32, 16], [8, 8, 8, 8])),
        ("loss.ssim_range", [None, 10], (None, 10.0)),
        ("teacher.name", ["a", "b"], ("a", "b")),
    ],
)
def test_choices_become_values_of_their_setting_and_keep_them_in_a_database(document, path, choices, converted, tmp_path):
    space = space_of({path: {"type": "categorical", "choices": choices}}).for_base(document)
    assert space.parameters[path].choices == converted
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/optuna.db", sampler=optuna.samplers.RandomSampler(seed=0))
    points = [space.suggest(study.ask()) for _ in range(8)]
    assert [{name: from_optuna(value) for name, value in trial.params.items()} for trial in study.trials] == points
    assert sorted({repr(point[path]) for point in points}) == sorted(map(repr, converted))
    assert all(space.point_of(point) == point for point in space.grid())


def test_conditions_become_values_of_their_setting(document):
    parameters = {
        "optim.lr": {"type": "categorical", "choices": ["1e-3", "1e-2"]},
        "optim.div_factor": {"type": "float", "low": 1, "high": 9, "when": {"optim.lr": ["1e-2"]}},
    }
    space = space_of(parameters).for_base(document)
    assert space.point_of({"optim.lr": 0.01, "optim.div_factor": 2}) == {"optim.lr": 0.01, "optim.div_factor": 2}
    assert space.point_of({"optim.lr": 0.001, "optim.div_factor": 2}) == {"optim.lr": 0.001}


@pytest.mark.parametrize(
    ("path", "parameter", "message"),
    [
        ("optim.lr", {"type": "float", "low": 0, "high": 1}, "optim.lr: low: input should be greater than 0, got 0.0"),
        ("loss.sigma", {"type": "float", "low": 1, "high": 200}, "loss.sigma: high: .* less than or equal to 100, got 200.0"),
        ("bins.n_bins", {"type": "int", "low": 1, "high": 9}, "bins.n_bins: low: .* greater than or equal to 2, got 1"),
        (
            "bins.n_bins",
            {"type": "float", "low": 2, "high": 9},
            "bins.n_bins: type: input should be a valid integer, .*, got 4.2",
        ),
        ("bins.spacing", {"type": "int", "low": 2, "high": 9}, "bins.spacing: low: input should be 'uniform', .*, got 2"),
        (
            "loss.name",
            {"type": "categorical", "choices": ["si", "sii"]},
            "loss.name: choices: .* unknown 'sii'; did you mean si",
        ),
        ("optim.betas", {"type": "categorical", "choices": [[0.9, 1]]}, "optim.betas: choices: .*less than 1, got 1"),
        (
            "optim.lr",
            {"type": "categorical", "choices": [1, True]},
            "optim.lr: choices: .* a number, not true or false, got True",
        ),
        ("optim.lr", {"type": "categorical", "choices": ["1e-3", 0.001]}, "optim.lr: choices: must not repeat a value"),
        (
            "loss.alpha",
            SHARE | {"when": {"optim.batch_size": [0]}},
            "optim.batch_size: when: input should be greater than or equal to 1, got 0",
        ),
    ],
)
def test_values_outside_the_limits_of_a_setting_are_refused_in_one_line(document, path, parameter, message):
    with pytest.raises(UserError, match=f"^search space: {message}") as caught:
        space_of({path: parameter}).for_base(document)
    assert "\n" not in str(caught.value)


def test_a_list_as_a_text_is_refused(space_file):
    path = space_file({"parameters": {"optim.betas": {"type": "categorical", "choices": ["[0.9, 0.99]"]}}})
    with pytest.raises(UserError, match=r"choices: a text cannot begin with '\[', got '\[0.9, 0.99\]'; a list has no quotes"):
        load_space(str(path))


# -- grids and points ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        ({"type": "float", "low": 0.01, "high": 100.0, "log": True, "points": 5}, [0.01, 0.1, 1, 10, 100]),
        ({"type": "float", "low": 0.1, "high": 0.7, "points": 3}, [0.1, 0.4, 0.7]),
        ({"type": "float", "low": 0.1, "high": 0.7, "step": 0.2}, [0.1, 0.3, 0.5, 0.7]),
        ({"type": "int", "low": 1, "high": 100, "log": True, "points": 3}, [1, 10, 100]),
        ({"type": "int", "low": 1, "high": 3, "points": 9}, [1, 2, 3]),
        ({"type": "int", "low": 1, "high": 3}, [1, 2, 3]),
        ({"type": "categorical", "choices": ["b", "a"]}, ["b", "a"]),
    ],
)
def test_grid_of_one_parameter(parameter, values):
    space = space_of({"optim.lr": parameter})
    grid = [point["optim.lr"] for point in space.grid()]
    assert grid == pytest.approx(values) if parameter["type"] == "float" else grid == values
    assert all(space.point_of(point) == point for point in space.grid())


@pytest.mark.parametrize("kind", ["float", "int"])
def test_continuous_range_has_no_grid(kind):
    with pytest.raises(UserError, match=r"a grid needs points \(or step\) for the continuous range of optim.lr"):
        space_of({"optim.lr": {"type": kind, "low": 1, "high": 9, "log": True}}).grid()


@pytest.mark.parametrize(
    ("settings", "point"),
    [
        ({"loss.name": "si", "bins.n_bins": 99}, {"loss.name": "si"}),
        ({"loss.name": "tie_kd", "bins.n_bins": 32}, {"bins.n_bins": 32, "loss.name": "tie_kd"}),
        ({"loss.name": "tie_kd", "bins.n_bins": 24}, None),
        ({"loss.name": "tie_kd", "bins.n_bins": 16, "loss.alpha": 1.5}, None),
        ({"loss.name": "tie_kd", "bins.n_bins": 16, "loss.alpha": None}, None),
        ({"loss.name": "mse"}, None),
    ],
)
def test_point_of_settings_or_none_outside_the_space(settings, point):
    assert space_of(CHAIN).point_of(settings) == point


def test_every_drawn_point_is_in_the_space(points):
    space = SearchSpace.model_validate({"parameters": PARAMETERS})
    assert all(space.point_of(point) == point for point in points)


# -- packaged spaces -----------------------------------------------------------------------------------------------------------

BASES = {"alpha.yaml": ("tie_kd",), "loss.yaml": ("tie_kd",)}
PARTS = {"loss-weights.yaml": {"si": {"target": "ground_truth"}, "l_dpm": {"weight": 0.1}, "gradient": {}}}


@pytest.mark.parametrize("path", sorted(SPACES_FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_corners_of_every_packaged_space_are_valid_configs(path, tiny):
    names = [{"name": name} for name in BASES.get(path.name, ("tie_kd", "l_dpm"))]
    for loss in [{"parts": PARTS[path.name]}] if path.name in PARTS else names:
        base = build(tiny | {"loss": loss})
        space = load_space(path.name).for_base(base.document())
        points = corners(space).grid()
        assert len({override(base, point).fingerprint() for point in points}) == len(points)  # the run reads each of them
        assert space.grid()


def corners(space):
    """Return the space with only the ends of its ranges."""
    parameters = space.model_dump()["parameters"]
    for parameter in parameters.values():
        if parameter["type"] != "categorical":
            parameter |= {"points": 2, "step": 1 if parameter["type"] == "int" else None}
    return space_of(parameters)


@pytest.mark.parametrize("name", ["temperature.yaml", "sigma.yaml", "alpha.yaml", "bins.yaml"])
def test_single_parameter_spaces_agree_with_the_dpm_space(name):
    together = load_space("dpm.yaml").parameters
    for path, parameter in load_space(name).parameters.items():
        alone, shared = parameter.model_dump(), together[path].model_dump()
        assert {**alone, "points": None} == {**shared, "points": None}


def test_weights_of_parts_are_no_parameters_of_a_base_without_them(tiny):
    with pytest.raises(UserError, match=r"no such setting: unknown 'loss\.parts\.l_dpm\.weight'"):
        load_space("loss-weights.yaml").for_base(build(tiny | {"loss": {"name": "l_dpm"}}).document())
