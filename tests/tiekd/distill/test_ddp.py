"""Ranks compute together what one process computes alone: real processes under gloo, and the runtime that trials use."""

import os
import signal
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from torch import distributed as dist
from torch import multiprocessing as mp
from torch import nn

from tiekd.config import ExecutionConfig, RunConfig, build, override
from tiekd.config.documents import with_values
from tiekd.config.specs import LOSSES
from tiekd.data import open_frames, open_inputs
from tiekd.data.inputs import run_id_of
from tiekd.distill.ddp import DDPRuntime
from tiekd.distill.loop import random_states, set_random_state, train_loader, train_step, validate
from tiekd.distill.optim import build_optimizer
from tiekd.distill.run import compute_run
from tiekd.distill.runtime import CHECKPOINT, LocalRuntime, unpack_state
from tiekd.distill.sync_batch_norm import SyncedBatchNorm, sync_batch_norms
from tiekd.errors import PreemptedError
from tiekd.losses import build_loss
from tiekd.metrics import METRICS
from tiekd.models.registry import build_network
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

pytestmark = pytest.mark.slow

BATCH = 5  # images: two ranks have 3 and 2 of them, three have 2, 2 and 1
WORLDS = (3, 2)
PUBLISHED = ("si", "mse", "ssim", "ssim_si", "ssim_mse", "l_dpm", "l_depth", "tie_kd")
RUNS = {name: {"loss.name": name} for name in PUBLISHED}
# AdaBins' students choose bins themselves; the loss on them has its own test with made-up bins.
RUNS["all others as parts"] = {"loss.parts": {name: {} for name in LOSSES if name not in (*PUBLISHED, "si_chamfer")}}
RUNS["two targets"] = {"loss.parts": {"si": {"target": "ground_truth"}, "l_dpm": {"weight": 0.1}}, "data.labelled": 3}
RUNS["plain batch norms"] = {
    "student": {"name": "timm", "encoder": "resnet10t", "levels": [1, 2], "decoder_channels": [32, 16]}
}


STOPPED = {"optim.batch_size": 3, "evaluation.every": 2, "execution.keep_checkpoint": True}  # 3 steps per epoch
TABLES = ("epochs", "images")


def first_step(config: RunConfig, runtime) -> dict:
    """Losses, gradient and running statistics of the seeded student's first step, and a row per test image.

    In float64: the gradient of a scale-invariant loss sums terms that cancel, and what float32 leaves of them is its rounding.
    """
    torch.manual_seed(config.seed)
    student = build_network(config).double()
    names = list(student.state_dict())
    model = runtime.wrap(student)
    assert list(student.state_dict()) == names
    model.train()
    loader = train_loader(open_inputs(config), config, runtime)
    optimizer = build_optimizer(student, config.optim)
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # the gradient is looked at, and the student measured as it is
    batch = {name: tensor.double() for name, tensor in next(iter(loader)).items()}
    values = train_step(model, build_loss(config), batch, optimizer, config.optim, runtime)
    return {
        "values": {name: value.item() for name, value in values.items()},
        "gradients": [p.grad.clone() for p in student.parameters()],
        "buffers": {name: buffer.clone() for name, buffer in student.named_buffers()},
        "rows": validate(student.float(), config, open_frames(config.data, "test"), runtime, last=False)[0],
    }


def interrupted_draws(runtime) -> list[torch.Tensor]:
    """A rank's random numbers as they were drawn, and as they are drawn after an interruption."""
    torch.manual_seed(runtime.rank)
    part = {"random": random_states(runtime)}
    drawn = torch.rand(4)
    torch.manual_seed(9)
    set_random_state(part, runtime)
    return [drawn, torch.rand(4)]


class StopsLast(DDPRuntime):
    """The last rank is told to stop after the first step of the second epoch."""

    def report_step(self, step, steps):
        if (step, self.rank) == (4, self.world_size - 1):
            self.stop()


