"""Finished runs of an object store are listed, and not read one by one."""

import pytest

from tiekd.config import build
from tiekd.store.finished_index import INDEX, Outcome, entry, read_entry
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

METRICS = {"abs_rel": 0.1 + 0.2, "rmse": None}
CONFIG = build({"data": {"dataset": "synthetic-outdoor"}, "loss": {"name": "si", "target": "ground_truth"}})
DONE = Status("done", epoch=3, epochs=3, device_seconds=1 / 3, started=1.5, updated=2.5)


@pytest.fixture
def uri(bucket) -> str:
    return f"s3://{bucket}/prefix"


def end(store: RunStore, run_id: str, status: Status, indexed: bool = True) -> None:
    """Let a run end as training does; of an earlier version, it is not in the index."""
    record = store.run(run_id)
    record.write_json("summary.json", {"metrics": METRICS})
    record.write_status(status)
    if indexed:
        record.add_to_index(status)


def test_an_outcome_comes_back_as_it_was():
    diverged = Outcome(Status("diverged", "loss is ∞ at step 3 / 7", updated=1e9), {})
    for outcome in (Outcome(DONE, METRICS), diverged):
        assert read_entry(entry("0123", outcome)) == ("0123", outcome)


def test_outcomes_of_finished_runs_are_listed(uri, s3):
    store = RunStore(uri)
    expected = {f"{number:04}": DONE for number in range(12)} | {"diverged": Status("diverged", "inf", updated=1.0)}
    for run_id, status in expected.items():
        end(store, run_id, status)
    end(store, "old", DONE, indexed=False)
    store.run("running").write_status(Status("running", updated=1.0))
    expected |= {"old": DONE, "running": Status("running", updated=1.0)}
    with s3.count() as counted:
        reader = RunStore(uri, must_exist=True)
        reader.load_index()
        assert {record.run_id: record.status() for record in map(reader.run, expected)} == expected
        assert reader.run("0003").metrics() == METRICS
        assert reader.run("diverged").metrics() == {}
    assert counted == {"LIST": 2, "GET": 2}  # those that are not in the index


def test_a_run_whose_folder_was_deleted_is_missing_and_leaves_the_index_when_it_starts(uri):
    store = RunStore(uri)
    end(store, "0123", DONE)
    for name in ("status.json", "summary.json"):
        store.delete(f"runs/0123/{name}")
    store.load_index()
    assert store.run("0123").status().state == "missing"
    store.run("0123").start(CONFIG)
    store.load_index()
    assert store.run("0123").status().state == "running"
    assert store.list_folders(INDEX) == []


def test_an_outcome_too_long_for_a_name_is_not_in_the_index(uri):
    store = RunStore(uri)
    end(store, "0123", Status("diverged", "".join(map(chr, range(32, 2000)))))
    store.load_index()
    assert store.outcome("0123") is None
    assert store.run("0123").status().state == "diverged"


def test_what_is_no_outcome_is_passed_over(uri):
    store = RunStore(uri)
    end(store, "0123", DONE)
    for name in ("note", "0123/note", "0123/eJyLjgUAARUAuQ==", "a/b/c"):
        store.write_bytes(f"{INDEX}/{name}", b"")
    store.load_index()
    assert store.outcome("0123") == Outcome(DONE, METRICS)


def test_a_folder_has_no_index(local, tmp_path):
    end(local, "0123", DONE)
    local.load_index()
    assert local.outcome("0123") is None
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["runs"]
