"""`tiekd status` on stores with runs in every state."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest

from ablations.planning.cells import expand_cells
from ablations.planning.plan import make_plan, study_record
from tiekd.config.labels import METRICS
from tiekd.store.run_status import PRUNED_CAUSE, Attempt, Status
from tiekd.store.run_store import RunStore

EPOCHS = 8
LOSSES = {"loss.name": ["si", "mse", "ssim", "ssim_si", "ssim_mse"]}
NO_PROCESS = 2**22 + 1  # above any process id
CHECK_IMPORTS = """
import sys
from tiekd.__main__ import main
try:
    main()
finally:
    print({"torch", "ray", "optuna"} & set(sys.modules))
"""


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "store")


@pytest.fixture
def run_ids(study, store, tiny, tmp_path) -> list[str | None]:
    """Run ids of a recorded study of five losses, and None for a cell whose maps do not exist."""
    base = tiny | {"optim": {"epochs": EPOCHS}}
    blocks = [LOSSES, {"source": {"away": {"teacher.maps": str(tmp_path / "away")}}}]
    made = study(base=base, factors=blocks)
    plan = make_plan(expand_cells(made), store)
    store.write_study("demo", study_record(made, plan, []))
    return [c.run_id for c in plan.cells]


@pytest.fixture
def midway(store, run_ids) -> dict[str, str]:
    """The study in progress: one cell is done, one failed, two run, and one of these is stale. Run ids by state."""
    done, running, silent, failed, _, _ = run_ids
    now = time.time()
    store.run(done).write_status(Status("done", epoch=EPOCHS, epochs=EPOCHS, device_seconds=80.0))
    store.run(done).write_json("summary.json", {"metrics": {"abs_rel": 0.25, "rmse": 5.0}})
    for run_id, host, heard in ((running, "here", now - 5), (silent, "elsewhere", now - 3600)):
        store.run(run_id).write_attempt(Attempt(run_id, host, os.getpid()))
        store.run(run_id).write_status(Status("running", epoch=4, epochs=EPOCHS, device_seconds=40.0, updated=heard))
        rows = [{"epoch": e, "loss": 1.0, **dict.fromkeys(METRICS, 0.1 * e if e < 4 else None)} for e in range(1, 5)]
        store.run(run_id).write_table("epochs.parquet", pd.DataFrame(rows))
    store.run(failed).write_status(Status("failed", cause="OSError: disk 7 is full", epoch=2, device_seconds=20.0))
    return {"done": done, "running": running, "silent": silent, "failed": failed}


@pytest.fixture
def read_json(tiekd, store):
    """Run `tiekd status STORE WORDS --json` and return what it prints."""

    def look(*words):
        outcome = tiekd("status", store.uri, *words, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    return look


def test_study_shows_its_cells_by_state(read_json, midway):
    study = read_json()["studies"]["demo"]
    assert study["cells"] == 6
    assert study["states"] == {"done": 1, "running": 2, "waiting": 1, "failed": 1, "missing": 1}
    assert study["best"] == {"run_id": midway["done"], "cell": "loss.name=si, seed=0", "abs_rel": 0.25}
    assert study["device_hours"] == pytest.approx(180 / 3600)
    # Epochs take 10 s. The running cell has 4 left since its last update, the stale one 3 (an epoch is overdue); 8 wait.
    assert study["eta_seconds"] == pytest.approx(30.0 + 80.0, abs=20.0)


def test_running_cells_show_epoch_and_time_of_last_update(read_json, midway):
    running, silent = sorted(read_json()["running"], key=lambda c: c["heard_seconds_ago"])
    assert (running["run_id"], running["cell"], running["study"]) == (midway["running"], "loss.name=mse, seed=0", "demo")
    assert (running["epoch"], running["epochs"], running["host"]) == (4, EPOCHS, "here")
    assert running["metrics"]["abs_rel"] == pytest.approx(0.3)  # of the last validated epoch
    assert [running["silent"], silent["silent"]] == [False, True]
    assert silent["heard_seconds_ago"] >= 3600


def test_failures_are_grouped_by_cause(read_json, midway, store):
    for number in range(3):
        store.run(f"other{number}").write_status(Status("failed", cause=f"OSError: disk {number} is full"))
    store.run("diverged").write_status(Status("diverged", cause="not finite at step 9"))
    disk, diverged = read_json()["failures"]
    assert (disk["state"], disk["count"]) == ("failed", 4)
    assert set(disk["runs"]) == {midway["failed"], "other0", "other1", "other2"}
    assert disk["log"] == f"{store.uri}/runs/{disk['example']}/error.txt"
    assert (diverged["state"], diverged["count"], diverged["log"]) == ("diverged", 1, "")


def test_one_study_leaves_out_other_runs(read_json, midway, store):
    store.run("other").write_status(Status("running", epochs=3))
    assert read_json()["runs"] == 5
    assert [c["cell"] for c in read_json()["running"] if c["study"] == ""] == ["other"]
    alone = read_json("--study", "demo")
    assert (alone["runs"], list(alone["studies"])) == (4, ["demo"])
    assert {c["run_id"] for c in alone["running"]} == {midway["running"], midway["silent"]}


def test_run_without_a_process_is_stale_at_once(read_json, store):
    for name, pid in (("gone", NO_PROCESS), ("there", os.getpid())):
        store.run(name).write_attempt(Attempt(name, socket.gethostname(), pid))
        store.run(name).write_status(Status("running", epoch=1, epochs=3))
    assert {c["run_id"]: c["silent"] for c in read_json()["running"]} == {"gone": True, "there": False}


def test_text_output(tiekd, store, midway):
    lines = tiekd("status", store.uri).out.splitlines()
    assert lines[0] == "4 runs: 1 done, 1 failed, 2 running; 0.05 device-hours"
    assert lines[1].startswith("demo  6 cells  1 done  2 running  1 waiting  1 failed  1 missing  best abs_rel 0.2500: ")
    assert "18/34 epochs  left " in lines[2]
    here = next(line for line in lines if "loss.name=mse" in line)
    gone = next(line for line in lines if "loss.name=ssim, " in line)
    assert here.split()[:3] == ["4/8", "abs_rel", "0.3000"]
    assert here.endswith("on here")
    assert "on elsewhere  last update 1:00:" in gone
    assert gone.endswith("no heartbeat")
    assert lines[-2:] == [
        "1 failed: OSError: disk 7 is full",
        f"  for example {midway['failed']}, log {store.uri}/runs/{midway['failed']}/error.txt",
    ]


def test_search_shows_only_runs_that_have_started(read_json, store, run_ids):
    """The remaining seeds of a pruned point never start."""
    cells = [c for c in store.read_study("demo")["cells"] if c["run_id"]]
    search = {"study": {"kind": "search", "search": {"objectives": ["rmse"]}}, "cells": cells}
    store.write_study("demo-search", search)
    done, pruned, running, *_ = run_ids
    store.run(done).write_status(Status("done", epoch=EPOCHS, epochs=EPOCHS, device_seconds=80.0))
    store.run(done).write_json("summary.json", {"metrics": {"abs_rel": 0.25, "rmse": 5.0}})
    store.run(pruned).write_status(
        Status("missing", cause=f"{PRUNED_CAUSE} after epoch 2 of {EPOCHS}", epoch=2, device_seconds=20.0)
    )
    store.run(running).write_status(Status("running", epoch=1, epochs=EPOCHS, device_seconds=10.0))
    told = read_json()["studies"]["demo-search"]
    assert (told["cells"], told["states"]) == (3, {"done": 1, "running": 1, "pruned": 1})
    assert told["best"]["rmse"] == 5.0


def test_idle_study_is_one_line(tiekd, store, run_ids):
    store.run(run_ids[0]).write_status(Status("done", epoch=EPOCHS, epochs=EPOCHS, device_seconds=80.0))
    store.run(run_ids[0]).write_json("summary.json", {"metrics": {"abs_rel": 0.25}})
    assert len(tiekd("status", store.uri).out.splitlines()) == 2


def test_missing_store_and_study_are_refused(mistake, tiekd, store, run_ids):
    assert mistake("status", "nowhere").endswith("store nowhere: holds no runs")
    outcome = tiekd("status", store.uri, "--study", "dem")
    assert outcome.code == 2
    assert outcome.err.endswith("--study: unknown 'dem'; did you mean demo? valid: demo\n")


def test_imports_neither_pytorch_nor_ray(store, midway):
    """They would take seconds."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK_IMPORTS, "status", store.uri], capture_output=True, text=True, timeout=240, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_watch_refreshes_until_ctrl_c(store, midway):
    # A shell starts background jobs with Ctrl-C ignored, and child processes inherit that.
    words = ["env", "--default-signal=INT", sys.executable, "-m", "tiekd", "status", store.uri, "--watch", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        before = json.loads(watch.stdout.readline())
        store.run(midway["running"]).write_status(Status("done", epoch=EPOCHS, epochs=EPOCHS, device_seconds=80.0))
        looks = map(json.loads, iter(watch.stdout.readline, ""))
        after = next(look for look in looks if look["states"] != before["states"])
        watch.send_signal(signal.SIGINT)
        _, errors = watch.communicate(timeout=240)
    assert after["states"] == {"done": 2, "running": 1, "failed": 1}
    assert (watch.returncode, errors) == (0, "")
