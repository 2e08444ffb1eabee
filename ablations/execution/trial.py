"""What a Tune trial does: runs, each carried out in the trial's process or on several workers that it starts.

PyTorch is imported in functions: the launching process, which hands these to Ray, has no use for it.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from ray import tune

from ablations.planning.search_point import ReportFn, SeedRuns, execute_point
from tiekd.config import RunConfig, build
from tiekd.distill.preflight import run_id_of
from tiekd.errors import StoreError, SupersededError, UserError, error_line
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunRecord, RunStore


def compute_cell(params: dict[str, Any], configs: dict[str, dict]) -> None:
    """A study's cell: `params["run_id"]` names one of the config documents."""
    with _report_store_errors():
        tune.report(execute_run(configs[params["run_id"]], tune.report))


def compute_point(params: dict[str, Any], repeats: SeedRuns) -> None:
    """A search's trial: the runs of the point that `params` holds under "point", unless "begin_by" (s since 1970) is over."""
    if time.time() > params["begin_by"]:  # Tune asks for a trial while its slot is still taken
        tune.report({"state": "waiting", "cause": "the hours are over", "epoch": 0})
        return
    with _report_store_errors():
        tune.report(execute_point(params["point"], repeats, execute_run, tune.report))


@contextlib.contextmanager
def _report_store_errors() -> Iterator[None]:
    """A store that fails is no failure of the trial, which would be tried again: it ends the launch."""
    try:
        yield
    except StoreError as error:
        tune.report({"store_error": str(error)})


def execute_run(document: dict[str, Any], report: ReportFn) -> dict[str, Any]:
    """Carry out the run of a config document, unless the store holds it. Returns its outcome, for `tune.report`.

    The processes of trials outlive them, so nothing is kept.
    """
    try:
        config = build(document)
        store = RunStore(config.execution.store, must_exist=True)
        status = _execute(config, store, report)
        return outcome(store, run_id_of(config), status)
    except SupersededError as error:  # another launch has begun the run
        return {"run_id": run_id_of(config), "state": "running", "cause": str(error), "epoch": 0}
    except UserError as error:  # a point of a search that contradicts itself, or an input that went missing
        return {"run_id": "", "state": "failed", "cause": error_line(error), "epoch": 0}


def _execute(config: RunConfig, store: RunStore, report: ReportFn) -> Status:
    if config.execution.workers > 1:
        from ablations.execution.runtime_train import execute_on_workers  # Ray Train takes seconds to import

        return execute_on_workers(config, store, report)
    from ablations.execution.runtime_tune import TuneRuntime
    from tiekd.distill.run import carry_out
    from tiekd.distill.runtime import LocalRuntime

    def runtime(record: RunRecord) -> TuneRuntime:
        return TuneRuntime(LocalRuntime(config.execution, record), record.run_id, config.optim.epochs, report)

    return carry_out(config, store, runtime)


def outcome(store: RunStore, run_id: str, status: Status) -> dict[str, Any]:
    """A trial's last result: the run's state and, if it is done, its metrics."""
    summary = store.run(run_id).read_json("summary.json") if status.state == "done" else None
    metrics = summary["metrics"] if summary else {}
    ended = {"state": status.state, "cause": status.cause, "epoch": status.epoch, "device_seconds": status.device_seconds}
    return {"run_id": run_id, **ended, **metrics}
