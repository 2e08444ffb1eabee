"""Logs every epoch of every run to TensorBoard and MLflow exactly once, across restarts and launches.

Ray's own loggers name runs by trial, count epochs from 1 again after a restart, and start a second run at each launch. These
read missing epochs from the run's `epochs.parquet` in the store.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from ablations.monitor.reporters import Reporter
from ablations.monitor.study_progress import CellProgress
from tiekd.config.documents import flatten
from tiekd.errors import StoreError, UserError, error_line
from tiekd.store.event_log import NOT_SCALARS, EventLog
from tiekd.store.files import safe_name
from tiekd.store.run_store import PREDICTIONS, RunRecord, RunStore

MLFLOW_URI = "MLFLOW_TRACKING_URI"  # environment variable
RUN_ID, STATE = "tiekd.run_id", "tiekd.state"  # tags of MLflow's runs
MLFLOW_SETTINGS = {  # defaults for the environment: a sweep must not wait for a server, nor MLflow write to its screen
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
Row = dict[str, float]


class Sink(Protocol):
    """Destination of scalars."""

    def open(self, cell: CellProgress, record: RunRecord) -> int:
        """Start or resume the log of a run. Returns the last epoch that it contains."""
        ...

    def write(self, run_id: str, epoch: int, scalars: Row) -> None: ...

    def close(self, run_id: str, cell: CellProgress) -> None:
        """Finish the log: the run has ended, or the launch has."""
        ...


class RunLogger(Reporter):
    """Passes each epoch to a sink once, in order. If the sink fails, logging stops with a message and the sweep continues."""

    def __init__(self, sink: Sink, store: RunStore, console: Console):
        self._sink, self._store, self._console = sink, store, console
        self._open: dict[str, tuple[CellProgress, int]] = {}  # by run id: cell, last epoch written
        self._broken = False

    def report(self, event: str, cell: CellProgress, numbers: Row) -> None:
        if cell.run_id and event not in ("started", "lost"):
            self._try(self._log_event, event, cell, numbers)

    def close(self) -> None:
        for run_id, (cell, _) in self._open.items():
            self._try(self._sink.close, run_id, cell)

    def _try(self, action: Callable[..., None], *arguments: Any) -> None:
        if self._broken:
            return
        try:
            action(*arguments)
        except StoreError:  # ends the launch, which prints it
            self._broken = True
        except Exception as error:
            self._broken = True
            name = type(self._sink).__name__
            line = Text.assemble((f"logging to {name} stopped", "red"), f", the study continues: {error_line(error)}")
            self._console.print(line, soft_wrap=True)

    def _log_event(self, event: str, cell: CellProgress, numbers: Row) -> None:
        for run_id in {cell.run_id, *cell.run_ids}:
            record = self._store.run(run_id)
            if run_id not in self._open:
                self._open[run_id] = cell, self._sink.open(cell, record)
            for row in self._new_epochs(record, cell, numbers):
                scalars = {name: value for name, value in row.items() if name not in NOT_SCALARS and value == value}
                self._sink.write(run_id, int(row["epoch"]), scalars)
                self._open[run_id] = cell, int(row["epoch"])
            if event != "epoch":
                self._sink.close(run_id, cell)
                del self._open[run_id]

    def _new_epochs(self, record: RunRecord, cell: CellProgress, numbers: Row) -> list[Row]:
        """Return the epochs of a run that the sink does not have yet."""
        _, written = self._open[record.run_id]
        if "loss" in numbers and (record.run_id, cell.epoch) == (cell.run_id, written + 1):
            return [{"epoch": cell.epoch, **numbers}]
        # The run was resumed after an earlier launch, or has ended: its last epoch has no event of its own.
        table = record.epochs()
        rows = table.to_pylist() if table else []
        return [{name: value for name, value in row.items() if value is not None} for row in rows if row["epoch"] > written]


class TensorBoard:
    """A folder per run, named after its cell, in the study's folder. A launch that resumes a run rewrites its folder."""

    def __init__(self, study: str, store: RunStore):
        self._folder, self._store = Path(store.root) / "studies" / study / "tensorboard", store
        self._logs: dict[str, EventLog] = {}

    def open(self, cell: CellProgress, record: RunRecord) -> int:
        try:
            self._logs[record.run_id] = EventLog(self._folder / f"{safe_name(cell.name)} {record.run_id[:8]}")
        except FileNotFoundError:
            record.status()  # raises StoreError if the store has vanished
            raise
        return 0

    def write(self, run_id: str, epoch: int, scalars: Row) -> None:
        self._logs[run_id].write_epoch(epoch, scalars)

    def close(self, run_id: str, cell: CellProgress) -> None:
        log = self._logs.pop(run_id)
        if cell.state == "done":
            log.write_outcome(cell.factors, cell.metrics, self._store.run(run_id).read_file(PREDICTIONS))
        log.close()


class MLflow:
    """One MLflow run per cell, at MLFLOW_TRACKING_URI, in an experiment named after the study. A relaunch resumes the run."""

    def __init__(self, study: str):
        for name, value in MLFLOW_SETTINGS.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow import MlflowClient, MlflowException
        except ImportError:
            raise UserError(f"{MLFLOW_URI} is set, but MLflow is not installed: pip install 'tiekd[mlflow]'") from None
        try:
            self._client = MlflowClient()
            found = self._client.get_experiment_by_name(study)
            self._experiment = found.experiment_id if found else self._client.create_experiment(study)
        except MlflowException as error:
            raise UserError(f"{MLFLOW_URI}={os.environ[MLFLOW_URI]}: cannot connect to MLflow ({error_line(error)})") from None
        self._runs: dict[str, str] = {}  # MLflow's run ids by ours

    def open(self, cell: CellProgress, record: RunRecord) -> int:
        from mlflow.entities import Param

        known = self._client.search_runs([self._experiment], f"tags.`{RUN_ID}` = '{record.run_id}'", max_results=1)
        if known:
            run = self._runs[record.run_id] = known[0].info.run_id
            self._client.update_run(run, status="RUNNING")
            return max((int(m.step) for m in self._client.get_metric_history(run, "loss")), default=0)
        run = self._client.create_run(self._experiment, tags={RUN_ID: record.run_id}, run_name=cell.name).info.run_id
        self._runs[record.run_id] = run
        config = record.config()
        settings = flatten(config.document()) if config else {}
        self._client.log_batch(run, params=[Param(path, str(value)) for path, value in settings.items()])
        return 0

    def write(self, run_id: str, epoch: int, scalars: Row) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, epoch) for name, value in scalars.items()]
        self._client.log_batch(self._runs[run_id], metrics=metrics)

    def close(self, run_id: str, cell: CellProgress) -> None:
        status = {"done": "FINISHED", "failed": "FAILED"}.get(cell.state, "KILLED")
        run = self._runs.pop(run_id)
        self._client.set_tag(run, STATE, cell.state)
        self._client.set_terminated(run, status)
