"""Execute one run: compute it and record its outcome in the run store."""

import time
import traceback
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import torch

from tiekd.config import RunConfig
from tiekd.data import input_digests
from tiekd.distill.loop import DistillResult, distill, summarize
from tiekd.distill.runtime import CHECKPOINT, Runtime
from tiekd.distill.target_floor import stored_floor
from tiekd.errors import DivergedError, PreemptedError, StoreError, SupersededError, error_line
from tiekd.inference.prediction_sheet import prediction_sheet
from tiekd.models.checkpoint import pack_network
from tiekd.store.provenance import provenance
from tiekd.store.run_status import FINISHED, State, Status
from tiekd.store.run_store import PREDICTIONS, RunRecord


def execute(config: RunConfig, record: RunRecord, make_runtime: Callable[[], Runtime]) -> Status:
    """Compute a run in this process unless its record holds the result; resume from its checkpoint if there is one.

    record: of `ready_record`. Raises UserError if the runtime cannot be made, and then writes nothing. A failure of the work is
    recorded with its cause and returned, not raised.
    """
    status = record.status()
    if status.state in FINISHED:
        return status
    runtime = make_runtime()
    record.start(config)
    return compute_run(config, record, runtime)


def compute_run(config: RunConfig, record: RunRecord, runtime: Runtime) -> Status:
    """Compute a started run as one of its processes. Returns the run's final status as this process sees it.

    The first rank records the outcome; a failure is recorded by the first rank that meets one. Four kinds of errors are raised
    and leave the run as running, because it is resumed elsewhere or later: the loss of another process, SupersededError
    (another attempt has started), PreemptedError (the runtime was stopped), and StoreError (a failure of the store is not a
    failure of the run).
    """
    record.attempt = record.attempt or record.last_attempt()
    try:
        state, cause = _compute(config, record, runtime)
    except DivergedError as error:  # raised on every rank, since the loss is that of all ranks
        state, cause = "diverged", str(error)
    except Exception as error:
        if isinstance(error, SupersededError | PreemptedError | StoreError) or runtime.is_worker_loss(error):
            raise
        return _record_failure(record, error)
    status = replace(record.own_status(), state=state, cause=cause, updated=time.time())
    if runtime.rank == 0:
        record.write_status(status)
        if state in FINISHED:
            record.add_to_index(status)
        if state in FINISHED and not config.execution.keep_checkpoint:
            record.delete_file(CHECKPOINT)
    return status


def _record_failure(record: RunRecord, error: Exception) -> Status:
    """Record a failure, unless another rank has recorded one, which is then the cause."""
    status = record.own_status()
    if status.state == "running":
        record.write_file("error.txt", "".join(traceback.format_exception(error)).encode())
        status = replace(status, state="failed", cause=error_line(error), updated=time.time())
        record.write_status(status)
    return status


def _compute(config: RunConfig, record: RunRecord, runtime: Runtime) -> tuple[State, str]:
    """Train and evaluate; the first rank stores the results. Returns the run's state and its cause."""
    result = _compute_and_store(config, record, runtime) if runtime.rank == 0 else distill(config, runtime)
    return ("constant", "every prediction is one depth all over") if result.constant else ("done", "")


def _compute_and_store(config: RunConfig, record: RunRecord, runtime: Runtime) -> DistillResult:
    device = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else "cpu"
    origin = provenance(device) | {"inputs": input_digests(config)}
    record.write_json("provenance.json", origin)
    floor = stored_floor(config, origin["inputs"])
    result = distill(config, runtime)
    record.write_table("images.parquet", pd.DataFrame(result.images))
    if result.also:
        record.write_table("protocols.parquet", pd.DataFrame(result.also))
    record.write_file("student.safetensors", pack_network(result.student, config))
    record.write_file(PREDICTIONS, prediction_sheet(result.student, config, result.test, runtime.device))
    record.write_json("summary.json", {"run_id": record.run_id, **summarize(config, result), **floor})
    device_seconds = record.status().device_seconds
    seconds = {"device_seconds": device_seconds, "wall_seconds": device_seconds / runtime.world_size}
    damaged = record.damage(CHECKPOINT)
    record.write_json("provenance.json", origin | seconds | ({"damaged": {CHECKPOINT: damaged}} if damaged else {}))
    return result
