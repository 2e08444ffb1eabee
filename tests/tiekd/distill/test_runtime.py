import pickle

import pytest
import torch
from torch import nn

from tiekd.config import ExecutionConfig
from tiekd.distill.runtime import CHECKPOINT, LocalRuntime, choose_device, pack_state, run_device, unpack_state
from tiekd.errors import UserError
from tiekd.store.run_status import Attempt, Status
from tiekd.store.run_store import RunStore

ROWS = [{"epoch": 1, "loss": 2.0, "seconds": 1.5}, {"epoch": 2, "loss": 1.0, "seconds": 2.5}]


@pytest.fixture
def record(tmp_path):
    record = RunStore(tmp_path).run("0123")
    record.write_status(Status("running", epochs=5, started=1.0, updated=1.0))
    return record


def runtime(record, display=None) -> LocalRuntime:
    return LocalRuntime(ExecutionConfig(device="cpu"), record, display)


def test_a_state_comes_back_as_it_was():
    state = {"student": {"w": torch.arange(3.0)}, "epochs": [{"epoch": 1, "loss": 0.25, "note": "a"}], "none": None}
    back = unpack_state(pack_state(state))
    assert torch.equal(back["student"].pop("w"), state["student"].pop("w"))
    assert back == state


class Foreign:
    """What a state never holds."""


def test_a_state_that_would_run_code_is_not_read():
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights.only"):
        unpack_state(pack_state({"student": Foreign()}))


def test_a_run_begins_without_a_state(record):
    runtime(record).resume(lambda state: pytest.fail("there is no state"))
    assert record.store.damaged == {}


@pytest.mark.parametrize("content", [b"", b"PK", b"\0" * 100, b"text"])
def test_a_damaged_state_is_named_and_counts_as_none(record, content, caplog):
    record.write_file(CHECKPOINT, content)
    runtime(record).resume(lambda state: pytest.fail("it is damaged"))
    assert f"runs/0123/{CHECKPOINT} is damaged" in caplog.text
    assert "the training starts afresh" in record.damage(CHECKPOINT)


def test_seconds_of_a_run_that_starts_afresh_are_added(record):
    record.write_status(Status("running", epoch=4, epochs=5, device_seconds=10.0))
    runtime(record).report(ROWS[:1], {})
    assert (record.status().epoch, record.status().device_seconds) == (1, 10.0 + ROWS[0]["seconds"])


def test_what_was_last_reported_is_what_another_process_goes_on_from(record):
    for epoch in (1, 2):
        runtime(record).report(ROWS[:epoch], {"w": torch.full((2,), epoch), "epochs": ROWS[:epoch]})
    states = []
    runtime(record).resume(states.append)
    (state,) = states
    assert torch.equal(state["w"], torch.full((2,), 2))
    assert state["epochs"] == ROWS


def test_an_epoch_takes_four_requests_of_an_object_store(bucket, s3):
    record = RunStore(f"s3://{bucket}").run("0123")
    record.attempt = Attempt.current()
    record.write_attempt(record.attempt)
    record.write_status(Status("running", epochs=5))
    with s3.count() as counted:
        runtime(record).report(ROWS[:1], {})
    assert counted == {"GET": 1, "PUT": 3}


def test_a_report_keeps_the_rows_and_tells_how_far_the_run_is(record):
    runtime(record).report(ROWS, {})
    assert record.read_table("epochs.parquet").to_dict("records") == ROWS
    status = record.status()
    assert (status.state, status.epoch, status.epochs) == ("running", 2, 5)
    assert status.device_seconds == 4.0
    assert status.updated > 1.0


def test_one_process_is_the_whole_world(record):
    alone, student = runtime(record), nn.Linear(2, 2)
    assert (alone.rank, alone.world_size) == (0, 1)
    assert alone.wrap(student) is student
    assert alone.all_sum(torch.tensor(3.0)) == 3.0
    assert alone.gather(ROWS) == ROWS


def test_a_display_sees_every_step_and_epoch(record):
    seen = []
    shown = runtime(record, lambda **news: seen.append(news))
    shown.report_step(1, 8)
    shown.report(ROWS, {})
    assert seen == [{"step": 1, "steps": 8}, {"epoch": ROWS[-1]}]


def test_the_threads_of_pytorch_are_those_of_the_config(record):
    before = torch.get_num_threads()
    try:
        LocalRuntime(ExecutionConfig(device="cpu", cpus_per_worker=2), record)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_auto_takes_the_gpu_where_there_is_one():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu").type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(record):
    with pytest.raises(UserError, match=r"execution.device: 'cuda' was asked for, .* valid: auto, cpu"):
        LocalRuntime(ExecutionConfig(device="cuda"), record)
    reserved = ExecutionConfig(gpus_per_worker=0.5)
    with pytest.raises(UserError, match=r"^execution.gpus_per_worker: 0.5 is reserved, but PyTorch \S+ sees no GPU here .*$"):
        LocalRuntime(reserved, record)
    assert run_device(reserved.model_copy(update={"device": "cpu"})).type == "cpu"


def test_a_run_that_reserves_no_gpu_computes_on_the_cpu():
    assert run_device(ExecutionConfig(gpus_per_worker=0)).type == "cpu"
