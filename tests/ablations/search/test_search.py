"""`tiekd search`: killed with its local Ray, then resumed and enlarged on a cluster."""

import os
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tiekd.store.claims import open_launch
from tiekd.store.run_store import RunStore

EPOCHS = 12
RATES = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]  # from good to bad, so that ASHA has something to stop
SEARCH = {"space": "rates.yaml", "scheduler": "asha", "trials": len(RATES), "grace_epochs": 1, "reduction_factor": 2}
SPACE = {
    "optim.lr": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True},
    "data.min_depth": {"type": "float", "low": 1e-3, "high": 100, "log": True},  # some points exceed data.max_depth
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny, as_yaml) -> Path:
    """A search whose first points are enqueued."""
    folder = tmp_path_factory.mktemp("search")
    as_yaml(folder / "study.yaml", {"name": "demo", "base": tiny | {"optim": {"epochs": EPOCHS, "lr": 2e-3}}, "search": SEARCH})
    as_yaml(folder / "rates.yaml", {"parameters": SPACE})
    (folder / "store/studies/demo-search").mkdir(parents=True)
    study = optuna.create_study(study_name="demo-search", storage=storage(folder))
    for rate in RATES:
        study.enqueue_trial({"optim.lr": rate, "data.min_depth": 1e-3})
    return folder


def storage(folder: Path) -> str:
    return f"sqlite:///{folder}/store/studies/demo-search/optuna.db"


def trials_in(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="demo-search", storage=storage(folder)).trials


@pytest.fixture(scope="module")
def command(folder) -> tuple:
    return "search", folder / "study.yaml", "--store", folder / "store"


@pytest.fixture(scope="module")
def searched(folder, command, driver, tiekd, shared_cluster):
    """The outcome of a launch that finishes the search, after one whose processes were killed."""
    store = RunStore(folder / "store")
    with driver(*command) as search:
        search.until(lambda: any(record.status().epoch >= 2 for record in store.runs()))
        search.kill()
    assert any(trial.state == TrialState.RUNNING for trial in trials_in(folder))
    return tiekd(*command, "--address", shared_cluster)


def test_a_second_launch_of_a_search_is_refused_in_one_line(tiny, as_yaml, tmp_path, tiekd):
    """Each would take the other's running trials for abandoned."""
    study = as_yaml(tmp_path / "study.yaml", {"name": "demo", "base": tiny, "search": SEARCH})
    as_yaml(tmp_path / "rates.yaml", {"parameters": SPACE})
    store = RunStore(tmp_path / "store")
    with open_launch(store, "demo-search") as other:
        other.take("demo-search")
        outcome = tiekd("search", study, "--store", store.uri)
        assert other.holds("demo-search")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"tiekd: search demo-search: process {os.getpid()} on ")
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "store/studies").exists()


def test_resumed_search_has_all_trials_complete_or_pruned(searched, folder):
    assert searched.code == 0, searched.err
    states = [trial.state for trial in trials_in(folder)]
    assert states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED) == len(RATES)
    assert states.count(TrialState.PRUNED) >= 1
    assert not {TrialState.RUNNING, TrialState.WAITING} & set(states)


def test_points_of_the_killed_launch_were_repeated(searched, folder):
    trials = trials_in(folder)
    failed = {trial.number: trial.params for trial in trials if trial.state == TrialState.FAIL}
    assert failed
    assert {t.user_attrs["repeats"]: t.params for t in trials if "repeats" in t.user_attrs} == failed
    ended = [t.params["optim.lr"] for t in trials if t.state != TrialState.FAIL]
    assert sorted(ended, reverse=True) == RATES


def test_pruned_trials_are_missing_runs_with_their_cause(searched, folder):
    store = RunStore(folder / "store")
    pruned = [trial for trial in trials_in(folder) if trial.state == TrialState.PRUNED]
    for trial in pruned:
        status = store.run(trial.user_attrs["run_id"]).status()
        epoch = trial.user_attrs["epoch"]
        assert status.state == "missing"
        assert status.cause == f"pruned by the scheduler after epoch {epoch} of {EPOCHS}"
        assert trial.last_step == epoch < EPOCHS  # Optuna's sampler learns from the value there
    assert {record.status().state for record in store.runs()} == {"done", "missing"}
    assert sum(record.status().state == "missing" for record in store.runs()) == len(pruned)


def test_complete_trials_have_the_value_of_their_run(searched, folder):
    store = RunStore(folder / "store")
    for trial in trials_in(folder):
        if trial.state == TrialState.COMPLETE:
            assert trial.value == store.run(trial.user_attrs["run_id"]).read_json("summary.json")["metrics"]["abs_rel"]


def test_best_trial_is_printed(searched, folder):
    best = min((t for t in trials_in(folder) if t.state == TrialState.COMPLETE), key=lambda t: t.value)
    line = searched.out.splitlines()[-1]
    assert line == f"best trial: abs_rel {best.value:.4f} with lr={best.params['optim.lr']:.4g}, min_depth=0.001"


def test_search_is_a_study_of_the_store(searched, folder):
    record = RunStore(folder / "store").read_study("demo-search")
    assert record["study"]["kind"] == "search"
    assert sorted((c["factors"]["optim.lr"] for c in record["cells"]), reverse=True) == RATES
    assert len({c["run_id"] for c in record["cells"]}) == len(RATES)


def test_same_command_runs_nothing(searched, folder, command, tiekd, files, ray_folder):
    runs, sessions = files(folder / "store" / "runs"), sorted((ray_folder / "ray").iterdir())
    outcome = tiekd(*command)
    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == f"search demo-search: 0 of {len(RATES)} trials to run, objective abs_rel"
    assert outcome.out.splitlines()[-1] == searched.out.splitlines()[-1]
    assert files(folder / "store" / "runs") == runs
    assert sorted((ray_folder / "ray").iterdir()) == sessions


def test_another_base_is_refused(searched, folder, command, tiekd, files):
    before = files(folder / "store" / "runs")
    outcome = tiekd(*command, "--trials", 9, "--set", "optim.epochs=3")
    assert outcome.code == 2
    assert outcome.err.startswith("tiekd: search demo-search: ")
    assert "have another base, data, objectives, seeds or constraints" in outcome.err
    assert files(folder / "store" / "runs") == before


def test_larger_budget_runs_only_the_remaining_trials(searched, folder, command, tiekd, files, shared_cluster):
    """Runs last: it adds a point that the store already has, and one whose settings contradict each other."""
    before, runs = trials_in(folder), files(folder / "store" / "runs")
    best = min((t for t in before if t.state == TrialState.COMPLETE), key=lambda t: t.value)
    study = optuna.load_study(study_name="demo-search", storage=storage(folder))
    study.enqueue_trial(best.params)
    study.enqueue_trial(best.params | {"data.min_depth": 90.0})
    outcome = tiekd(*command, "--trials", len(RATES) + 2, "--address", shared_cluster)
    assert outcome.code == 0, outcome.err
    assert f"2 of {len(RATES) + 2} trials to run" in outcome.out
    *others, known, refused = trials_in(folder)
    assert [(t.number, t.state, t.value) for t in others] == [(t.number, t.state, t.value) for t in before]
    assert (known.state, known.value, known.user_attrs["run_id"]) == (
        TrialState.COMPLETE,
        best.value,
        best.user_attrs["run_id"],
    )
    assert refused.state == TrialState.FAIL
    assert "data.min_depth must be below data.max_depth, got 90.0 and 80.0" in refused.user_attrs["cause"]
    assert files(folder / "store" / "runs") == runs