def stopped_and_resumed(config: RunConfig, folder: Path) -> dict:
    """The state that a stopped run has kept, and the tables of the resumed run and of an undisturbed one."""
    records = {name: RunStore(folder / name).run(run_id_of(config)) for name in ("stopped", "undisturbed")}
    for record in records.values():
        if dist.get_rank() == 0:
            record.start(config)
        dist.barrier()
        record.attempt = record.last_attempt()
    record, device = records["stopped"], torch.device("cpu")
    with pytest.raises(PreemptedError):
        compute_run(config, record, StopsLast(device, config.execution, record))
    state = unpack_state(record.read_file(CHECKPOINT))
    dist.barrier()
    for record in records.values():
        compute_run(config, record, DDPRuntime(device, config.execution, record))
    files = {name: [record.read_table(f"{table}.parquet") for table in TABLES] for name, record in records.items()}
    return {"epochs": len(state["epochs"]), "steps": state["part"]["steps"]} | files


def work(rank: int, folder: str, configs: dict[str, RunConfig]) -> None:
    """One rank, first of three and then of two; what it computed is kept in files."""
    for world in WORLDS:
        if rank < world:
            place = f"file://{folder}/rendezvous{world}"
            dist.init_process_group("gloo", init_method=place, rank=rank, world_size=world)
            runtime = DDPRuntime(torch.device("cpu"), ExecutionConfig(), RunStore(folder).run("none"))
            results = {name: first_step(config, runtime) for name, config in configs.items()}
            if world == 2:
                results["stopped"] = stopped_and_resumed(override(configs["si"], STOPPED), Path(folder))
            results["draws"] = interrupted_draws(runtime)
            torch.save(results, f"{folder}/{world}-{rank}.pt")
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def configs(tiny_in, tmp_path_factory) -> dict[str, RunConfig]:
    base = {"optim.batch_size": BATCH, "data.test_frames": 4, "optim.clip_grad_norm": 1e9}
    store = tmp_path_factory.mktemp("store")
    return {name: tiny_in(store, base | overrides) for name, overrides in RUNS.items()}


