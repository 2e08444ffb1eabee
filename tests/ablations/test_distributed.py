"""Trials of two workers on a real Ray that they fill: what they compute, and what they lose when their processes are killed."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from torch import distributed as dist
from torch import multiprocessing as mp

from ablations.launch import Sweep, cluster, run_sweep
from ablations.progress import FailureLimit
from ablations.resources import check_devices, check_room, trial_resources
from ablations.trial import compute_cell
from tiekd.config import ExecutionConfig, RunConfig, build
from tiekd.data import open_frames
from tiekd.data.dataset import EpochSampler
from tiekd.documents import with_values
from tiekd.errors import UserError
from tiekd.parallel import ParallelRuntime
from tiekd.run import begin, carry_out, run_id_of, work
from tiekd.runtime import LocalRuntime
from tiekd.store import RunStore

EPOCHS = 24
WORKERS = 2
THREADS = max((os.cpu_count() or WORKERS) // WORKERS, 1)  # of each worker: together they fill the machine


@pytest.fixture(scope="module")
def base(tiny) -> dict:
    """A run of some seconds on two workers."""
    execution = {"execution.workers": WORKERS, "execution.cpus_per_worker": THREADS, "execution.device": "cpu"}
    return with_values(tiny, {"optim.epochs": EPOCHS, "evaluation.every": EPOCHS, **execution})


@pytest.fixture(scope="module")
def broken_maps(maps, base, tmp_path_factory) -> SimpleNamespace:
    """A folder of maps of which one is damaged, and that one's key: the frame that the second rank reads first."""
    folder = tmp_path_factory.mktemp("broken") / "maps"
    shutil.copytree(maps, folder)
    keys = open_frames(build(base).data, "train").keys
    sampler = EpochSampler(len(keys), base["optim"]["batch_size"], seed=0, rank=1, world_size=WORKERS)
    sampler.set_epoch(1)
    key = keys[next(iter(sampler))[0][1]]
    file = folder / f"{key}.png"
    file.write_bytes(file.read_bytes()[:-100])  # its head is whole, as far as one looks before the work
    return SimpleNamespace(folder=folder, key=key)


# -- undisturbed -----------------------------------------------------------------------------------------------------------


