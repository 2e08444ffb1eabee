"""A store that version 2 of the method wrote, with the code of 2026-11-23: two runs of a study, without their weights."""

import json
import shutil
from pathlib import Path

import pytest

import reports
from tiekd.store.run_store import RunStore

WRITTEN = Path(__file__).parents[1] / "support/store_of_method_2"


@pytest.fixture
def store(tmp_path) -> RunStore:
    shutil.copytree(WRITTEN, tmp_path / "store")
    return RunStore(tmp_path / "store")


def test_runs_of_an_earlier_version_are_reported_and_not_taken_for_todays(tiekd, as_yaml, store, tmp_path):
    outcome = tiekd("status", store.uri, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    status = json.loads(outcome.out)
    assert (status["studies"]["old"]["states"], status["damaged"]) == ({"done": 2}, {})

    found = reports.load(store.uri)
    expected = {record.run_id: record.read_json("summary.json")["metrics"]["abs_rel"] for record in store.runs()}
    assert dict(zip(found.runs["run_id"], found.runs["abs_rel"], strict=True)) == expected
    assert sorted(found.tables.query("metric == 'abs_rel'")["mean"]) == sorted(expected.values())
    assert len(found.epochs) == 2
    assert found.damaged == {}

    recorded = store.read_study("old")["study"]
    study = as_yaml(tmp_path / "study.yaml", {name: recorded[name] for name in ("name", "base", "factors", "seeds")})
    outcome = tiekd("ablate", study, "--store", store.uri, "--dry-run", "--json")
    assert outcome.code == 0, outcome
    assert len(set(json.loads(outcome.out)["to_compute"]) - set(expected)) == 2
