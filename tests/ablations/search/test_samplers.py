"""The contract of every sampler, on made-up functions: what it draws, and what it refuses."""

import math
import pkgutil

import optuna
import pytest
from ray.tune.search import Searcher

from ablations.planning.constraints import violated
from ablations.planning.search_config import SAMPLERS, SamplerSpec, SearchConfig
from ablations.search.optuna_storage import open_study, remaining_points
from ablations.search.prepared_search import SearchOptions, prepare_search
from ablations.search.results import collect_results
from ablations.search.samplers import build_sampler
from ablations.search.tune_searcher import Budget, OptunaSearcher
from search_spaces.space import SearchSpace
from tiekd.errors import UserError

NUMBERS = {
    "loss.temperature": {"type": "float", "low": 0.01, "high": 10.0, "log": True, "points": 7},
    "loss.alpha": {"type": "float", "low": 0.0, "high": 1.0, "points": 5},
}
MIXED = {
    "loss.name": {"type": "categorical", "choices": ["tie_kd", "si"]},
    "loss.alpha": NUMBERS["loss.alpha"] | {"when": {"loss.name": ["tie_kd"]}},
    "bins.n_bins": {"type": "int", "low": 8, "high": 32, "step": 8},
}
SPACES = {"numbers": NUMBERS, "mixed": MIXED}
TRIALS = 40


def space_of(parameters):
    return SearchSpace.model_validate({"parameters": parameters})


def search_of(sampler, **settings):
    return SearchConfig(space="made-up.yaml", sampler=sampler, **{"trials": TRIALS, **settings})


def bowl(point):
    """Return an objective with the minimum 0 at temperature 0.1 (one space) or 16 bins (the other), and alpha 0.75."""
    sharpness = abs(math.log10(point.get("loss.temperature", 0.1)) + 1)
    return sharpness + abs(point.get("loss.alpha", 0.0) - 0.75) + abs(point.get("bins.n_bins", 16) - 16) / 16


def run_search(study, space, search, trials):
    """Run trials with simulated results through the searcher that Tune calls, and return their points."""
    searcher, points = OptunaSearcher(study, space, search, Budget(trials)), []
    while (suggested := searcher.suggest(str(len(points)))) != Searcher.FINISHED:
        trial_id, point = str(len(points)), suggested["point"]
        values = dict(zip(search.objectives, (bowl(point), float(len(point))), strict=False))
        result = {"run_id": trial_id, "run_ids": [trial_id], "epoch": 1, "parameters": point.get("loss.temperature"), **values}
        searcher.on_trial_result(trial_id, result)
        cause = violated(search.bounds, result)
        ended = {"state": "infeasible" if cause else "done", "cause": cause, "by_seed": [[v] for v in values.values()]}
        searcher.on_trial_complete(trial_id, {**result, **ended})
        points.append(point)
    return points


@pytest.fixture
def study():
    """Open a study of that name, or open it again."""
    storage = optuna.storages.InMemoryStorage()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def make(search, space, name="a"):
        return open_study(name, storage, search, space)

    return make


def supported_cases():
    """Every sampler with every space and number of objectives that it supports."""
    for name in SAMPLERS:
        for kind, parameters in SPACES.items():
            for objectives in (["abs_rel"], ["abs_rel", "parameters"]):
                search, space = search_of(name, objectives=objectives), space_of(parameters)
                try:
                    build_sampler(search, space, seed=0)
                except UserError:
                    continue
                yield pytest.param(search, space, id=f"{name}-{kind}-{len(objectives)}")


@pytest.mark.parametrize("name", SAMPLERS)
def test_entry_is_complete(name):
    spec = SAMPLERS[name]
    assert spec.label
    assert spec.description.endswith(".")
    assert "\n" not in spec.description
    assert callable(pkgutil.resolve_name(spec.build))


