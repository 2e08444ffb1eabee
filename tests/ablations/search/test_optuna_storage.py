"""The database of a search, as an SQLite file and on a PostgreSQL server."""

import re

import optuna
import pytest
from optuna.trial import TrialState

from ablations.planning.search_config import SearchConfig
from ablations.search.optuna_storage import (
    budget_used,
    changed_parameter,
    finish_trial,
    get_trials,
    hide_password,
    open_storage,
    open_study,
    requeue_interrupted,
    storage_url,
    study_exists,
    trial_point,
)
from search_spaces.space import SearchSpace
from tiekd.errors import UserError
from tiekd.store.run_store import RunStore

SPACE = SearchSpace.model_validate(
    {
        "parameters": {
            "loss.name": {"type": "categorical", "choices": ["tie_kd", "l_dpm"]},
            "loss.sigma": {"type": "float", "low": 0.1, "high": 1.0, "log": True},
            "loss.alpha": {"type": "float", "low": 0.0, "high": 1.0, "when": {"loss.name": ["tie_kd"]}},
        }
    }
)
SEARCH = SearchConfig(space="made-up.yaml", trials=9)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    (tmp_path / "studies/demo").mkdir(parents=True)
    option = None if request.param == "sqlite" else request.getfixturevalue("postgresql")
    return storage_url(option, RunStore(tmp_path), "demo")


def test_killed_search_resumes_from_its_database(url):
    assert not study_exists("demo", url)
    with open_storage(url) as storage:
        before = open_study("demo", storage, SEARCH, SPACE)
        trials = [before.ask() for _ in range(4)]
        points = [SPACE.suggest(trial) for trial in trials]
        outcome = {"run_id": "0123", "run_ids": ["0123", "4567"], "epoch": 3, "state": "done", "abs_rel": 0.25}
        finish_trial(before, trials[0], outcome | {"by_seed": [[0.125, 0.375]]}, ["abs_rel"])
        finish_trial(before, trials[1], {"run_id": "89ab", "epoch": 2, "abs_rel": 0.5}, ["abs_rel"])
    assert study_exists("demo", url)
    with open_storage(url) as storage:
        after = open_study("demo", storage, SEARCH, SPACE)
        assert after.metric_names == ["abs_rel"]
        requeue_interrupted(after)
        assert [trial.state.name for trial in after.trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "WAITING", "WAITING"]
        assert [SPACE.suggest(after.ask()) for _ in range(2)] == points[2:]
        assert [trial_point(trial) for trial in after.trials] == [*points, *points[2:]]
        assert [trial.user_attrs.get("repeats") for trial in after.trials[-2:]] == [2, 3]
        assert after.trials[0].user_attrs["by_seed"] == {"abs_rel": [0.125, 0.375]}
        assert (after.trials[1].value, after.trials[1].intermediate_values) == (0.5, {2: 0.5})
        assert budget_used(after) == 2


def test_repeated_trial_that_is_killed_is_repeated_again(tmp_path):
    study = optuna.create_study()
    point = SPACE.suggest(study.ask())
    for _ in range(2):
        requeue_interrupted(study)
        study.ask()  # killed before it had drawn its point
    requeue_interrupted(study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 3 + [TrialState.WAITING]
    assert SPACE.suggest(study.ask()) == point
    assert budget_used(study) == 0


@pytest.mark.parametrize(
    ("path", "parameter", "changed"),
    [
        ("loss.sigma", {"type": "float", "low": 5, "high": 6}, None),
        ("loss.sigma", {"type": "int", "low": 1, "high": 2}, "loss.sigma"),
        ("loss.sigma", {"type": "categorical", "choices": [0.5]}, "loss.sigma"),
        ("loss.name", {"type": "categorical", "choices": ["tie_kd", "l_dpm"]}, None),
        ("loss.name", {"type": "categorical", "choices": ["tie_kd", "si"]}, "loss.name"),
        ("optim.lr", {"type": "categorical", "choices": [0.1]}, None),
    ],
)
def test_changed_parameter_is_found_unless_only_its_range_changed(path, parameter, changed):
    study = optuna.create_study()
    SPACE.suggest(study.ask())
    assert changed_parameter(study, SearchSpace.model_validate({"parameters": {path: parameter}})) == changed


def test_study_directions_follow_the_objectives():
    search = SearchConfig(space="made-up.yaml", trials=9, objectives=["abs_rel", "delta1", "milliseconds"])
    study = open_study("demo", optuna.storages.InMemoryStorage(), search, SPACE)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE", "MINIMIZE"]
    assert get_trials(study) == []


def test_object_store_needs_a_database(bucket):
    with pytest.raises(UserError, match=r"SQLite needs a folder; .* --storage postgresql://.*, or OPTUNA_STORAGE"):
        storage_url(None, RunStore(f"s3://{bucket}/store"), "demo")


@pytest.mark.parametrize("given", ["optuna.db", "oracle9://me:not-a-secret@host/db", "postgresql//me:not-a-secret@host"])
def test_invalid_database_url_is_refused_without_showing_it(given, tmp_path):
    with pytest.raises(UserError, match="--storage: not a database URL; valid: sqlite:///FILE, postgresql://") as caught:
        storage_url(given, RunStore(tmp_path), "demo")
    assert "not-a-secret" not in str(caught.value)


def test_unreachable_database_is_reported_without_its_password(tmp_path):
    url = storage_url("postgresql://me:not-a-secret@127.0.0.1:1/db", RunStore(tmp_path), "demo")
    with pytest.raises(
        UserError, match=r"--storage postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/db: .* does not answer"
    ) as caught:
        study_exists("demo", url)
    assert "not-a-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hide_password(url) == "postgresql+psycopg://me:***@127.0.0.1:1/db"


@pytest.mark.parametrize("damage", ["text", "cut", "folder"])
def test_damaged_database_is_refused_in_one_line(tmp_path, damage):
    file = tmp_path / "optuna.db"
    url = f"sqlite:///{file}"
    with open_storage(url) as storage:
        optuna.create_study(study_name="demo", storage=storage)
    content = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"text")
    with pytest.raises(UserError, match=rf"^--storage {re.escape(url)}: the database does not answer \([^\n]+\)$"):
        study_exists("demo", url)


@pytest.mark.parametrize("name", ["what?1", "a#b", "100%", "50%25", "sp ace", "c:d", "{x}", "a+b", "ü&='", "x" * 200])
def test_database_is_in_the_store_whatever_its_name(tmp_path, name):
    folder = tmp_path / name / "studies/demo"
    folder.mkdir(parents=True)
    url = storage_url(None, RunStore(tmp_path / name), "demo")
    assert not study_exists("demo", url)
    with open_storage(url) as storage:
        optuna.create_study(study_name="demo", storage=storage)
    assert study_exists("demo", url)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [folder / "optuna.db"]
