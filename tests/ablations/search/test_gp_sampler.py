"""The Gaussian process, whose draws follow from the trials."""

import pickle

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from ablations.planning.search_config import SearchConfig
from ablations.search.gp_sampler import STARTUP
from ablations.search.optuna_storage import open_storage, open_study, optuna_params, storage_url
from search_spaces.space import SearchSpace
from tiekd.store.run_store import RunStore

SEARCH = SearchConfig(space="made-up.yaml", sampler="gp", trials=20)
CONSTRAINED = SEARCH.model_copy(update={"constraints": ["parameters <= 1"]})


def space_of(high: float = 10.0) -> SearchSpace:
    return SearchSpace.model_validate(
        {
            "parameters": {
                "loss.sigma": {"type": "float", "low": 0.1, "high": high, "log": True},
                "bins.n_bins": {"type": "int", "low": 32, "high": 64, "step": 16},
                "optim.betas": {"type": "categorical", "choices": [[0.9, 0.99], [0.95, 0.99]]},
            }
        }
    )


def value(point: dict) -> float:
    return abs(point["loss.sigma"] - 1) + (point["optim.betas"] == [0.9, 0.99]) + point["bins.n_bins"] / 64


def add(study: optuna.Study, space: SearchSpace, trials: int = 1) -> list[dict]:
    points = []
    for _ in range(trials):
        trial = study.ask()
        points.append(space.suggest(trial))
        study.tell(trial, value(points[-1]))
    return points


@pytest.fixture
def study() -> optuna.Study:
    """A study whose next draws come from the process."""
    made = open_study("demo", optuna.storages.InMemoryStorage(), SEARCH, space_of())
    add(made, space_of(), STARTUP)
    return made


def test_points_are_in_the_space_and_better_than_random_ones(study):
    points = add(study, space_of(), 6)
    assert all(space_of().point_of(point) == point for point in points)
    random = sorted(trial.value for trial in study.trials[:STARTUP])
    assert sorted(map(value, points))[2] < random[0]


def test_running_trials_are_not_drawn_again(study):
    points = [space_of().suggest(study.ask()) for _ in range(3)]
    assert [trial.state for trial in study.trials[STARTUP:]] == [TrialState.RUNNING] * 3
    assert len({str(point) for point in points}) == 3


def test_trials_are_learned_from_after_a_range_has_changed():
    """Optuna's own sampler would draw that parameter at random: one of six random points is so near the best one."""
    storage = optuna.storages.InMemoryStorage()
    add(open_study("demo", storage, SEARCH, space_of()), space_of(), STARTUP)
    smaller, space = open_study("demo", storage, SEARCH, space_of(high=6.0)), space_of(high=6.0)
    add(smaller, space, STARTUP - sum(trial.params["loss.sigma"] <= 6 for trial in smaller.trials))
    assert sum(0.6 < point["loss.sigma"] < 1.2 for point in add(smaller, space, 6)) >= 5


def test_point_that_was_not_trained_counts_for_its_constraint_only():
    """Half of the space costs too much, and nothing else is known about it."""
    study, space = open_study("demo", optuna.storages.InMemoryStorage(), CONSTRAINED, space_of()), space_of()
    for _ in range(STARTUP + 6):
        trial = study.ask()
        point = space.suggest(trial)
        trial.set_constraint("parameters <= 1", 1.0 if point["loss.sigma"] < 1.5 else -1.0)
        study.tell(trial, **({"state": TrialState.PRUNED} if point["loss.sigma"] < 1.5 else {"values": value(point)}))
    states = [trial.state for trial in study.trials]
    assert TrialState.PRUNED in states[:STARTUP]
    assert states[STARTUP:].count(TrialState.COMPLETE) >= 4
    assert min(trial.value for trial in study.trials[STARTUP:] if trial.values) <= min(
        trial.value for trial in study.trials[:STARTUP] if trial.values
    )


def test_several_objectives_and_constraints():
    search = CONSTRAINED.model_copy(update={"objectives": ["abs_rel", "milliseconds"]})
    study, space = open_study("demo", optuna.storages.InMemoryStorage(), search, space_of()), space_of()
    for _ in range(STARTUP + 3):
        trial = study.ask()
        point = space.suggest(trial)
        trial.set_constraint("parameters <= 1", point["bins.n_bins"] - 48)
        study.tell(trial, [value(point), 1 / point["loss.sigma"]])
    assert all(space.point_of(space.suggest(study.ask())) for _ in range(2))
    assert all(trial.constraints["parameters <= 1"] <= 0 for trial in study.best_trials)


class Payload:
    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


def test_no_pickle_is_read_from_or_written_to_the_database(tmp_path):
    (tmp_path / "studies/demo").mkdir(parents=True)
    url, space = storage_url(None, RunStore(tmp_path), "demo"), space_of()
    planted = {name: pickle.dumps(Payload()).hex() for name in ("gp:gprs_cache", "gp:relative_params:0", "gp:optimizer")}
    with open_storage(url) as storage:
        study = open_study("demo", storage, SEARCH, space)
        add(study, space, STARTUP + 1)
        assert {key for trial in study.trials for key in trial.system_attrs} == set()
        point = {"loss.sigma": 1.0, "bins.n_bins": 32, "optim.betas": [0.9, 0.99]}
        distributions = study.trials[-1].distributions
        for state, values in ((TrialState.COMPLETE, [1.0]), (TrialState.RUNNING, None)):
            attrs = {"params": optuna_params(point), "distributions": distributions, "system_attrs": planted}
            study.add_trial(create_trial(state=state, values=values, **attrs))
    with open_storage(url) as storage:
        add(open_study("demo", storage, SEARCH, space), space, 2)
