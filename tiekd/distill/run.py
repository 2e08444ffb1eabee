"""One run from its config to its place in the store, whatever happens on the way."""

import time
import traceback
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import torch

from tiekd.config import RunConfig
from tiekd.data import input_digests
from tiekd.distill.loop import DistillResult, distill, summarize
from tiekd.distill.preflight import check_ready, run_id_of
from tiekd.distill.runtime import Runtime
from tiekd.errors import DivergedError, StoreError, SupersededError, error_line
from tiekd.models.checkpoint import pack_network
from tiekd.store.provenance import provenance
from tiekd.store.run_status import FINISHED, Attempt, State, Status
from tiekd.store.run_store import RunRecord, RunStore


def execute(config: RunConfig, store: RunStore, make_runtime: Callable[[RunRecord], Runtime]) -> Status:
    """Compute a run in this process unless the store already holds it; go on from its checkpoint when there is one.

    Mistakes that show before the work begins raise UserError and write nothing. A failure of the work itself is recorded with
    its cause and returned, not raised.
    """
    check_ready(config)
    record = store.run(run_id_of(config))
    known = record.status()
    if known.state in FINISHED:
        return known
    runtime = make_runtime(record)
    start_run(config, record)
    return compute_run(config, record, runtime)


def start_run(config: RunConfig, record: RunRecord) -> None:
    """Record a run as running, for the processes that will `compute_run` on it.

    Who works on it from an earlier beginning, in a launch that was thought dead or beside this one, stops at its epoch's end.
    """
    now = time.time()
    record.attempt = Attempt.current()
    record.write_config(config)
    record.write_attempt(record.attempt)
    running = replace(record.status(), state="running", cause="", epochs=config.optim.epochs)
    record.write_status(replace(running, started=now, updated=now))
    record.delete_file("error.txt")  # of an earlier attempt


def compute_run(config: RunConfig, record: RunRecord, runtime: Runtime) -> Status:
    """Compute a run that has begun, as one of the processes that do. Returns its end as this process sees it.

    The first rank records the outcome; a failure is recorded by whichever rank meets one first. An error that tells of a lost
    process is raised and the run left as running: it goes on from its checkpoint once its processes are started again. So is
    SupersededError: the run goes on in another process; and StoreError: that the store fails is no failure of the run.
    """
    record.attempt = record.attempt or record.last_attempt()
    try:
        state, cause = _compute(config, record, runtime)
    except DivergedError as error:  # on every rank, for the losses are of all ranks
        state, cause = "diverged", str(error)
    except Exception as error:
        if isinstance(error, SupersededError | StoreError) or runtime.is_worker_loss(error):
            raise
        return _fail(record, error)
    ended = replace(record.own_status(), state=state, cause=cause, updated=time.time())
    if runtime.rank == 0:
        record.write_status(ended)
    return ended


def _fail(record: RunRecord, error: Exception) -> Status:
    """Record a failure, unless another rank did so before: that one's is the cause."""
    status = record.own_status()
    if status.state == "running":
        record.write_file("error.txt", "".join(traceback.format_exception(error)).encode())
        status = replace(status, state="failed", cause=error_line(error), updated=time.time())
        record.write_status(status)
    return status


def _compute(config: RunConfig, record: RunRecord, runtime: Runtime) -> tuple[State, str]:
    """Train and evaluate; the first rank stores the outcome. Returns the run's state and its cause."""
    result = _compute_and_keep(config, record, runtime) if runtime.rank == 0 else distill(config, runtime)
    return ("constant", "every prediction is one depth all over") if result.constant else ("done", "")


def _compute_and_keep(config: RunConfig, record: RunRecord, runtime: Runtime) -> DistillResult:
    device = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else "cpu"
    origin = provenance(device) | {"inputs": input_digests(config)}
    record.write_json("provenance.json", origin)
    result = distill(config, runtime)
    record.write_table("images.parquet", pd.DataFrame(result.images))
    record.write_file("student.safetensors", pack_network(result.student, config))
    record.write_json("summary.json", {"run_id": record.run_id, **summarize(config, result)})
    spent = record.status().device_seconds
    record.write_json("provenance.json", origin | {"device_seconds": spent, "wall_seconds": spent / runtime.world_size})
    return result
