"""Outcomes recorded for runs whose process died or that a scheduler stopped; no Ray is started."""

import re
from pathlib import Path

import pytest
from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

import ablations
from ablations.execution.cluster import ray_cluster
from ablations.execution.sweep import Sweep, raise_if_of_ray, settle_run
from ablations.execution.trial_failures import record_death
from ablations.execution.tune_callback import FailureLimit
from tiekd.config import ExecutionConfig
from tiekd.distill.runtime import save_epoch
from tiekd.errors import ClusterError, SupersededError, UserError
from tiekd.store.claims import CLAIMS, Claims, Launch, open_launch
from tiekd.store.run_status import Attempt, Status
from tiekd.store.run_store import RunStore

# Messages of Ray.
KILLED = """The actor died unexpectedly before finishing this task.
\tclass_name: ImplicitFunc
\tpid: 4711
\tip: 192.0.2.2
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed"""
MEMORY = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, ID: 9e6d0ef8) \
was 3.37GB used / 23.54GB limit (0.143102)
OOM kill reason: Memory usage 3614703616B exceeded threshold of 252765008B"""
NODE = """The actor died unexpectedly before finishing this task.
The actor died because its node has died. Node Id: c7945075
\tthe actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats"""
SOCKET = (
    "The actor is unavailable: The actor is temporarily unavailable: RpcError: RPC error: Socket closed rpc_code: 14. The task"
)
GLOO = """RuntimeError: the workers ended without an outcome: [/__w/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] \
Connection closed by peer [192.0.2.3]:16537. This is typically caused by a remote worker crashing."""
EXIT = "The actor is dead. Worker exit detail: Worker exits with an exit code 3. The worker may have"
CAUSES = {
    "killed by SIGKILL (out of memory, or killed manually)": KILLED,
    "killed by Ray's memory monitor: 3.37GB of 23.54GB in use on 192.0.2.2": MEMORY,
    "its node was lost: health check failed due to missing too many heartbeats": NODE,
    "its node was lost: Socket closed": SOCKET,
    "the connection between its workers was lost: Connection closed by peer": GLOO,
    "ended with exit code 3": EXIT,
}


@pytest.fixture
def record(tmp_path):
    """A run in progress."""
    record = RunStore(tmp_path).run("0123")
    record.write_status(Status("running", epoch=2, epochs=9, device_seconds=5.0))
    return record


def settle(trial, store) -> None:
    sweep = Sweep(
        name="demo",
        trainable=print,
        execution=ExecutionConfig(),
        callback=tune.Callback(),
        stopper=FailureLimit(0),
        run_id=lambda params: params["point"],
        searcher=Searcher(),
        claims=Claims(store, Launch.current()),
    )
    settle_run(trial, sweep, store)


def end(record, status=Trial.TERMINATED, **result):
    """Settle a trial of the run that ended with this result. Returns the run's status."""
    trial = Trial("compute", config={"point": "0123"}, stub=True)
    trial.run_metadata.last_result = result
    trial.status = status
    settle(trial, record.store)
    return record.status()


@pytest.mark.parametrize(("cause", "message"), CAUSES.items(), ids=["killed", "memory", "node", "socket", "gloo", "exit"])
def test_run_whose_process_died_too_often_is_failed(record, cause, message):
    record_death(record, message)
    status = record.status()
    assert (status.state, status.epoch, status.device_seconds) == ("failed", 2, 5.0)
    assert status.cause == f"its process died 3 times in epoch 3: {cause}"
    assert record.read_file("error.txt").decode() == message


def test_run_stopped_by_a_scheduler_is_missing(record):
    status = end(record, epoch=2, done=True)
    assert (status.state, status.cause) == ("missing", "pruned by the scheduler after epoch 2 of 9")


def test_worker_of_a_settled_run_cannot_write(record):
    worker = record.store.run(record.run_id)
    worker.attempt = Attempt.current()
    worker.write_attempt(worker.attempt)
    ended = end(record, epoch=2, done=True)
    with pytest.raises(SupersededError):
        save_epoch(worker, [{"epoch": 3, "seconds": 1.0}], {}, workers=2)
    assert (record.status(), record.read_table("epochs.parquet")) == (ended, None)


def test_settling_does_not_create_a_run_that_never_started(record):
    unknown = record.store.run("4567")
    trial = Trial("compute", config={"point": "4567"}, stub=True)
    settle(trial, record.store)
    assert unknown.status().state == "missing"
    assert [run.run_id for run in record.store.runs()] == ["0123"]


def test_run_stopped_with_its_launch_is_missing(record):
    status = end(record, epoch=2, done=False)
    assert (status.state, status.cause) == ("missing", "stopped with its launch after epoch 2 of 9")


def test_run_that_another_launch_computes_is_left_to_it(record):
    with open_launch(record.store) as other:
        other.take(record.run_id)
        assert end(record, Trial.ERROR).state == "running"
        assert other.holds(record.run_id)
    assert end(record, epoch=2, done=True).state == "missing"
    assert record.store.list_files(CLAIMS) == {}


def test_run_that_recorded_its_outcome_keeps_it(record):
    for state in ("done", "failed", "diverged"):
        record.write_status(Status(state))
        assert end(record, state=state).state == state


def test_run_that_was_done_before_its_process_died_stays_done(record):
    record.write_status(Status("done"))
    assert end(record, Trial.ERROR).state == "done"


def test_an_error_that_ray_causes_in_tune_is_one_line():
    """Tune ends with a RuntimeError if Ray kills the process of a trial that is just starting."""
    try:
        raise RuntimeError("Caught unexpected exception") from OutOfMemoryError(
            "1 worker(s) were killed: low memory\nMemory: 22 GB"
        )
    except RuntimeError as error:
        with pytest.raises(
            ClusterError, match=r"^Ray failed \(OutOfMemoryError: 1 worker\(s\) .* low memory\); rerun the same"
        ):
            raise_if_of_ray(error)
    raise_if_of_ray(RuntimeError("of the program"))


def test_launch_refuses_workers_without_their_gpu():
    execution = ExecutionConfig(workers=2, device="cuda", gpus_per_worker=0)
    with pytest.raises(UserError, match="a worker sees only the GPUs that it reserves"), ray_cluster(None, execution):
        pass


def test_no_module_puts_objects_into_rays_object_store():
    """Ray kills a driver that holds an object when the raylet ends, and SIGTERM to a whole job ends both.

    Except the pool of a command on many frames, which sends a network once and says nothing about its end.
    """
    for file in {*Path(ablations.__file__).parent.rglob("*.py")} - {Path(ablations.__file__).parent / "pool/ray_pool.py"}:
        assert not re.search(r"\bray\.put\(|\bwith_parameters\(", file.read_text()), file.name
