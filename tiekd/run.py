"""One run from its config to its place in the store, whatever happens on the way."""

import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from tiekd.checkpoint import pack_student
from tiekd.config import RunConfig
from tiekd.data import check_inputs, input_digests
from tiekd.distill import describe, distill
from tiekd.errors import DivergedError
from tiekd.evaluate import check_protocol
from tiekd.networks import check_network
from tiekd.provenance import provenance
from tiekd.runtime import Runtime
from tiekd.store import FINISHED, RunRecord, RunStore, State, Status

METHOD_VERSION = "2"  # raised by hand when the same config would give other numbers


def run_id_of(config: RunConfig) -> str:
    """The run's identity: what is computed, the digests of what it reads, and the method's version.

    Raises UserError when an input is missing.
    """
    return config.fingerprint({**input_digests(config), "method_version": METHOD_VERSION})


def check_ready(config: RunConfig) -> None:
    """Raise UserError unless everything that a run will need is there: frames, maps, a network, a protocol that fits."""
    check_network(config)
    check_inputs(config)
    check_protocol(config)


def carry_out(config: RunConfig, store: RunStore, make_runtime: Callable[[RunRecord], Runtime]) -> Status:
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
    begin(config, record)
    return work(config, record, runtime)


def begin(config: RunConfig, record: RunRecord) -> None:
    """Record a run as running, for the processes that will `work` on it."""
    now = time.time()
    record.write_config(config)
    running = replace(record.status(), state="running", cause="", epochs=config.optim.epochs, host=socket.gethostname())
    record.write_status(replace(running, started=now, updated=now))
    record.delete_file("error.txt")  # of an earlier attempt


def work(config: RunConfig, record: RunRecord, runtime: Runtime) -> Status:
    """Compute a run that has begun, as one of the processes that do; the first of them writes the outcome."""
    try:
        state, cause = _compute(config, record, runtime)
    except DivergedError as error:
        state, cause = "diverged", str(error)
    except Exception as error:
        record.write_file("error.txt", traceback.format_exc().encode())
        state, cause = "failed", one_line(error)
    ended = replace(record.status(), state=state, cause=cause, updated=time.time())
    record.write_status(ended)
    return ended


def _compute(config: RunConfig, record: RunRecord, runtime: Runtime) -> tuple[State, str]:
    """Train, evaluate and store the outcome; the run's state and its cause."""
    origin = provenance(runtime.device) | {"inputs": input_digests(config)}
    record.write_json("provenance.json", origin)
    result = distill(config, runtime)
    record.write_table("images.parquet", pd.DataFrame(result.images))
    record.write_file("student.safetensors", pack_student(result.student, config))
    record.write_json("summary.json", {"run_id": record.run_id, **describe(config, result)})
    spent = record.status().device_seconds
    record.write_json("provenance.json", origin | {"device_seconds": spent, "wall_seconds": spent / runtime.world_size})
    return ("constant", "every prediction is one depth all over") if result.constant else ("done", "")


def one_line(error: BaseException) -> str:
    """An error as its type and message on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