@pytest.fixture(scope="module")
def ranks(configs, tmp_path_factory) -> dict[tuple[int, int], dict]:
    """What each rank computed, by number of ranks and rank."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, (str(folder), configs), nprocs=max(WORLDS))
    return {(w, r): torch.load(folder / f"{w}-{r}.pt", weights_only=False) for w in WORLDS for r in range(w)}


@pytest.fixture(scope="module")
def alone(configs) -> dict[str, dict]:
    """What one process computes on the whole batch."""
    store = RunStore("none")
    return {name: first_step(c, LocalRuntime(c.execution, store.run("none"))) for name, c in configs.items()}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", RUNS)
def test_ranks_have_the_loss_gradient_and_statistics_of_one_process(alone, ranks, name, world):
    expected = alone[name]
    gradient = torch.cat([g.flatten() for g in expected["gradients"]])
    for rank in range(world):
        found = ranks[world, rank][name]
        assert found["values"] == pytest.approx(expected["values"], rel=1e-5)
        error = torch.cat([g.flatten() for g in found["gradients"]]) - gradient
        assert error.norm() <= 1e-5 * gradient.norm()
        for buffer, value in expected["buffers"].items():
            torch.testing.assert_close(found["buffers"][buffer], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("world", WORLDS)
def test_every_test_image_is_validated_once_and_every_rank_has_all_rows(configs, alone, ranks, world):
    keys = open_frames(configs["si"].data, "test").keys
    for rank in range(world):
        rows = ranks[world, rank]["si"]["rows"]
        assert [row["image"] for row in rows] == keys
        for row, one in zip(rows, alone["si"]["rows"], strict=True):
            assert {name: row[name] for name in METRICS} == pytest.approx({name: one[name] for name in METRICS}, rel=1e-5)


@pytest.mark.parametrize("world", WORLDS)
def test_each_rank_goes_on_with_its_own_random_numbers(ranks, world):
    drawn = [ranks[world, rank]["draws"] for rank in range(world)]
    assert all(torch.equal(before, after) for before, after in drawn)
    assert len({tuple(before.tolist()) for before, _ in drawn}) == world


def test_a_rank_that_stops_stops_all_after_the_same_step(ranks):
    for rank in range(2):
        found = ranks[2, rank]["stopped"]
        assert (found["epochs"], found["steps"]) == (1, 1)
    for pair in zip(found["stopped"], found["undisturbed"], strict=True):
        pd.testing.assert_frame_equal(*(t.drop(columns="seconds", errors="ignore") for t in pair), check_exact=True)


# -- batch norm, in this process: a group of one ----------------------------------------------------------------------------


@pytest.fixture
def group_of_one(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("encoder", ["resnet10t", "mobilenetv3_small_050"], ids=["plain", "with activation"])
def test_a_synchronised_network_is_the_same_network(group_of_one, encoder):
    torch.manual_seed(0)
    network = timm.create_model(encoder, features_only=True)
    batches = torch.randn(3, 4, 3, 64, 64)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    expected = [f.detach() for batch in batches for f in network.train()(batch)]
    expected += network.eval()(batches[0])
    after = network.state_dict()
    other = timm.create_model(encoder, features_only=True)
    other.load_state_dict(before)
    parameters = list(other.parameters())
    sync_batch_norms(other)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in other.modules())
    assert any(isinstance(module, SyncedBatchNorm) for module in other.modules())
    assert all(a is b for a, b in zip(parameters, other.parameters(), strict=True))  # or an optimiser would lose them
    found = [f.detach() for batch in batches for f in other.train()(batch)]
    found += other.eval()(batches[0])
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)
    assert list(other.state_dict()) == list(after)
    for name, tensor in other.state_dict().items():
        torch.testing.assert_close(tensor, after[name], rtol=1e-5, atol=1e-6)


def test_the_moments_of_a_far_away_channel_are_exact(group_of_one):
    norm = nn.BatchNorm2d(2)
    x = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 1e4]).view(1, 2, 1, 1)
    expected = ((x.double() - x.double().mean((0, 2, 3), True)) / x.double().std((0, 2, 3), correction=0, keepdim=True)).float()
    torch.testing.assert_close(SyncedBatchNorm(norm)(x), expected, rtol=1e-3, atol=1e-3)


# -- what a rank keeps, and what it makes of another's death ----------------------------------------------------------------


def test_the_device_seconds_are_those_of_all_ranks(group_of_one, tmp_path):
    record = RunStore(tmp_path).run("0123")
    record.write_status(Status("running", epochs=3))
    runtime = DDPRuntime(torch.device("cpu"), ExecutionConfig(), record)
    rows = [{"epoch": epoch, "seconds": 2.0 * epoch} for epoch in (1, 2)]
    runtime.report(rows[:1], {})
    runtime.world_size = 3
    runtime.report(rows, {"epochs": rows})
    assert (record.status().epoch, record.status().device_seconds) == (2, 2.0 + 3 * 4.0)
    states = []
    runtime.resume(states.append)
    assert states == [{"epochs": rows}]


def meet_and_die(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    runtime = DDPRuntime(torch.device("cpu"), ExecutionConfig(), RunStore(folder).run("none"))
    runtime.all_sum(torch.ones(1))
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        runtime.all_sum(torch.ones(1))
    except Exception as error:
        Path(folder, "lost").write_text(str(runtime.is_worker_loss(error)))
        os._exit(0)  # as a worker ends: without taking leave of the others


def test_a_dead_rank_is_told_from_a_failure_of_the_work(group_of_one, tmp_path):
    processes = [mp.get_context("spawn").Process(target=meet_and_die, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, -signal.SIGKILL]
    assert (tmp_path / "lost").read_text() == "True"
    runtime = DDPRuntime(torch.device("cpu"), ExecutionConfig(), RunStore(tmp_path).run("none"))
    assert not any(map(runtime.is_worker_loss, (RuntimeError("out of memory"), OSError("[..]/gloo/ is a folder"))))


def test_what_a_rank_meets_once_its_group_is_gone_is_of_another_ranks_end(tmp_path):
    """As Ray Train leaves a worker that was still building its network when another one failed."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    runtime = DDPRuntime(torch.device("cpu"), ExecutionConfig(), RunStore(tmp_path).run("none"))
    dist.destroy_process_group()
    with pytest.raises(ValueError, match="process group") as met:
        runtime.wrap(nn.Linear(1, 1))
    assert runtime.is_worker_loss(met.value)


def test_more_workers_than_images_in_a_batch_are_refused():
    document = {"data": {"dataset": "synthetic-indoor"}, "loss": {"name": "si", "target": "ground_truth"}}
    with pytest.raises(ValueError, match=r"execution.workers: .* got 3 for optim.batch_size 2"):
        build(with_values(document, {"execution.workers": 3, "optim.batch_size": 2}))
