"""The contract of every scheduler, on made-up learning curves, without a cluster."""

import pkgutil

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from ablations.planning.search_config import SCHEDULERS, SchedulerSpec, SearchConfig
from ablations.search.schedulers import build_scheduler

EPOCHS, SEEDS = 9, [0, 1]
STOPPING = [name for name, spec in SCHEDULERS.items() if spec.stops_trials]


def search_of(scheduler, **settings):
    return SearchConfig(space="made-up.yaml", scheduler=scheduler, seeds=SEEDS, grace_epochs=2, **settings)


def times():
    """Return the epochs at which a trial of two seeds reports: each of the first seed, and the end of the second."""
    return [*range(1, EPOCHS + 1), len(SEEDS) * EPOCHS]


def run_trial(scheduler, level, better="abs_rel", ending="done"):
    """Run a trial whose value is always `level`. Return the epoch at which it ended, and how."""
    trial = Trial("made-up", stub=True)
    scheduler.on_trial_add(None, trial)
    for time in times():
        result = {"epoch": time, better: level}
        if time == times()[-1]:
            result = {"epoch": time, "state": ending} | ({better: level} if ending == "done" else {})
        if time == times()[-1] or scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            scheduler.on_trial_complete(None, trial, result)
            return time, result.get("state", "pruned")
    raise AssertionError


@pytest.mark.parametrize("name", SCHEDULERS)
def test_entry_is_complete(name):
    spec = SCHEDULERS[name]
    assert spec.label
    assert spec.description.endswith(".")
    assert "\n" not in spec.description
    assert callable(pkgutil.resolve_name(spec.build))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_best_trial_runs_to_its_end(name):
    scheduler = build_scheduler(search_of(name), EPOCHS)
    for level in (0.2, 0.3, 0.25, 0.22, 0.1):
        time, end = run_trial(scheduler, level)
    assert (time, end) == (len(SEEDS) * EPOCHS, "done")


@pytest.mark.parametrize("name", STOPPING)
def test_bad_trial_ends_early_and_good_one_continues(name):
    scheduler = build_scheduler(search_of(name), EPOCHS)
    for level in (0.2, 0.3, 0.25, 0.22):
        run_trial(scheduler, level)
    time, end = run_trial(scheduler, 0.9)
    assert end == "pruned"
    assert 2 <= time <= EPOCHS
    assert run_trial(scheduler, 0.1) == (len(SEEDS) * EPOCHS, "done")


@pytest.mark.parametrize("name", STOPPING)
def test_metric_that_is_better_when_higher(name):
    scheduler = build_scheduler(search_of(name, objectives=["delta1", "milliseconds"]), EPOCHS)
    for level in (0.8, 0.7, 0.75, 0.72):
        run_trial(scheduler, level, "delta1")
    assert run_trial(scheduler, 0.1, "delta1")[1] == "pruned"
    assert run_trial(scheduler, 0.9, "delta1")[1] == "done"


@pytest.mark.parametrize("name", STOPPING)
def test_trials_without_a_value_do_not_affect_others(name):
    scheduler = build_scheduler(search_of(name), EPOCHS)
    for level, ending in ((0.6, "failed"), (0.5, "diverged"), (0.4, "done"), (0.3, "done"), (0.2, "done")):
        assert run_trial(scheduler, level, ending=ending)[1] == ending
    assert run_trial(scheduler, 0.1) == (len(SEEDS) * EPOCHS, "done")


@pytest.mark.parametrize("name", STOPPING)
def test_grace_period_is_at_most_the_length_of_a_trial(name):
    search = SearchConfig(space="made-up.yaml", scheduler=name, seeds=SEEDS, grace_epochs=100)
    assert run_trial(build_scheduler(search, EPOCHS), 0.5)[1] == "done"


def test_scheduler_none_stops_no_trial():
    scheduler = build_scheduler(search_of("none"), EPOCHS)
    assert [run_trial(scheduler, level)[1] for level in (0.2, 0.3, 0.25, 0.9)] == ["done"] * 4


TOY = '''
"""A scheduler of a user."""

from ray.tune.schedulers import FIFOScheduler


class Toy(FIFOScheduler):
    def __init__(self, metric, epochs):
        super().__init__()
        self._name, self._epochs = metric, epochs

    def on_trial_result(self, tune_controller, trial, result):
        return self.STOP if result[self._name] > 0.5 or result["epoch"] > self._epochs else self.CONTINUE


def build_toy(search, max_epochs):
    return Toy(search.objective, max_epochs)
'''


def test_scheduler_is_added_with_one_function_and_one_entry(tmp_path, monkeypatch):
    (tmp_path / "toy_scheduler.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = SchedulerSpec(label="Toy", description="Stops trials above 0.5.", build="toy_scheduler:build_toy")
    monkeypatch.setitem(SCHEDULERS, "toy", spec)
    test_entry_is_complete("toy")
    scheduler = build_scheduler(search_of("toy"), EPOCHS)
    assert run_trial(scheduler, 0.9) == (1, "pruned")
    assert run_trial(scheduler, 0.1) == (len(SEEDS) * EPOCHS, "done")
