"""A search that is launched again after its space has changed: only what is in the space of today counts."""

import json
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState, create_trial

from ablations.search.optuna_storage import start_trial, trial_point
from ablations.search.prepared_search import enqueue_base, open_search, prepare_search
from ablations.search.tune_searcher import Budget, OptunaSearcher
from ablations.search.warm_start import _distributions
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

RATES = {1e-2: 0.1, 1e-3: 0.3, 2e-3: 0.2}  # by learning rate: abs_rel; the best one leaves the space
SEEDS = [0, 1]


def space(high: float, **more: dict) -> dict:
    return {"parameters": {"optim.lr": {"type": "float", "low": 1e-4, "high": high, "log": True, "points": 3}, **more}}


class Search:
    """A search in a folder, whose trials are recorded without being computed."""

    def __init__(self, folder: Path, tiny: dict, as_yaml):
        self.folder, self._tiny, self._as_yaml = folder, tiny, as_yaml
        self.store = RunStore(folder / "store")

    def prepare(self, document: dict, **settings):
        self._as_yaml(self.folder / "space.yaml", document)
        search = {"space": "space.yaml", "scheduler": "none", "trials": len(RATES), "seeds": SEEDS} | settings
        self._as_yaml(self.folder / "study.yaml", {"name": "demo", "base": self._tiny, "search": search})
        return prepare_search(self.folder / "study.yaml", self.store.uri)

    def add_trials(self, prepared) -> None:
        with open_search(prepared) as study:
            for rate, value in RATES.items():
                point = {"optim.lr": rate}
                run_ids = [self.add_run(prepared.seed_runs.config(point, seed), value) for seed in SEEDS]
                attrs = {"run_id": run_ids[0], "run_ids": run_ids, "epoch": 4, "by_seed": {"abs_rel": [value, value]}}
                distributions = _distributions(prepared.space, point)
                study.add_trial(create_trial(params=point, distributions=distributions, value=value, user_attrs=attrs))

    def add_run(self, config, value: float) -> str:
        from tiekd.data.inputs import run_id_of

        record = self.store.run(run_id_of(config))
        record.write_config(config)
        record.write_json("summary.json", {"metrics": {"abs_rel": value}})
        record.write_status(Status("done", epoch=2, epochs=2))
        return record.run_id


@pytest.fixture
def search(tmp_path, tiny, as_yaml) -> Search:
    made = Search(tmp_path, tiny, as_yaml)
    made.add_trials(made.prepare(space(high=1e-1)))
    return made


def test_trials_outside_todays_space_are_listed_and_never_the_best(search, tiekd):
    search.prepare(space(high=5e-3), trials=2)
    outcome = tiekd("search", search.folder / "study.yaml", "--store", search.store.uri)
    assert outcome.code == 0, outcome.err
    assert "0 of 2 trials to run" in outcome.out
    assert "1 trials of earlier launches are outside the space of today's search" in outcome.out
    assert "best trial: abs_rel 0.2000" in outcome.out
    findings = search.store.read_json("studies/demo-search/findings.json")
    assert (findings["trials"], findings["outside_trials"]) == (2, [0])
    assert [trial["number"] for trial in findings["best"]] == [2, 1]
    assert yaml.safe_load(search.store.read_bytes("studies/demo-search/best.yaml"))["optim"]["lr"] == 2e-3
    status = json.loads(tiekd("status", search.store.uri, "--json").out)
    assert status["studies"]["demo-search"]["cells"] == 2 * len(SEEDS)
    assert status["studies"]["demo-search"]["best"]["abs_rel"] == pytest.approx(0.2)
    assert status["studies"]["demo-search"]["best"]["cell"] == "optim.lr=0.002, mean of 2 seeds"
    assert status["runs_without_study"] == len(SEEDS)
    assert "2 runs belong to no study" in tiekd("status", search.store.uri).out


@pytest.mark.parametrize(
    ("document", "left"),
    [
        (space(high=1e-1), "0 of 3"),
        (space(high=5e-3), "1 of 3"),
        (space(high=1e-1, **{"optim.weight_decay": {"type": "float", "low": 0, "high": 1}}), "3 of 3"),
    ],
)
def test_budget_counts_trials_of_todays_space_only(search, document, left):
    from rich.console import Console

    from ablations.search.prepared_search import start_search
    from ablations.search.search import _headline

    prepared = search.prepare(document)
    assert f": {left} trials to run" in _headline(prepared, start_search(prepared, Console(quiet=True)))


def test_queued_points_outside_todays_space_are_dropped(search):
    with open_search(search.prepare(space(high=1e-1))) as study:
        study.enqueue_trial({"optim.lr": 9e-2})
        study.enqueue_trial({"optim.lr": 4e-3})
    prepared = search.prepare(space(high=5e-3))
    with open_search(prepared) as study:
        trial = start_trial(study, prepared.space)
        assert prepared.space.suggest(trial) == {"optim.lr": 4e-3}
        assert study.trials[trial.number - 1].state == TrialState.FAIL


def test_grid_of_todays_space_is_complete_although_the_queue_has_other_points(search):
    with open_search(search.prepare(space(high=1e-1), sampler="grid")) as study:
        study.enqueue_trial({"optim.lr": 9e-2})
    prepared = search.prepare(space(high=5e-3), sampler="grid", trials=None)
    with open_search(prepared) as study:
        searcher = OptunaSearcher(study, prepared.space, prepared.search, Budget(None))
        points = [searcher.suggest(str(k))["point"] for k in range(3)]
        assert points == prepared.space.grid()
        assert searcher.suggest("3") == searcher.FINISHED


def test_base_is_the_first_trial_of_a_space_without_trials(search):
    prepared = search.prepare(space(high=9e-4), trials=5)
    with open_search(prepared) as study:
        enqueue_base(prepared, study)
        queued = [trial_point(trial) for trial in study.get_trials(states=(TrialState.WAITING,))]
    assert queued == ([prepared.base_point] if prepared.base_point else [])
