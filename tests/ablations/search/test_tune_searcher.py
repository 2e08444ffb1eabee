"""The searcher between Tune and Optuna, without a cluster."""

import pickle

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import ConcurrencyLimiter, Searcher

from ablations.monitor.study_progress import CellProgress
from ablations.monitor.terminal import ended_line
from ablations.planning.search_config import SearchConfig
from ablations.search.optuna_storage import (
    budget_used,
    get_trials,
    is_infeasible,
    open_storage,
    open_study,
    requeue_interrupted,
    trial_point,
)
from ablations.search.tune_searcher import INTERRUPTED, Budget, OptunaSearcher
from search_spaces.space import SearchSpace

SIGMA = {"type": "float", "low": 0.1, "high": 1.0, "points": 4}
SPACE = SearchSpace.model_validate({"parameters": {"loss.sigma": SIGMA}})


def search_of(**settings):
    return SearchConfig(space="made-up.yaml", **settings)


@pytest.fixture
def study():
    return optuna.create_study()


@pytest.fixture
def searcher(study):
    """A searcher that has suggested one trial, "t"."""
    searcher = OptunaSearcher(study, SPACE, search_of(), Budget(2))
    searcher.suggest("t")
    return searcher


def result(epoch, abs_rel=None, state=None, **more):
    metrics = {} if abs_rel is None else {"abs_rel": abs_rel}
    metrics |= {"by_seed": [[abs_rel]]} if state == "done" else {}
    told = {"epoch": epoch, "run_id": "0123", "run_ids": ["0123"]}
    return told | metrics | ({} if state is None else {"state": state}) | more


def test_suggested_points_are_in_the_space_and_end_with_the_budget(study):
    searcher = OptunaSearcher(study, SPACE, search_of(), Budget(2))
    points = [searcher.suggest(name) for name in ("a", "b", "c")]
    assert [set(point["point"]) for point in points[:2]] == [{"loss.sigma"}] * 2
    assert points[2] == Searcher.FINISHED
    assert [trial.params for trial in study.trials] == [point["point"] for point in points[:2]]


@pytest.mark.parametrize(("limit", "drawn"), [(100, 3), (2, 2)])
def test_no_point_is_drawn_before_it_is_wanted(study, limit, drawn):
    """With three slots: a point drawn later knows more results."""
    searcher = ConcurrencyLimiter(OptunaSearcher(study, SPACE, search_of(), Budget(5), wanted=lambda: 3), limit)
    assert [bool(searcher.suggest(str(number))) for number in range(5)] == [number < drawn for number in range(5)]
    searcher.on_trial_complete("0", result(1, 0.5, "done"))
    assert searcher.suggest("5")
    assert not searcher.suggest("6")
    assert len(study.trials) == drawn + 1


def test_no_trial_begins_after_the_time_budget(study):
    assert OptunaSearcher(study, SPACE, search_of(), Budget(None, ends=0.0)).suggest("a") == Searcher.FINISHED
    assert study.trials == []


def test_done_trial_is_complete_with_its_last_value(study, searcher):
    searcher.on_trial_result("t", result(1, 0.5))
    searcher.on_trial_result("t", result(2))  # not validated
    searcher.on_trial_complete("t", result(3, 0.3, "done"))
    (trial,) = study.trials
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.COMPLETE, 0.3, {1: 0.5})
    assert trial.user_attrs == {"run_id": "0123", "run_ids": ["0123"], "epoch": 3, "by_seed": {"abs_rel": [0.3]}}


def test_stopped_trial_is_pruned_with_the_value_that_stopped_it(study, searcher):
    searcher.on_trial_result("t", result(1, 0.5))
    searcher.on_trial_complete("t", result(2, 0.4))  # Tune gives the stopping result only here
    (trial,) = study.trials
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {1: 0.5, 2: 0.4})


def test_trial_that_ends_without_a_state_is_pruned_with_its_last_value(study, searcher):
    searcher.on_trial_result("t", result(3, 0.5))
    searcher.on_trial_complete("t", result(3, 0.5, cause="no gain to expect after 3 of 6 seeds"))
    (trial,) = study.trials
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {3: 0.5})


@pytest.mark.parametrize("state", ["failed", "diverged", "constant"])
def test_trial_without_a_value_fails_with_its_cause(study, searcher, state):
    searcher.on_trial_complete("t", result(3, None, state, cause="why"))
    (trial,) = study.trials
    assert (trial.state, trial.user_attrs["cause"]) == (TrialState.FAIL, "why")


@pytest.mark.parametrize("trained", [True, False])
def test_trial_that_violates_a_constraint_keeps_how_far(study, trained):
    """One that was not trained is pruned, so that samplers learn about its point without a value."""
    search = search_of(constraints=["parameters <= 200", "rmse <= 4"])
    searcher = OptunaSearcher(study, SPACE, search, Budget(2))
    searcher.suggest("t")
    known = {"rmse": 3.0, "by_seed": [[0.3]]} if trained else {}
    cause = {"cause": "parameters 300, limit 200"}
    searcher.on_trial_complete("t", result(2, 0.3 if trained else None, "infeasible", parameters=300, **known, **cause))
    (trial,) = study.trials
    assert (trial.state, trial.value) == ((TrialState.COMPLETE, 0.3) if trained else (TrialState.PRUNED, None))
    assert trial.constraints == {"parameters <= 200": 0.5} | ({"rmse <= 4": -0.25} if trained else {})
    assert trial.user_attrs["cause"] == cause["cause"]
    assert is_infeasible(trial)
    assert budget_used(study) == 1


