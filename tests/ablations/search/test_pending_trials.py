"""How many trials of a search wait for a slot."""

import optuna
from ray import tune

from ablations.execution.cluster import ray_cluster
from ablations.execution.sweep import Sweep, run_sweep
from ablations.execution.tune_callback import FailureLimit
from ablations.planning.search_config import SearchConfig
from ablations.search.tune_searcher import Budget, OptunaSearcher
from search_spaces.space import SearchSpace
from tiekd.config import ExecutionConfig
from tiekd.store.claims import Claims, Launch
from tiekd.store.run_store import RunStore

SPACE = SearchSpace.model_validate({"parameters": {"loss.sigma": {"type": "float", "low": 0.1, "high": 1.0}}})
DONE = {"state": "done", "abs_rel": 0.1, "by_seed": [[0.1]], "epoch": 1, "run_id": "0123", "run_ids": ["0123"]}


class Starts(tune.Callback):
    """Counts the trials that have been drawn when each one starts."""

    def __init__(self, study: optuna.Study):
        self._study = study
        self.drawn: list[int] = []

    def __reduce__(self) -> tuple:
        return tune.Callback, ()

    def on_trial_start(self, **info: object) -> None:
        self.drawn.append(len(self._study.trials))


def test_a_search_fills_the_slots_of_a_cluster_at_once(pretended_gpus, tmp_path):
    """Tune by itself would let one trial at a time wait, for seconds, until its process has started."""
    study, n_trials = optuna.create_study(), 3
    starts = Starts(study)
    searcher = OptunaSearcher(study, SPACE, SearchConfig(space="made-up.yaml"), Budget(n_trials))
    store = RunStore(tmp_path)
    store.write_study("demo", {})
    with ray_cluster(pretended_gpus, ExecutionConfig(gpus_per_worker=0)) as execution:
        sweep = Sweep(
            name="demo",
            trainable=lambda params: tune.report(DONE),
            execution=execution,
            callback=starts,
            stopper=FailureLimit(0),
            run_id=lambda params: None,
            searcher=searcher,
            claims=Claims(store, Launch.current()),
        )
        run_sweep(sweep, store)
    assert starts.drawn == [n_trials] * n_trials
    assert [trial.state for trial in study.trials] == [optuna.trial.TrialState.COMPLETE] * n_trials
