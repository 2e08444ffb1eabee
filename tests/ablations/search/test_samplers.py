"""Every sampler on made-up functions: what it draws, and what it refuses."""

import math

import optuna
import pytest

from ablations.planning.study import SearchConfig
from ablations.search.optuna_storage import open_study, remaining_points
from ablations.search.samplers import SAMPLERS, check_sampler
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
    return SearchConfig(space="made-up.yaml", sampler=sampler, trials=TRIALS, **settings)


def bowl(point):
    """Lowest, 0, at temperature 0.1 and alpha 0.75 in one space, and at 16 bins with alpha 0.75 in the other."""
    sharpness = abs(math.log10(point.get("loss.temperature", 0.1)) + 1)
    return sharpness + abs(point.get("loss.alpha", 0.0) - 0.75) + abs(point.get("bins.n_bins", 16) - 16) / 16


def draw(study, space, search, trials):
    """The points of so many trials, as the searcher asks for them."""
    points = []
    grid = remaining_points(study, space.grid()) if search.sampler == "grid" else []
    for _ in range(trials):
        if search.sampler == "grid":
            study.enqueue_trial(grid.pop(0))
        trial = study.ask()
        points.append(space.suggest(trial))
        study.tell(trial, [bowl(points[-1])] + [float(len(points[-1]))] * (len(search.objectives) - 1))
    return points


@pytest.fixture
def study():
    """Open a study of that name, or open it again."""
    storage = optuna.storages.InMemoryStorage()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def make(search, name="a"):
        return open_study(name, storage, search)

    return make


def cases():
    """Every sampler with every space and number of objectives that it takes."""
    for name in SAMPLERS:
        for kind, parameters in SPACES.items():
            for objectives in (["abs_rel"], ["abs_rel", "parameters"]):
                search = search_of(name, objectives=objectives)
                if not SAMPLERS[name].objection(search, space_of(parameters)):
                    yield pytest.param(search, space_of(parameters), id=f"{name}-{kind}-{len(objectives)}")


@pytest.mark.parametrize(("search", "space"), list(cases()))
def test_a_sampler_draws_points_of_its_space_without_a_word(search, space, study, capfd):
    trials = min(TRIALS, len(space.grid()))
    points = draw(study(search), space, search, trials)
    assert all(space.read(point) == point for point in points)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_comes_near_the_best_point(sampler, study):
    search, space = search_of(sampler), space_of(NUMBERS)
    points = draw(study(search), space, search, min(TRIALS, len(space.grid())))
    # A fixed seed: a quarter of random points in this space lie within 0.75.
    assert min(map(bowl, points)) < 0.35


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_repeats_itself_but_not_in_a_resumed_search(sampler, study):
    search, space = search_of(sampler), space_of(NUMBERS)
    first, second = (draw(study(search, name), space, search, 3) for name in "ab")
    assert first == second
    assert draw(study(search, "a"), space, search, 3) != first


def test_a_grid_that_went_on_has_each_point_once(study):
    search, space = search_of("grid"), space_of(MIXED)
    points = draw(study(search), space, search, 7) + draw(study(search), space, search, len(space.grid()) - 7)
    assert sorted(points, key=str) == sorted(space.grid(), key=str)
    assert remaining_points(study(search), space.grid()) == []


def test_genetic_search_finds_the_front_of_two_objectives(study):
    search = search_of("nsgaii", objectives=["abs_rel", "parameters"])
    made_up = study(search)
    draw(made_up, space_of(MIXED), search, TRIALS)
    assert {t.values[1] for t in made_up.best_trials} == {2.0, 3.0}  # fewer parameters against a lower bowl


@pytest.mark.parametrize(
    ("settings", "parameters", "message"),
    [
        (
            {"sampler": "cmaes"},
            MIXED,
            "cmaes adapts numbers that are always active, and loss.name is categorical or conditional",
        ),
        ({"sampler": "cmaes", "objectives": ["abs_rel", "rmse"]}, NUMBERS, "cmaes has one objective, got abs_rel, rmse; for"),
        ({"sampler": "nsgaii", "trials": 10}, NUMBERS, "nsgaii draws its first generation of 10 at random, and 10 trials end"),
        (
            {"sampler": "grid"},
            {"loss.alpha": {"type": "float", "low": 0, "high": 1}},
            r"grid a grid needs points \(or step\) for the continuous range of loss.alpha",
        ),
    ],
)
def test_what_a_sampler_cannot_do_is_refused_in_one_line(settings, parameters, message):
    search = SearchConfig(space="made-up.yaml", **{"trials": TRIALS, **settings})
    with pytest.raises(UserError, match=f"search.sampler: {message}") as caught:
        check_sampler(search, space_of(parameters))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"grid"}))
def test_only_a_grid_ends_by_itself(sampler):
    space = space_of(NUMBERS)
    with pytest.raises(UserError, match=f"search: {sampler} goes on for ever without trials or hours"):
        check_sampler(SearchConfig(space="made-up.yaml", sampler=sampler), space)
    check_sampler(SearchConfig(space="made-up.yaml", sampler=sampler, hours=1), space)
    check_sampler(SearchConfig(space="made-up.yaml", sampler="grid"), space)


def test_the_choices_of_a_study_are_those_there_are():
    assert set(SearchConfig.model_fields["sampler"].annotation.__args__) == set(SAMPLERS)


def test_points_left_are_those_that_no_trial_has_had_nor_waits_to_have():
    """What `points_left` counts as had: ended trials, failures with a cause, and points that wait; not a dead launch's."""
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
