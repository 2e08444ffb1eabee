"""What processes lose when they are killed: nothing but time."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tiekd.config import build
from tiekd.documents import with_values
from tiekd.run import carry_out
from tiekd.runtime import LocalRuntime
from tiekd.store import RunStore

EPOCHS = 24
LOSSES = ["si", "mse"]


@pytest.fixture(scope="module")
def base(tiny):
    """A run of some seconds."""
    return with_values(tiny, {"optim.epochs": EPOCHS, "evaluation.every": EPOCHS})


@pytest.fixture(scope="module")
def undisturbed(base, tmp_path_factory) -> dict[str, dict]:
    """Metrics of the same runs in this process, by run id."""
    store = RunStore(tmp_path_factory.mktemp("undisturbed"))
    for loss in LOSSES:
        config = build(with_values(base, {"loss.name": loss}))
        carry_out(config, store, lambda record, config=config: LocalRuntime(config.execution, record))
    return metrics_in(store)


def metrics_in(store: RunStore) -> dict[str, dict]:
    return {record.run_id: record.read_json("summary.json")["metrics"] for record in store.runs()}


@pytest.fixture
def command(base, as_yaml, tmp_path) -> tuple:
    study = as_yaml(tmp_path / "study.yaml", {"name": "demo", "base": base, "factors": {"loss.name": LOSSES}})
    return "ablate", study, "--store", tmp_path / "store"


def epochs_in(folder: Path) -> Callable[[], bool]:
    """Whether every run is under way, beyond its first epochs and before its last."""

    def under_way() -> bool:
        statuses = [record.status() for record in RunStore(folder).runs()]
        return len(statuses) == len(LOSSES) and all(status.epoch >= 3 for status in statuses)

    return under_way


def test_a_study_survives_the_death_of_a_trial(driver, command, undisturbed, until, tmp_path):
    with driver(*command) as study:
        until(epochs_in(tmp_path / "store"))
        victim = study.processes("ray::ImplicitFunc")[0]
        os.kill(victim, signal.SIGKILL)
        code, out = study.wait(timeout=120)
    store = RunStore(tmp_path / "store")
    assert code == 0, out
    assert "2 cells: 2 done; computed 2, " in out
    assert metrics_in(store) == undisturbed
    assert [list(r.read_table("epochs.parquet")["epoch"]) for r in store.runs()] == [list(range(1, EPOCHS + 1))] * 2


def test_the_same_command_ends_what_a_killed_one_began(driver, command, undisturbed, until, tmp_path, tiekd):
    store = RunStore(tmp_path / "store")
    with driver(*command) as study:
        until(epochs_in(tmp_path / "store"))
        study.kill()
    assert {record.status().state for record in store.runs()} == {"running"}
    reached = {record.run_id: record.status() for record in store.runs()}
    outcome = tiekd(*command)
    assert outcome.code == 0, outcome.err
    assert "2 cells: 2 done; computed 2, " in outcome.out
    assert metrics_in(store) == undisturbed
    for record in store.runs():
        seconds = record.read_table("epochs.parquet")["seconds"]
        done = reached[record.run_id].epoch
        assert sum(seconds[:done]) == pytest.approx(reached[record.run_id].device_seconds)  # these were not computed again


def test_ctrl_c_ends_a_study_at_once_and_says_how_to_go_on(driver, command, until, tmp_path):
    with driver(*command) as study:
        until(epochs_in(tmp_path / "store"))
        os.kill(study.pid, signal.SIGINT)
        code, out = study.wait(timeout=30)
    assert code == 130
    assert out.splitlines()[-1] == "tiekd: interrupted; the same command goes on from the last checkpoint"
    assert {record.status().state for record in RunStore(tmp_path / "store").runs()} == {"running"}
