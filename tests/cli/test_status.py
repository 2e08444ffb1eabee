"""`tiekd status`."""

import json

import pytest

from tiekd.store.run_store import RunStore


def test_status_counts_runs_and_hours(ran, tiekd):
    found = json.loads(tiekd("status", ran["store"], "--json").out)
    seconds = sum(record.status().device_seconds for record in RunStore(ran["store"]).runs())
    assert (found["runs"], found["states"], found["failures"], found["studies"]) == (2, {"done": 2}, [], {})
    assert found["device_hours"] == pytest.approx(seconds / 3600)
    assert seconds > 0
    assert tiekd("status", ran["store"]).out == f"2 runs: 2 done; {seconds / 3600:.2f} device-hours\n"


def test_status_groups_failures_by_cause(tiekd, tmp_path):
    store = RunStore(tmp_path / "store")
    causes = {"a": "RuntimeError: [enforce fail]", "b": "RuntimeError: [enforce fail]", "c": "OSError: [/disk] is full"}
    for run_id, cause in causes.items():
        record = store.run(run_id)
        record.write_json("status.json", {"state": "failed", "cause": cause})
    out = tiekd("status", store.uri).out
    head, *rows = out.splitlines()
    assert head.startswith("3 runs: 3 failed; ")
    assert rows == [
        "2 failed: RuntimeError: [enforce fail]",
        f"  for example a, log {store.uri}/runs/a/error.txt",
        "1 failed: OSError: [/disk] is full",
        f"  for example c, log {store.uri}/runs/c/error.txt",
    ]
