from dataclasses import asdict

import pandas as pd
import pytest

from tiekd.config import build
from tiekd.errors import StoreError
from tiekd.store.run_status import STATES, Status
from tiekd.store.run_store import OBJECT_STORE_THREADS, RunRecord, RunStore


@pytest.fixture
def config():
    return build({"data": {"dataset": "nyu", "root": "data"}, "loss": {"name": "si", "target": "ground_truth"}})


def test_an_empty_store_has_no_runs_and_makes_no_folders(store, tmp_path):
    record = store.run("0123")
    assert record.status().state == "missing"
    assert (record.config(), record.read_file("x"), record.read_json("x"), record.read_table("x")) == (None,) * 4
    assert (list(store.runs()), store.studies(), store.read_study("s")) == ([], [], None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("state", STATES)
def test_status_round_trip(store, state):
    status = Status(state, "loss nan", epoch=2, epochs=5, device_seconds=1.5, started=1.0, updated=2.0)
    store.run("0123").write_status(status)
    assert store.run("0123").status() == status


def test_a_status_of_an_older_store_is_read(store):
    """Older statuses also have the process, which has a file of its own now."""
    status = Status("done", epochs=5, started=1.0, updated=2.0)
    store.run("0123").write_json("status.json", asdict(status) | {"host": "node", "pid": 4711, "attempt": "a"})
    assert (store.run("0123").status(), store.run("0123").last_attempt()) == (status, None)


def test_config_round_trip(store, config):
    store.run("0123").write_config(config)
    assert store.run("0123").config().document() == config.document()


def test_table_round_trip_with_types_and_columns(store):
    table = pd.DataFrame({"image": ["a", "b"], "n_valid": [3, 0], "rmse": [0.5, float("nan")]})
    record = store.run("0123")
    record.write_table("images.parquet", table)
    pd.testing.assert_frame_equal(record.read_table("images.parquet"), table, check_dtype=True)
    assert list(record.read_table("images.parquet", ["rmse"])) == ["rmse"]


def test_runs_and_studies_are_listed_by_name(store):
    for run_id in ("b", "a"):
        store.run(run_id).write_status(Status("done"))
    store.write_study("kitti", {"study": {"seeds": 3}, "cells": []})
    assert [record.run_id for record in store.runs()] == ["a", "b"]
    assert store.studies() == ["kitti"]
    assert store.read_study("kitti") == {"study": {"seeds": 3}, "cells": []}


def test_a_folder_and_its_file_uri_are_the_same_store(tmp_path):
    RunStore(tmp_path.as_uri()).run("0123").write_file("checkpoint/state.pt", b"state")
    assert RunStore(tmp_path).run("0123").read_file("checkpoint/state.pt") == b"state"
    assert (tmp_path / "runs/0123/checkpoint/state.pt").read_bytes() == b"state"


def test_deleting_a_missing_file_is_allowed(store):
    record = store.run("0123")
    record.write_file("error.txt", b"trace")
    record.delete_file("error.txt")
    record.delete_file("error.txt")
    assert record.read_file("error.txt") is None


def test_nan_is_not_written_as_json(store):
    with pytest.raises(ValueError, match="JSON"):
        store.run("0123").write_json("summary.json", {"rmse": float("nan")})
    assert store.run("0123").read_file("summary.json") is None


def test_read_each_keeps_the_order(store):
    for number in range(20):
        store.run(f"{number:02}").write_status(Status("done", epoch=number))
    backwards = sorted(store.runs(), key=lambda record: record.run_id, reverse=True)
    assert [status.epoch for status in store.read_each(RunRecord.status, backwards)] == list(range(19, -1, -1))


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"null", b"[" * 100_000, b'{"state": "gone"}', b'{"epoch": NaN}'])
def test_a_damaged_file_counts_as_missing_and_is_named_once(store, caplog, content):
    store.run("a").write_status(Status("done"))
    store.run("b").write_file("status.json", content)
    for _ in range(2):
        done, damaged = store.read_each(RunRecord.status, [store.run(name) for name in "ab"])
    assert (done.state, damaged.state) == ("done", "missing")
    assert damaged.cause.startswith("status.json is damaged: ")
    assert [*store.damaged] == ["runs/b/status.json"]
    assert caplog.text.count("runs/b/status.json is damaged") == 1
    store.run("b").write_status(Status("done"))
    assert (store.run("b").status().state, store.damaged) == ("done", {})


def test_read_each_raises_the_first_error(local, tmp_path):
    local.run("a").write_status(Status("done"))
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="has disappeared"):
        local.read_each(RunRecord.status, [local.run(name) for name in "abc"])


def test_stream_each_keeps_a_bounded_number_in_flight(store):
    for number in range(4 * OBJECT_STORE_THREADS):
        store.run(f"{number:03}").write_status(Status("done"))
    read = []
    found = store.stream_each(lambda record: read.append(record) or record.run_id, store.runs())
    assert next(found) == "000"
    assert len(read) <= 2 * OBJECT_STORE_THREADS + 1
    assert list(found) == [f"{number:03}" for number in range(1, 4 * OBJECT_STORE_THREADS)]


def test_read_arrow_ignores_missing_columns(store):
    store.write_table("a.parquet", pd.DataFrame({"image": ["x", "y"], "rmse": [0.5, float("nan")]}))
    found = store.read_arrow("a.parquet", ["rmse", "silog"])
    assert found.to_pydict() == {"rmse": [0.5, None]}
    assert store.read_arrow("b.parquet") is None
