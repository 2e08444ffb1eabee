"""The searcher between Tune and Optuna, without a cluster."""

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from ablations.searchers import SAMPLERS, SCHEDULERS, OptunaSearcher, open_study
from ablations.study import SearchConfig
from search_spaces.space import Space

SPACE = Space.model_validate({"parameters": {"loss.sigma": {"type": "float", "low": 0.1, "high": 1.0}}})


@pytest.fixture
def study():
    return optuna.create_study()


@pytest.fixture
def searcher(study):
    """With one trial asked for, "t"."""
    searcher = OptunaSearcher(study, SPACE, "abs_rel", "min", budget=2)
    searcher.suggest("t")
    return searcher


def result(epoch, abs_rel=None, state=None, **more):
    metrics = {} if abs_rel is None else {"abs_rel": abs_rel}
    return {"epoch": epoch, "run_id": "0123", **metrics, **({} if state is None else {"state": state}), **more}


def test_points_are_of_the_space_and_end_with_the_budget(study):
    searcher = OptunaSearcher(study, SPACE, "abs_rel", "min", budget=2)
    points = [searcher.suggest(name) for name in ("a", "b", "c")]
    assert [set(point["point"]) for point in points[:2]] == [{"loss.sigma"}] * 2
    assert points[2] == Searcher.FINISHED
    assert [trial.params for trial in study.trials] == [point["point"] for point in points[:2]]


def test_a_done_trial_is_complete_with_its_last_value(study, searcher):
    searcher.on_trial_result("t", result(1, 0.5))
    searcher.on_trial_result("t", result(2))  # not validated
    searcher.on_trial_complete("t", result(3, 0.3, "done"))
    (trial,) = study.trials
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.COMPLETE, 0.3, {1: 0.5})
    assert trial.user_attrs == {"run_id": "0123", "epoch": 3}


def test_a_stopped_trial_is_pruned_at_the_value_that_stopped_it(study, searcher):
    searcher.on_trial_result("t", result(1, 0.5))
    searcher.on_trial_complete("t", result(2, 0.4))  # Tune gives the stopping result only here
    (trial,) = study.trials
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {1: 0.5, 2: 0.4})


@pytest.mark.parametrize("state", ["failed", "diverged", "constant"])
def test_a_trial_without_a_number_fails_with_its_cause(study, searcher, state):
    searcher.on_trial_complete("t", result(3, None, state, cause="why"))
    (trial,) = study.trials
    assert (trial.state, trial.user_attrs["cause"]) == (TrialState.FAIL, "why")


def test_a_trial_whose_process_died_fails(study, searcher):
    searcher.on_trial_result("t", result(1, 0.5))
    searcher.on_trial_complete("t", None, error=True)
    (trial,) = study.trials
    assert (trial.state, trial.user_attrs["cause"]) == (TrialState.FAIL, "the trial's process died")


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path}/optuna.db"


def test_running_trials_of_a_dead_launch_are_failed_and_asked_for_again(storage):
    search = SearchConfig(space="dpm.yaml")
    before = open_study("demo", storage, search)
    points = [SPACE.suggest(before.ask()) for _ in range(2)]
    after = open_study("demo", storage, search)
    assert [trial.state for trial in after.trials] == [TrialState.FAIL] * 2 + [TrialState.WAITING] * 2
    assert [SPACE.suggest(after.ask()) for _ in range(2)] == points


@pytest.mark.parametrize(("objective", "direction"), [("abs_rel", "MINIMIZE"), ("delta1", "MAXIMIZE")])
def test_the_direction_is_the_objectives(storage, objective, direction):
    assert open_study("demo", storage, SearchConfig(space="dpm.yaml", objective=objective)).direction.name == direction


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_repeats_itself_but_not_in_a_resumed_search(tmp_path, sampler):
    search = SearchConfig(space="dpm.yaml", sampler=sampler)
    first, second = (open_study("demo", f"sqlite:///{tmp_path}/{name}.db", search) for name in "ab")
    drawn = [SPACE.suggest(study.ask()) for study in (first, second)]
    assert drawn[0] == drawn[1]
    first.tell(0, 1.0)
    assert SPACE.suggest(open_study("demo", f"sqlite:///{tmp_path}/a.db", search).ask()) != drawn[0]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_can_be_built(scheduler):
    search = SearchConfig(space="dpm.yaml", scheduler=scheduler, grace_epochs=9)
    assert (SCHEDULERS[scheduler](search, epochs=3) is None) == (scheduler == "none")


def test_the_choices_of_a_study_are_those_there_are():
    fields = SearchConfig.model_fields
    assert set(fields["sampler"].annotation.__args__) == set(SAMPLERS)
    assert set(fields["scheduler"].annotation.__args__) == set(SCHEDULERS)
