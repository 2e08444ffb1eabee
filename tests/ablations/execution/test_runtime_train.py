"""Trials with two workers that use all CPUs of a local Ray: their results, failures, and recovery from killed processes."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors.torch import load
from support.driver import ONE_PROCESS
from support.maps import cut_map, unsampled, write_perfect_maps
from support.runs import compute

from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.data import open_frames
from tiekd.data.dataset import EpochSampler
from tiekd.data.inputs import run_id_of
from tiekd.distill.runtime import CHECKPOINT, unpack_state
from tiekd.store.claims import claimed
from tiekd.store.run_store import RunRecord, RunStore

EPOCHS = 12
WORKERS = 2
THREADS = max((os.cpu_count() or WORKERS) // WORKERS, 1)  # per worker; together they use all CPUs


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory) -> dict:
    """A run of a few seconds on two workers: 4 steps per epoch, with more training frames than are read before it."""
    data, folder = tiny["data"] | {"train_frames": 16}, tmp_path_factory.mktemp("teacher") / "maps"
    write_perfect_maps(folder, data)
    tiny = tiny | {"data": data, "teacher": {"name": "perfect", "maps": str(folder)}}
    execution = {"execution.workers": WORKERS, "execution.cpus_per_worker": THREADS, "execution.device": "cpu"}
    return with_values(tiny, {"optim.epochs": EPOCHS, "evaluation.every": EPOCHS, **execution})


@pytest.fixture(scope="module")
def broken_maps(base, tmp_path_factory) -> SimpleNamespace:
    """A folder of maps with a damaged one, and its key: that of a frame that the second rank reads in the first epoch."""
    folder = tmp_path_factory.mktemp("broken") / "maps"
    shutil.copytree(base["teacher"]["maps"], folder)
    keys = open_frames(build(base).data, "train").keys
    sampler = EpochSampler(len(keys), base["optim"]["batch_size"], seed=0, rank=1, world_size=WORKERS)
    sampler.set_epoch(1)
    indices = [index for batch in sampler for _, index in batch]
    key = keys[next(index for index in indices if index in unsampled(len(keys)))]
    cut_map(folder, key)
    return SimpleNamespace(folder=folder, key=key)


# -- a launch ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command(base, broken_maps, as_yaml, tmp_path_factory) -> tuple:
    """A study of equal runs, told apart by the names of their teachers, one of them brief; the last two must fail.

    One reads a damaged map, the other cannot write its files. One cell at a time, so that they begin in this order.
    """
    folder = tmp_path_factory.mktemp("study")
    maps = {
        "undisturbed": {"teacher.name": "undisturbed"},
        "brief": {"teacher.name": "brief", "optim.epochs": 1, "evaluation.every": 1},
        "killed": {"teacher.name": "killed"},
        "superseded": {"teacher.name": "superseded"},
        "broken": {"teacher.name": "broken", "teacher.maps": str(broken_maps.folder)},
        "unwritten": {"teacher.name": "unwritten"},
    }
    unwritten = run_id_of(build(with_values(base, maps["unwritten"])))
    (folder / "store" / "runs" / unwritten / "provenance.json").mkdir(
        parents=True
    )  # a folder in place of the first file that a worker writes
    always = with_values(base, {"execution.checkpoint_minutes": 1e-9})
    study = as_yaml(folder / "study.yaml", {"name": "demo", "base": always, "factors": {"maps": maps}})
    return "ablate", study, *ONE_PROCESS, "--store", folder / "store"


@pytest.fixture(scope="module")
def record_of(command, base) -> Callable[..., RunRecord]:
    """The record of a cell, by its teacher's name and what else it changes."""
    return lambda name, **changes: RunStore(command[-1]).run(run_id_of(build(with_values(base, named(name) | changes))))


def named(teacher: str) -> dict[str, str]:
    return {"teacher.name": teacher}


@pytest.fixture(scope="module")
def launch(driver, command, base, record_of) -> SimpleNamespace:
    """The study's launch. It kills a worker of one run within an epoch, and later the Train controller.

    This process takes over the next run, as `tiekd run` would, and does not continue it.
    """
    undisturbed, killed, superseded = map(record_of, ("undisturbed", "killed", "superseded"))
    workers: set[int] = set()
    kept = {"part": None}

    def with_workers(reached: bool) -> bool:
        workers.update(study.processes("ray::RayTrainWorker"))
        return reached

    def kill(process: str) -> dict:
        """Kill a process within an epoch that new processes compute. Returns the state from which others resume."""
        epoch, attempt = killed.status().epoch, killed.last_attempt()
        study.until(lambda: killed.status().epoch > epoch and unpack_state(killed.read_file(CHECKPOINT))["part"])
        os.kill(study.processes(process)[0], signal.SIGKILL)
        study.until(lambda: killed.last_attempt() != attempt)
        return unpack_state(killed.read_file(CHECKPOINT))

    with driver(*command, "--json") as study:
        study.until(lambda: with_workers(undisturbed.status().state == "done"))
        study.until(lambda: with_workers(killed.status().epoch >= 1))
        while not kept["part"]:  # if the epoch has ended before the worker
            kept = kill("ray::RayTrainWorker")
        kill("ray::TrainController")
        study.until(lambda: superseded.status().epoch >= 3)
        with claimed(superseded.store, superseded.run_id):
            superseded.start(build(with_values(base, named("superseded"))))
            code, out = study.wait(timeout=240)
    *lines, last = out.splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return SimpleNamespace(workers=workers, kept=kept, code=code, events=events, last=last)