def test_trial_whose_process_died_fails(study, searcher):
    searcher.on_trial_result("t", result(1, 0.5))
    searcher.on_trial_complete("t", None, error=True)
    (trial,) = study.trials
    assert (trial.state, trial.user_attrs["cause"]) == (TrialState.FAIL, "the trial's process died")


def test_trials_stopped_with_the_launch_are_repeated(study):
    searcher = OptunaSearcher(study, SPACE, search_of(), Budget(2), is_stopping=lambda: True)
    stopped, failed = (searcher.suggest(name)["point"] for name in "ab")
    searcher.on_trial_complete("a", result(1, 0.5))
    searcher.on_trial_complete("b", result(2, None, "failed", cause="why"))
    requeue_interrupted(study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.FAIL, TrialState.WAITING]
    assert budget_used(study) == 1
    assert trial_point(study.trials[2]) == stopped != failed


@pytest.mark.parametrize("end", [{"store_error": "cannot write"}, {"state": "running"}, {"state": "waiting"}])
def test_interrupted_trial_is_repeated(study, searcher, end):
    searcher.on_trial_result("t", result(1, 0.5))
    searcher.on_trial_complete("t", end)
    requeue_interrupted(study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert budget_used(study) == 0


@pytest.mark.parametrize("state", INTERRUPTED)
def test_interrupted_trial_has_a_line_in_the_display(state):
    line = ended_line(CellProgress("sigma=0.5", state=state, cause="the time budget is spent"), "abs_rel").plain
    assert state in line
    assert line.endswith("sigma=0.5  the time budget is spent")


def test_several_objectives_have_no_intermediate_values():
    study = optuna.create_study(directions=["minimize", "maximize"])
    searcher = OptunaSearcher(study, SPACE, search_of(objectives=["abs_rel", "delta1"]), Budget(2))
    for name in "ab":
        searcher.suggest(name)
        searcher.on_trial_result(name, result(1, 0.5, delta1=0.8))
    searcher.on_trial_complete("a", result(2, 0.3, "done", delta1=0.9, by_seed=[[0.3], [0.9]]))
    searcher.on_trial_complete("b", result(2, 0.4, delta1=0.7))
    done, stopped = study.trials
    assert (done.state, done.values, done.user_attrs["by_seed"]) == (
        TrialState.COMPLETE,
        [0.3, 0.9],
        {"abs_rel": [0.3], "delta1": [0.9]},
    )
    assert (stopped.state, stopped.user_attrs["epoch"]) == (TrialState.PRUNED, 2)


def test_pickled_searcher_does_not_contain_the_database_url(tmp_path):
    with open_storage(f"sqlite:///{tmp_path}/not-a-secret.db") as storage:
        searcher = OptunaSearcher(open_study("demo", storage, search_of(), SPACE), SPACE, search_of(), Budget(2))
        assert b"not-a-secret" not in pickle.dumps(searcher)


# -- grids ---------------------------------------------------------------------------------------------------------------------

GRID = SearchSpace.model_validate(
    {"parameters": {"loss.sigma": SIGMA, "bins.n_bins": {"type": "int", "low": 8, "high": 9, "when": {"loss.sigma": [1.0]}}}}
)


def grid_searcher(study, **limits):
    return OptunaSearcher(study, GRID, search_of(sampler="grid"), Budget(limits.get("trials")))


def run_all(searcher):
    """Request and finish trials until there are no more, and return their points."""
    points = []
    while (suggested := searcher.suggest(str(len(points)))) != Searcher.FINISHED:
        points.append(suggested["point"])
        searcher.on_trial_complete(str(len(points) - 1), result(3, 0.5, "done"))
    return points


def test_grid_has_every_point_once_after_a_killed_launch(study):
    first = grid_searcher(study)
    ended = first.suggest("a")["point"]
    first.on_trial_complete("a", result(3, 0.5, "done"))
    running = [first.suggest(name)["point"] for name in "bc"]
    requeue_interrupted(study)  # as the next launch does, because "b" and "c" were interrupted
    points = run_all(grid_searcher(study))
    assert points[:2] == running
    assert sorted([ended, *points], key=str) == sorted(GRID.grid(), key=str)
    assert not get_trials(study, TrialState.RUNNING, TrialState.WAITING)
    assert budget_used(study) == len(GRID.grid()) == 5
    assert run_all(grid_searcher(study)) == []


def test_grid_stops_at_its_budget_and_leaves_no_trial_waiting(study):
    assert run_all(grid_searcher(study, trials=2)) == GRID.grid()[:2]
    assert not get_trials(study, TrialState.WAITING)
    assert run_all(grid_searcher(study, trials=9)) == GRID.grid()[2:]