def compute_as_rank(rank: int, folder: str, configs: list[RunConfig]) -> None:
    """One of two processes without Ray."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORKERS)
    for config in configs:
        record = RunStore(f"{folder}/store").run(run_id_of(config))
        if rank == 0:
            begin(config, record)
        dist.barrier()
        work(config, record, ParallelRuntime(torch.device("cpu"), THREADS, record))
    dist.destroy_process_group()


def metrics_in(folder: Path) -> dict[str, dict]:
    """Metrics of the runs that are done, by run id."""
    summaries = {record.run_id: record.read_json("summary.json") for record in RunStore(folder).runs()}
    return {run_id: summary["metrics"] for run_id, summary in summaries.items() if summary}


@pytest.fixture(scope="module")
def undisturbed(base, tmp_path_factory) -> dict[str, dict]:
    """Metrics of two runs on two processes that nothing disturbed, by run id."""
    folder = tmp_path_factory.mktemp("undisturbed")
    configs = [build(with_values(base, {"loss.name": loss})) for loss in ("si", "mse")]
    mp.spawn(compute_as_rank, (str(folder), configs), nprocs=WORKERS)
    return metrics_in(folder / "store")


def test_one_worker_ends_where_two_do(base, undisturbed, tmp_path):
    config = build(with_values(base, {"execution.workers": 1}))
    carry_out(config, RunStore(tmp_path), lambda record: LocalRuntime(config.execution, record))
    ((run_id, alone),) = metrics_in(tmp_path).items()
    # The gradients agree to 1e-5; 48 steps of AdamW, which divides by their size, spread their rounding.
    assert undisturbed[run_id] == pytest.approx(alone, rel=1e-2)


# -- a study whose processes are killed one after the other -----------------------------------------------------------------


@pytest.fixture(scope="module")
def command(base, broken_maps, as_yaml, tmp_path_factory) -> tuple:
    """A study of two cells, the second with a damaged map."""
    folder = tmp_path_factory.mktemp("study")
    broken = {"teacher.name": "broken", "teacher.maps": str(broken_maps.folder)}
    study = {"name": "demo", "base": base, "factors": {"maps": {"whole": {"teacher.name": "perfect"}, "broken": broken}}}
    return "ablate", as_yaml(folder / "study.yaml", study), "--store", folder / "store"


@pytest.fixture(scope="module")
def killed(driver, command, base, until) -> SimpleNamespace:
    """The study, killed as a whole, launched again, and then robbed of a worker and of the Train controller."""
    store = RunStore(command[-1])
    record = store.run(run_id_of(build(base)))

    def further(epochs: int) -> None:
        """Wait until the run has come so many epochs further, in processes that have begun since."""
        last = record.status()
        until(lambda: record.status().epoch >= last.epoch + epochs and record.status().attempt != last.attempt, timeout=180)

    with driver(*command) as study:
        further(3)
        study.kill()
    first = record.status()
    with driver(*command) as study:
        further(3)
        os.kill(study.processes("ray::RayTrainWorker")[0], signal.SIGKILL)
        further(3)
        os.kill(study.processes("ray::TrainController")[0], signal.SIGKILL)
        code, out = study.wait(timeout=240)
    return SimpleNamespace(store=store, record=record, first=first, code=code, out=out)


def test_a_run_goes_on_whatever_process_dies_and_ends_as_if_none_had(killed, undisturbed):
    assert killed.first.state == "running"
    assert killed.record.status().state == "done", killed.out
    assert killed.record.read_json("summary.json")["metrics"] == undisturbed[killed.record.run_id]
    epochs = killed.record.read_table("epochs.parquet")
    assert list(epochs["epoch"]) == list(range(1, EPOCHS + 1))
    done = killed.first.epoch
    assert killed.first.device_seconds == pytest.approx(WORKERS * epochs["seconds"][:done].sum())  # not computed again


def test_a_failure_of_one_worker_is_the_runs_with_its_cause(killed, broken_maps):
    (failed,) = (r for r in killed.store.runs() if r.run_id != killed.record.run_id)
    status = failed.status()
    assert (killed.code, status.state, status.epoch) == (1, "failed", 0)
    assert f"{broken_maps.key}.png" in status.cause
    traceback = failed.read_file("error.txt").decode()
    assert traceback.startswith("Traceback")
    assert broken_maps.key in traceback
    assert "2 cells: 1 done, 1 failed; computed 2" in killed.out


def test_where_a_run_was_computed_is_no_part_of_it(killed, command, tiekd):
    before = {record.run_id for record in killed.store.runs()}
    outcome = tiekd(*command, "--set", "execution.workers=1", "--only", "maps=whole")
    assert outcome.code == 0, outcome.err
    assert "nothing to compute" in outcome.out
    assert {record.run_id for record in killed.store.runs()} == before


# -- a trial that a scheduler ends ------------------------------------------------------------------------------------------


class StopsOne(FIFOScheduler):
    """Stops one run at its first epoch."""

    def __init__(self, run_id: str):
        super().__init__()
        self.run_id = run_id

    def on_trial_result(self, controller, trial, result):
        return FIFOScheduler.STOP if result["run_id"] == self.run_id else FIFOScheduler.CONTINUE


@pytest.fixture(scope="module")
def own_cluster(base, ray_folder) -> Iterator[None]:
    with cluster(None, build(base).execution):
        yield


def test_a_pruned_trial_ends_its_workers_and_leaves_the_machine_to_the_next(base, undisturbed, own_cluster, tmp_path):
    store = RunStore(tmp_path)
    changes = {"execution.store": str(tmp_path)}
    configs = {run_id_of(c): c for c in (build(with_values(base, {"loss.name": loss, **changes})) for loss in ("si", "mse"))}
    pruned, last = configs
    sweep = Sweep(
        name="demo",
        trainable=tune.with_parameters(compute_cell, configs={run_id: c.document() for run_id, c in configs.items()}),
        execution=configs[last].execution,
        callback=tune.Callback(),
        stopper=FailureLimit(0),
        run_id=lambda params: params["run_id"],
        points=list(configs),
        scheduler=StopsOne(pruned),
    )
    store.write_study(sweep.name, {"cells": []})  # as a launch does: its trials find a store that has begun
    run_sweep(sweep, store)
    status = store.run(pruned).status()
    assert status.state == "missing"
    assert status.cause.startswith("pruned by the scheduler after epoch ")
    assert 1 <= status.epoch < EPOCHS
    assert metrics_in(tmp_path) == {last: undisturbed[last]}


# -- room ------------------------------------------------------------------------------------------------------------------


def test_a_cluster_has_room_for_a_trial_or_says_what_it_lacks(base, own_cluster):
    fits = build(base).execution
    check_room(fits)
    with pytest.raises(
        UserError, match=r"execution.workers: a trial asks for 3 workers of \d+ CPUs, the cluster has room for 2$"
    ):
        check_room(fits.model_copy(update={"workers": 3}))
    with pytest.raises(
        UserError, match=r"execution.cpus_per_worker: a trial asks for 4096 CPUs, .* has \d+ on its largest node"
    ):
        check_room(fits.model_copy(update={"cpus_per_worker": 4096}))
    with pytest.raises(UserError, match=r"execution.gpus_per_worker: a trial asks for 512 GPUs"):
        check_room(fits.model_copy(update={"gpus_per_worker": 512.0}))


def test_workers_reserve_a_bundle_each_and_their_trial_nothing():
    several = trial_resources(ExecutionConfig(workers=3, cpus_per_worker=2, gpus_per_worker=0.5))
    assert (several.head_cpus, several.bundles) == (0, [{"CPU": 2, "GPU": 0.5}] * 3)
    alone = trial_resources(ExecutionConfig(cpus_per_worker=2))
    assert (alone.head_cpus, alone.bundles) == (2, [{"CPU": 2}])


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 0.0), ("cpu", 1.0)])
def test_workers_compute_on_what_they_reserve(device, gpus):
    execution = ExecutionConfig(workers=2, device=device, gpus_per_worker=gpus)
    with pytest.raises(
        UserError, match=f"execution.device '{device}' with execution.gpus_per_worker {gpus:g}: 2 workers compute"
    ):
        check_devices(execution)
    check_devices(execution.model_copy(update={"workers": 1}))
    check_devices(execution.model_copy(update={"device": "auto"}))