def events_of(launch: SimpleNamespace, cell: str) -> list[str]:
    """Return the cell's events in order, without epochs."""
    return [e["event"] for e in launch.events if e.get("cell", "").startswith(f"maps={cell}") and e["event"] != "epoch"]


@pytest.mark.slow
def test_two_workers_give_the_result_of_one(launch, record_of, base, tmp_path):
    config = build(with_values(base, named("undisturbed") | {"execution.workers": 1}))
    alone, together = compute(config, RunStore(tmp_path)), record_of("undisturbed")
    assert alone.run_id == together.run_id
    # The gradients agree to 1e-5; 48 steps of AdamW, which divides by their magnitude, amplify the rounding.
    assert together.metrics() == pytest.approx(alone.metrics(), rel=1e-2)


def test_workers_stay_for_the_next_run(launch):
    """Seen until the third run was in progress."""
    for cell in ("undisturbed", "brief"):
        assert events_of(launch, cell) == ["started", "finished"]
    assert len(launch.workers) == WORKERS


def test_run_resumes_within_an_epoch_after_the_death_of_a_worker_or_the_controller(launch, record_of):
    killed, undisturbed = record_of("killed"), record_of("undisturbed")
    assert killed.status().state == "done"
    assert len(launch.kept["part"]["random"]) == WORKERS
    epochs, expected = (record.read_table("epochs.parquet") for record in (killed, undisturbed))
    pd.testing.assert_frame_equal(epochs.drop(columns="seconds"), expected.drop(columns="seconds"), check_exact=True)
    assert killed.read_file("images.parquet") == undisturbed.read_file("images.parquet")
    student, other = (load(record.read_file("student.safetensors")) for record in (killed, undisturbed))
    torch.testing.assert_close(student, other, rtol=0, atol=0)
    assert list(epochs["epoch"]) == list(range(1, EPOCHS + 1))
    before = [epoch["seconds"] for epoch in launch.kept["epochs"]]
    assert list(epochs["seconds"])[: len(before)] == before  # not computed again
    assert killed.status().device_seconds == pytest.approx(WORKERS * epochs["seconds"].sum())
    first, *between, last = events_of(launch, "killed")
    assert (first, last) == ("started", "finished")
    assert between.count("lost") >= 2


def test_workers_leave_a_run_that_was_taken_over(launch, record_of):
    """The other cells were computed afterwards."""
    superseded = record_of("superseded")
    assert events_of(launch, "superseded") == ["started"]
    (note,) = [e["words"] for e in launch.events if e["event"] == "note"]
    assert f": run {superseded.run_id}: taken over by process {os.getpid()} on " in note
    assert superseded.status().state == "running"


def test_failure_of_one_worker_fails_the_run_without_a_retry(launch, record_of, broken_maps):
    broken = record_of("broken", **{"teacher.maps": str(broken_maps.folder)})
    status = broken.status()
    assert (status.state, status.epoch) == ("failed", 0)
    assert f"{broken_maps.key}.png" in status.cause
    traceback = broken.read_file("error.txt").decode()
    assert traceback.startswith("Traceback")
    assert broken_maps.key in traceback
    assert events_of(launch, "broken") == ["started", "failed"]


def test_worker_that_cannot_write_to_the_store_ends_the_launch_in_one_line(launch, record_of):
    unwritten = record_of("unwritten")
    assert launch.code == 1
    assert launch.last.startswith(f"tiekd: cannot write runs/{unwritten.run_id}/provenance.json in store ")
    assert unwritten.status().state == "running"
    assert unwritten.read_file("error.txt") is None
    assert events_of(launch, "unwritten") == ["started"]
    assert launch.events[-1]["event"] != "summary"


def test_number_of_workers_is_not_part_of_a_runs_identity(launch, command, record_of, tiekd):
    store = record_of("killed").store
    before = {record.run_id for record in store.runs()}
    outcome = tiekd(*command, "--set", "execution.workers=1", "--only", "maps=killed")
    assert outcome.code == 0, outcome.err
    assert "nothing to compute" in outcome.out
    assert {record.run_id for record in store.runs()} == before
