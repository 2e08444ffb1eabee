"""Finished runs as the first trials of a search: a simulated store with real run ids."""

from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from ablations.planning.search_config import SearchConfig
from ablations.planning.search_point import SeedRuns
from ablations.search.optuna_storage import budget_used, is_infeasible, remaining_points
from ablations.search.warm_start import warm_start
from search_spaces.space import SearchSpace
from tiekd.config import build, override
from tiekd.data.inputs import run_id_of
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

SPACE = {
    "loss.name": {"type": "categorical", "choices": ["tie_kd", "ssim"]},
    "loss.alpha": {"type": "float", "low": 0.0, "high": 1.0, "points": 3, "when": {"loss.name": ["tie_kd"]}},
}
SEEDS = [0, 1]


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path)


@pytest.fixture
def seed_runs(tiny):
    return SeedRuns(tiny | {"loss": {"name": "tie_kd"}}, SEEDS, ["abs_rel"])


@pytest.fixture
def computed(seed_runs, store):
    """Add a run to the store, with these settings over the search's base."""

    def put(value, seed, state="done", **changes):
        changes = {path.replace("__", "."): setting for path, setting in changes.items()}
        config = override(build(seed_runs.base), {"seed": seed, **changes})
        record = store.run(run_id_of(config))
        record.write_config(config)
        record.write_json("summary.json", {"metrics": {"abs_rel": value}})
        record.write_status(Status(state, epochs=2, epoch=2))

    return put


@pytest.fixture
def study():
    return optuna.create_study()


@pytest.fixture
def start(study, seed_runs, store):
    """Warm-start the study, and return how many trials were added."""
    space = SearchSpace.model_validate({"parameters": SPACE}).for_base(build(seed_runs.base).document())
    return lambda: warm_start(study, space, seed_runs, store)


def test_point_with_all_seeds_done_is_a_complete_trial(start, study, computed, store):
    for seed, value in zip(SEEDS, (0.25, 0.75), strict=True):
        computed(value, seed, loss__alpha=0.5)
        computed(value + 1, seed, loss__name="ssim")  # a run of other presets, too
    assert start() == 2
    trials = {trial.params["loss.name"]: trial for trial in study.trials}
    assert trials["tie_kd"].params == {"loss.name": "tie_kd", "loss.alpha": 0.5}
    assert trials["ssim"].params == {"loss.name": "ssim"}
    assert [(t.state, t.value) for t in (trials["tie_kd"], trials["ssim"])] == [
        (TrialState.COMPLETE, 0.5),
        (TrialState.COMPLETE, 1.5),
    ]
    attrs = trials["tie_kd"].user_attrs
    assert (attrs["warm"], attrs["by_seed"], attrs["epoch"]) == (True, {"abs_rel": [0.25, 0.75]}, 4)
    assert {store.run(run_id).read_json("summary.json")["metrics"]["abs_rel"] for run_id in attrs["run_ids"]} == {0.25, 0.75}


def test_finished_points_are_added_once_and_use_no_budget(start, study, computed):
    for seed in SEEDS:
        computed(0.5, seed, loss__alpha=0.5)
    assert (start(), start()) == (1, 0)
    assert budget_used(study) == 0
    left = remaining_points(study, SearchSpace.model_validate({"parameters": SPACE}).grid())
    assert {"loss.name": "tie_kd", "loss.alpha": 0.5} not in left
    assert len(left) == 3


def test_finished_point_that_violates_a_constraint_is_infeasible(study, computed, seed_runs, store):
    for seed in SEEDS:
        computed(0.5, seed, loss__alpha=0.5)
        computed(0.25, seed, loss__alpha=1.0)
    bounds = tuple(SearchConfig(space="made-up.yaml", constraints=["abs_rel <= 0.4", "parameters <= 1e9"]).bounds)
    space = SearchSpace.model_validate({"parameters": SPACE}).for_base(build(seed_runs.base).document())
    assert warm_start(study, space, replace(seed_runs, constraints=bounds), store) == 2
    causes = {trial.params["loss.alpha"]: (trial.user_attrs.get("cause"), is_infeasible(trial)) for trial in study.trials}
    assert causes == {0.5: ("abs_rel 0.5, limit 0.4", True), 1.0: (None, False)}
    assert all(set(trial.constraints) == {"abs_rel <= 0.4", "parameters <= 1000000000"} for trial in study.trials)
    assert all(set(trial.user_attrs["by_seed"]) == {"abs_rel"} for trial in study.trials)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "failed"},  # no number
        {"loss__alpha": 1.0, "optim__lr": 0.5},  # another base
        {"loss__alpha": 1.0, "loss__temperature": 0.5},  # another base, too: temperature is no parameter of this space
        {"loss__name": "ssim_mse"},  # outside the space
    ],
)
def test_runs_that_the_search_would_not_compute_are_not_added(start, study, computed, changes):
    for seed in SEEDS:
        computed(0.5, seed, **changes)
    assert start() == 0
    assert study.trials == []


def test_point_without_one_of_its_seeds_is_not_added(start, computed):
    computed(0.5, 0, loss__alpha=0.5)
    computed(0.5, 7, loss__alpha=0.5)
    assert start() == 0


def test_points_of_the_search_itself_are_not_added_again(start, study, computed, seed_runs):
    for seed in SEEDS:
        computed(0.5, seed, loss__alpha=0.5)
    trial = study.ask()
    SearchSpace.model_validate({"parameters": SPACE}).suggest(trial)
    study.tell(trial, 0.5)
    study.enqueue_trial({"loss.name": "tie_kd", "loss.alpha": 0.5})
    again = study.ask()
    SearchSpace.model_validate({"parameters": SPACE}).suggest(again)
    study.tell(again, 0.5)
    assert start() == 0