@pytest.mark.parametrize(("search", "space"), list(supported_cases()))
def test_sampler_draws_points_of_its_space_and_prints_nothing(search, space, study, capfd):
    trials = min(TRIALS, len(space.grid()))
    made_up = study(search, space)
    points = run_search(made_up, space, search, trials)
    assert len(points) == trials
    assert all(space.point_of(point) == point for point in points)
    assert {trial.state.name for trial in made_up.trials} == {"COMPLETE"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_supports_numbers_and_one_objective(sampler):
    build_sampler(search_of(sampler), space_of(NUMBERS), seed=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampler_comes_near_the_best_point(sampler, study):
    search, space = search_of(sampler), space_of(NUMBERS)
    points = run_search(study(search, space), space, search, min(TRIALS, len(space.grid())))
    # A fixed seed: a quarter of random points in this space lie within 0.75.
    assert min(map(bowl, points)) < 0.35


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampler_is_deterministic_but_does_not_repeat_points_after_a_resume(sampler, study):
    search, space = search_of(sampler), space_of(NUMBERS)
    first, second = (run_search(study(search, space, name), space, search, 3) for name in "ab")
    assert first == second
    assert run_search(study(search, space, "a"), space, search, 3) != first


def test_resumed_grid_has_each_point_once(study):
    search, space = search_of("grid"), space_of(MIXED)
    points = [p for trials in (7, len(space.grid()) - 7) for p in run_search(study(search, space), space, search, trials)]
    assert sorted(points, key=str) == sorted(space.grid(), key=str)
    assert remaining_points(study(search, space), space.grid()) == []


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsgaii"])
def test_sampler_learns_from_constraints(sampler, study):
    """The best point, at temperature 0.1, is infeasible: what is drawn after the first trials keeps to 0.3 and above."""
    search, space = search_of(sampler, constraints=["parameters >= 0.3"]), space_of(NUMBERS)

    def feasible(points):
        return sum(point["loss.temperature"] >= 0.3 for point in points) / len(points)

    made_up = study(search, space)
    points = run_search(made_up, space, search, TRIALS)
    assert feasible(points[20:]) > max(feasible(points[:10]), 0.6)
    assert min(point["loss.temperature"] for point in feasible_points(made_up)) >= 0.3


def feasible_points(study):
    return [trial["params"] for trial in collect_results(study, search_of("tpe")).best]


def test_several_objectives_have_the_default_sampler_of_optuna(study):
    """TPE with a model of its own for each parameter."""
    search = search_of("tpe", objectives=["abs_rel", "parameters"])
    made_up, theirs = study(search, space_of(NUMBERS)), optuna.create_study(directions=["minimize"] * 2).sampler
    assert type(made_up.sampler) is type(theirs)
    for single, expected in ((search, {}), (search_of("tpe"), {"loss.temperature", "loss.alpha"})):
        made_up = study(single, space_of(NUMBERS), str(len(expected)))
        run_search(made_up, space_of(NUMBERS), single, 12)
        frozen = made_up.trials[-1]
        assert set(made_up.sampler.infer_relative_search_space(made_up, frozen)) == set(expected)


def test_nsgaii_finds_the_front_of_two_objectives(study):
    search, space = search_of("nsgaii", objectives=["abs_rel", "parameters"]), space_of(MIXED)
    made_up = study(search, space)
    run_search(made_up, space, search, TRIALS)
    assert {t.values[1] for t in made_up.best_trials} == {2.0, 3.0}  # fewer parameters against a lower bowl


@pytest.mark.parametrize(
    ("settings", "parameters", "message"),
    [
        (
            {"sampler": "cmaes"},
            MIXED,
            "search.sampler: cmaes supports only numeric parameters that are always active, but loss.name is categorical or",
        ),
        (
            {"sampler": "cmaes", "objectives": ["abs_rel", "rmse"]},
            NUMBERS,
            "search.sampler: cmaes supports one objective, got abs_rel, rmse; for several: tpe",
        ),
        (
            {"sampler": "cmaes", "constraints": ["parameters <= 5e6"]},
            NUMBERS,
            "search.sampler: cmaes supports no constraints, got parameters <= 5000000; tpe, gp and nsgaii do",
        ),
        (
            {"sampler": "gp"},
            MIXED,
            "search.sampler: gp supports only parameters that are always active, but loss.alpha is conditional; tpe",
        ),
        (
            {"sampler": "gp", "trials": 10},
            NUMBERS,
            "search.sampler: gp draws its first 10 trials at random and needs more, got 10 trials",
        ),
        (
            {"sampler": "nsgaii", "trials": 10},
            NUMBERS,
            "search.sampler: nsgaii draws its first 10 trials at random and needs more, got 10 trials",
        ),
        (
            {"sampler": "grid"},
            {"loss.alpha": {"type": "float", "low": 0, "high": 1}},
            r"search space: a grid needs points \(or step\) for the continuous range of loss.alpha",
        ),
    ],
)
def test_unsupported_search_is_refused_in_one_line(settings, parameters, message):
    with pytest.raises(UserError, match=message) as caught:
        build_sampler(search_of(**settings), space_of(parameters), seed=0)
    assert "\n" not in str(caught.value)


TOY = '''
"""A sampler of a user."""

from optuna.samplers import RandomSampler

from tiekd.errors import UserError


def build_toy(search, space, seed):
    if len(search.objectives) > 1:
        raise UserError("search.sampler: toy supports one objective")
    return RandomSampler(seed=seed)
'''


def test_sampler_is_added_with_one_function_and_one_entry(tmp_path, monkeypatch, study, study_file):
    (tmp_path / "toy_sampler.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = SamplerSpec(label="Toy", description="Draws points at random.", build="toy_sampler:build_toy")
    monkeypatch.setitem(SAMPLERS, "toy", spec)
    test_entry_is_complete("toy")
    search, space = search_of("toy"), space_of(NUMBERS)
    assert len(run_search(study(search, space), space, search, 5)) == 5
    store = str(tmp_path / "store")
    block = {"space": "loss.yaml", "sampler": "toy"}
    prepared = prepare_search(study_file(search=block), store, options=SearchOptions(trials=5))
    assert prepared.search.sampler == "toy"
    with pytest.raises(UserError, match="search: toy needs a budget: give trials or hours"):
        prepare_search(study_file(search=block), store)
    with pytest.raises(UserError, match=r"search.sampler: toy supports one objective"):
        prepare_search(study_file(search=block | {"objectives": ["abs_rel", "rmse"]}), store, options=SearchOptions(trials=5))


def test_remaining_points_have_neither_a_trial_nor_a_place_in_the_queue():
    """Ended trials and failures with a cause count; trials of a dead launch do not."""
    study = optuna.create_study()
    space = space_of({"loss.alpha": NUMBERS["loss.alpha"]})
    ended, failed, dead, waiting, left = space.grid()
    for point, state, attrs in (
        (ended, optuna.trial.TrialState.PRUNED, {}),
        (failed, optuna.trial.TrialState.FAIL, {"cause": "why"}),
        (dead, optuna.trial.TrialState.FAIL, {}),
    ):
        distributions = {"loss.alpha": optuna.distributions.FloatDistribution(0, 1)}
        study.add_trial(optuna.trial.create_trial(params=point, distributions=distributions, state=state, user_attrs=attrs))
    study.enqueue_trial(waiting)
    assert remaining_points(study, space.grid()) == [dead, left]
