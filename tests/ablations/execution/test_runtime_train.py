"""Trials with two workers that use all CPUs of a local Ray: their results, failures, and recovery from killed processes."""

import json
import os
import shutil
import signal
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors.torch import load
from support.maps import cut_map, unsampled, write_perfect_maps
from support.runs import compute
from torch import distributed as dist
from torch import multiprocessing as mp

from tiekd.config import RunConfig, build
from tiekd.config.documents import with_values
from tiekd.data import open_frames
from tiekd.data.dataset import EpochSampler
from tiekd.data.inputs import run_id_of
from tiekd.distill.ddp import DDPRuntime
from tiekd.distill.run import compute_run
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


# -- undisturbed -----------------------------------------------------------------------------------------------------------


def compute_as_rank(rank: int, folder: str, config: RunConfig) -> None:
    """Body of one of two processes, without Ray."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORKERS)
    record = RunStore(f"{folder}/store").run(run_id_of(config))
    if rank == 0:
        record.start(config)
    dist.barrier()
    compute_run(config, record, DDPRuntime(torch.device("cpu"), config.execution, record))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def undisturbed(base, tmp_path_factory) -> RunRecord:
    """The uninterrupted run on two processes."""
    folder, config = tmp_path_factory.mktemp("undisturbed"), build(base)
    mp.spawn(compute_as_rank, (str(folder), config), nprocs=WORKERS)
    return RunStore(folder / "store").run(run_id_of(config))


@pytest.mark.slow
def test_one_worker_gives_the_result_of_two(base, undisturbed, tmp_path):
    alone = compute(build(with_values(base, {"execution.workers": 1})), RunStore(tmp_path))
    assert alone.run_id == undisturbed.run_id
    # The gradients agree to 1e-5; 48 steps of AdamW, which divides by their magnitude, amplify the rounding.
    assert undisturbed.metrics() == pytest.approx(alone.metrics(), rel=1e-2)


# -- a study launched three times --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command(base, broken_maps, as_yaml, tmp_path_factory) -> tuple:
    """A study of three cells: whole, one with a damaged map, and one whose files cannot be written."""
    folder = tmp_path_factory.mktemp("study")
    maps = {
        "whole": {"teacher.name": "perfect"},
        "broken": {"teacher.name": "broken", "teacher.maps": str(broken_maps.folder)},
        "unwritten": {"teacher.name": "unwritten"},
    }
    unwritten = run_id_of(build(with_values(base, maps["unwritten"])))
    (folder / "store" / "runs" / unwritten / "provenance.json").mkdir(
        parents=True
    )  # a folder in place of the first file that a worker writes
    always = with_values(base, {"execution.checkpoint_minutes": 1e-9})
    study = as_yaml(folder / "study.yaml", {"name": "demo", "base": always, "factors": {"maps": maps}})
    return "ablate", study, "--store", folder / "store"


def of_cell(command: tuple, base: dict, **changes: str) -> RunRecord:
    return RunStore(command[-1]).run(run_id_of(build(with_values(base, changes))))


@pytest.fixture(scope="module")
def superseded(driver, command, base, broken_maps) -> SimpleNamespace:
    """The first launch. This process takes over the first run, as `tiekd run` would, and does not continue it."""
    record, config = of_cell(command, base), build(base)
    broken = of_cell(command, base, **{"teacher.name": "broken", "teacher.maps": str(broken_maps.folder)})
    unwritten = of_cell(command, base, **{"teacher.name": "unwritten"})

    with driver(*command, "--json") as study:
        study.until(lambda: record.status().epoch >= 3)
        with claimed(record.store, record.run_id):
            record.start(config)
            code, out = study.wait(timeout=240)
    *lines, last = out.splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    first = record.status()
    return SimpleNamespace(record=record, first=first, broken=broken, unwritten=unwritten, code=code, events=events, last=last)


@pytest.fixture(scope="module")
def killed(superseded, driver, command) -> SimpleNamespace:
    """The second launch, of the first cell only, in which a worker is killed within an epoch, and then the Train controller."""
    record, first = superseded.record, superseded.record.status()
    kept = {"part": None}

    def kill(process: str) -> dict:
        """Kill a process within an epoch that new processes compute. Returns the state from which others resume."""
        epoch, attempt = record.status().epoch, record.last_attempt()
        study.until(lambda: record.status().epoch > epoch and unpack_state(record.read_file(CHECKPOINT))["part"])
        os.kill(study.processes(process)[0], signal.SIGKILL)
        study.until(lambda: record.last_attempt() != attempt)
        return unpack_state(record.read_file(CHECKPOINT))

    with driver(*command, "--only", "maps=whole") as study:
        study.until(lambda: record.last_attempt().pid != os.getpid())
        while not kept["part"]:  # if the epoch has ended before the worker
            kept = kill("ray::RayTrainWorker")
        kill("ray::TrainController")
        code, out = study.wait(timeout=240)
    return SimpleNamespace(record=record, first=first, kept=kept, code=code, out=out)


def events_of(events: list[dict], cell: str) -> list[str]:
    """Return the cell's events in order, without epochs."""
    return [e["event"] for e in events if e.get("cell", "").startswith(f"maps={cell}") and e["event"] != "epoch"]


