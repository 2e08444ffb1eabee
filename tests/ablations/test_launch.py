"""What a launch records of runs that did not end by themselves, and the clusters it refuses; starts none."""

import socket

import pytest
from ray import tune

from ablations.launch import Sweep, cluster, settle
from tiekd.config import ExecutionConfig
from tiekd.errors import UserError
from tiekd.store import RunStore, Status

SWEEP = Sweep(
    name="demo",
    trainable=print,
    execution=ExecutionConfig(),
    callback=tune.Callback(),
    run_id=lambda params: params["point"],
)
DIED = RuntimeError("a first line\n\n  The worker died: SIGKILL  \n")


@pytest.fixture
def record(tmp_path):
    """A run that is under way."""
    record = RunStore(tmp_path).run("0123")
    record.write_status(Status("running", epoch=2, epochs=9, device_seconds=5.0))
    return record


def end(record, error=None, **metrics):
    """Settle a trial of the run that ended with these metrics."""
    metrics = {"config": {"point": "0123"}, **metrics}
    settle(tune.Result(metrics=metrics, checkpoint=None, error=error, path=""), SWEEP, record.store)
    return record.status()


@pytest.mark.parametrize("reported", [{}, {"run_id": "0123", "epoch": 2}], ids=["never", "an epoch"])
def test_a_run_whose_process_died_too_often_is_failed(record, reported):
    status = end(record, DIED, **reported)
    assert (status.state, status.epoch, status.device_seconds) == ("failed", 2, 5.0)
    assert status.cause == "the trial's process ended 3 times: The worker died: SIGKILL"


def test_a_run_that_a_scheduler_stopped_is_missing(record):
    status = end(record, epoch=2)
    assert (status.state, status.cause) == ("missing", "pruned by the scheduler after epoch 2 of 9")


def test_a_run_that_ended_by_itself_keeps_its_state(record):
    for state in ("done", "failed", "diverged"):
        record.write_status(Status(state))
        assert end(record, state=state).state == state


def test_a_run_that_was_done_before_its_process_died_stays_done(record):
    record.write_status(Status("done"))
    assert end(record, DIED).state == "done"


@pytest.fixture(scope="module")
def silent_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]  # taken, but nobody listens


@pytest.mark.timeout(30)
@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_an_address_where_nothing_listens_is_refused_at_once(silent_port, prefix):
    address = f"{prefix}127.0.0.1:{silent_port}"
    with (
        pytest.raises(UserError, match=f"--address {address}: no Ray cluster answers there"),
        cluster(address, ExecutionConfig()),
    ):
        pass


def test_an_address_that_is_none_is_refused():
    with (
        pytest.raises(UserError, match=r"--address nowhere: no Ray cluster answers there"),
        cluster("nowhere", ExecutionConfig()),
    ):
        pass


def test_trials_of_several_workers_are_refused():
    with pytest.raises(UserError, match="trials of one worker only"), cluster(None, ExecutionConfig(workers=2)):
        pass
