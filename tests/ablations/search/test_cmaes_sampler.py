"""CMA-ES whose state follows from the trials."""

import contextlib
import os
import pickle

import optuna
from optuna.trial import create_trial

from ablations.planning.search_config import SearchConfig
from ablations.search.optuna_storage import open_storage, open_study, storage_url
from search_spaces.space import SearchSpace
from tiekd.store.run_store import RunStore

SEARCH = SearchConfig(space="made-up.yaml", sampler="cmaes", trials=9)
SPACE = SearchSpace.model_validate(
    {
        "parameters": {
            "loss.sigma": {"type": "float", "low": 0.1, "high": 10.0, "log": True},
            "optim.weight_decay": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
            "bins.n_bins": {"type": "int", "low": 32, "high": 64, "step": 16},
            "optim.batch_size": {"type": "int", "low": 1, "high": 8, "log": True},
        }
    }
)


class Payload:
    """Unpickling it creates a folder."""

    def __init__(self, folder):
        self._folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self._folder,)


def run(study: optuna.Study, trials: int) -> list[dict]:
    points = []
    for _ in range(trials):
        trial = study.ask()
        points.append(SPACE.suggest(trial))
        study.tell(trial, abs(points[-1]["loss.sigma"] - 1) + points[-1]["optim.weight_decay"])
    return points


def test_pickle_in_the_database_does_not_run_and_is_never_written(tmp_path):
    (tmp_path / "studies/demo").mkdir(parents=True)
    url, owned = storage_url(None, RunStore(tmp_path), "demo"), tmp_path / "owned"
    with open_storage(url) as storage:
        study = open_study("demo", storage, SEARCH, SPACE)
        run(study, 20)
        assert not any("optimizer" in key for trial in study.trials for key in trial.system_attrs)
        attrs = {"cma:optimizer:0": pickle.dumps(Payload(owned)).hex()}
        last = study.trials[-1]
        study.add_trial(
            create_trial(params=last.params, distributions=last.distributions, value=last.value, system_attrs=attrs)
        )
    with open_storage(url) as storage:
        study = open_study("demo", storage, SEARCH, SPACE)
        run(study, 2)
        assert not owned.exists()
        study.sampler = optuna.samplers.CmaEsSampler(seed=0)
        with contextlib.suppress(Exception):
            run(study, 1)
        assert owned.exists()  # it would have run


def test_points_are_in_the_space_and_come_closer_with_the_generations():
    study = open_study("demo", optuna.storages.InMemoryStorage(), SEARCH, SPACE)
    points = run(study, 80)
    assert all(SPACE.point_of(point) == point for point in points)
    first, last = ([trial.value for trial in study.trials[part]] for part in (slice(16), slice(-16, None)))
    assert sum(last) < 0.6 * sum(first)
    assert {point["bins.n_bins"] for point in points} == {32, 48, 64}