def test_workers_leave_a_run_that_was_taken_over(superseded):
    """The other cells were computed meanwhile."""
    assert events_of(superseded.events, "whole") == ["started"]
    (note,) = [e["words"] for e in superseded.events if e["event"] == "note"]
    assert f": run {superseded.record.run_id}: taken over by process {os.getpid()} on " in note
    assert superseded.first.state == "running"


def test_failure_of_one_worker_fails_the_run_without_a_retry(superseded, broken_maps):
    status = superseded.broken.status()
    assert (status.state, status.epoch) == ("failed", 0)
    assert f"{broken_maps.key}.png" in status.cause
    traceback = superseded.broken.read_file("error.txt").decode()
    assert traceback.startswith("Traceback")
    assert broken_maps.key in traceback
    assert events_of(superseded.events, "broken") == ["started", "failed"]


def test_worker_that_cannot_write_to_the_store_ends_the_launch_in_one_line(superseded):
    assert superseded.code == 1
    assert superseded.last.startswith(f"tiekd: cannot write runs/{superseded.unwritten.run_id}/provenance.json in store ")
    assert superseded.unwritten.status().state == "running"
    assert superseded.unwritten.read_file("error.txt") is None
    assert events_of(superseded.events, "unwritten") == ["started"]
    assert superseded.events[-1]["event"] != "summary"


def test_run_resumes_within_an_epoch_after_the_death_of_a_worker_or_the_controller(killed, undisturbed):
    assert killed.first.state == "running"
    assert (killed.code, killed.record.status().state) == (0, "done"), killed.out
    assert len(killed.kept["part"]["random"]) == WORKERS
    epochs, expected = (record.read_table("epochs.parquet") for record in (killed.record, undisturbed))
    pd.testing.assert_frame_equal(epochs.drop(columns="seconds"), expected.drop(columns="seconds"), check_exact=True)
    assert killed.record.read_file("images.parquet") == undisturbed.read_file("images.parquet")
    student, other = (load(record.read_file("student.safetensors")) for record in (killed.record, undisturbed))
    torch.testing.assert_close(student, other, rtol=0, atol=0)
    assert list(epochs["epoch"]) == list(range(1, EPOCHS + 1))
    done = killed.first.epoch
    assert killed.first.device_seconds == pytest.approx(WORKERS * epochs["seconds"][:done].sum())  # not computed again
    told = [line for line in killed.out.splitlines() if line.startswith("waiting ")]
    assert len(told) >= 2
    assert all(line.endswith("; resumes from its last checkpoint") for line in told)


def test_number_of_workers_is_not_part_of_a_runs_identity(killed, command, tiekd):
    before = {record.run_id for record in killed.record.store.runs()}
    outcome = tiekd(*command, "--set", "execution.workers=1", "--only", "maps=whole")
    assert outcome.code == 0, outcome.err
    assert "nothing to compute" in outcome.out
    assert {record.run_id for record in killed.record.store.runs()} == before
