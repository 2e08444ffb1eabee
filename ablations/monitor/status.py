"""The `status` verb: progress of a store's runs and studies, read from the store alone, also while they run."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from ablations.monitor.failure_groups import FailureGroup, group_failures
from ablations.monitor.study_progress import (
    FAILURE_STATES,
    CellProgress,
    StudyProgress,
    cell_progress,
    finite,
    log_path,
    process_of,
)
from ablations.monitor.terminal import ProgressDisplay, failure_lines, running_lines
from tiekd.cli.console import make_console
from tiekd.errors import UserError, unknown
from tiekd.store.documents import StudyDocument
from tiekd.store.files import json_text
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunRecord, RunStore

REFRESH_S = 2.0


@dataclass(frozen=True)
class StoreStatus:
    """Contents of a store, or of one of its studies, at one time."""

    uri: str
    runs: dict[str, Status]  # by run id
    studies: list[StudyProgress]
    unassigned: StudyProgress  # running runs without a study
    n_unassigned: int  # all runs without a study
    failures: list[FailureGroup]
    time: float  # seconds since 1970
    damaged: dict[str, str] = field(default_factory=dict)  # reasons by file

    @property
    def device_hours(self) -> float:
        return sum(status.device_seconds for status in self.runs.values()) / 3600

    @property
    def states(self) -> dict[str, int]:
        """Number of runs by state."""
        return dict(Counter(status.state for status in self.runs.values()))

    def to_dict(self) -> dict[str, Any]:
        studies = [*self.studies, self.unassigned]
        return {
            "store": self.uri,
            "time": self.time,
            "runs": len(self.runs),
            "states": self.states,
            "runs_without_study": self.n_unassigned,
            "device_hours": self.device_hours,
            "running": [_cell_dict(study, c, self.time) for study in studies for c in study.in_state("running")],
            "failures": [failure.to_dict() for failure in self.failures],
            "damaged": self.damaged,
            "studies": {study.title: _study_dict(study, self.time) for study in self.studies},
        }

    def __rich__(self) -> RenderableType:
        return Group(*self._parts())

    def _parts(self) -> Iterator[RenderableType]:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        yield Text(f"{len(self.runs)} runs: {counts or 'none'}; {self.device_hours:.2f} device-hours")
        for study in self.studies:
            yield ProgressDisplay(study, self.time)
        if running := self.unassigned.in_state("running"):
            yield Text("Runs without a study:")
            yield from running_lines(self.unassigned, running, self.time)
        if self.n_unassigned and self.studies:
            yield Text(
                f"{self.n_unassigned} runs belong to no study: runs of `tiekd run`, or of an earlier version of a study whose "
                "cells or search space have changed"
            )
        yield from failure_lines(self.failures)


def read_status(store: RunStore, study: str | None = None) -> StoreStatus:
    """Read the status of a store, or of one of its studies. Raises UserError if the store holds no runs or no such study."""
    known = store.studies()
    if study is not None and study not in known:
        raise UserError(unknown(f"store {store.uri}: --study", study, known))
    documents = {name: found for name in (known if study is None else [study]) if (found := store.read_study(name))}
    assigned = {c["run_id"] for document in documents.values() for c in document["cells"]} - {None}
    assigned |= {run_id for document in documents.values() for run_id in document.get("teachers", ())}
    run_ids = store.list_folders("runs")
    store.load_index(run_ids)
    records = [store.run(run_id) for run_id in run_ids if study is None or run_id in assigned]
    runs = dict(zip([record.run_id for record in records], store.read_each(RunRecord.status, records), strict=True))
    if not runs and not known:
        raise UserError(f"store {store.uri}: holds no runs")
    studies = [_study_progress(name, document, runs, store) for name, document in documents.items()]
    running = [run_id for run_id, status in runs.items() if status.state == "running" and run_id not in assigned]
    unassigned = StudyProgress("", [_unassigned_cell(store.run(run_id), runs[run_id]) for run_id in running])
    failed = ((i, s) for i, s in runs.items() if s.state in FAILURE_STATES)
    failures = group_failures((i, s.state, s.cause, log_path(store.run(i)) if s.state == "failed" else "") for i, s in failed)
    unassigned_runs = len(runs.keys() - assigned)
    return StoreStatus(store.uri, runs, studies, unassigned, unassigned_runs, failures, time.time(), dict(store.damaged))


def _study_progress(name: str, study: StudyDocument, runs: dict[str, Status], store: RunStore) -> StudyProgress:
    """Return the progress of a study's cells; each run counts once."""
    search = study["study"].get("kind") == "search"
    cells = {c["run_id"] or f"without inputs {i}": c for i, c in enumerate(study["cells"])}
    if search:  # when a point is pruned, the runs with its remaining seeds never start
        cells = {run_id: c for run_id, c in cells.items() if run_id in runs}

    def read(record: RunRecord) -> CellProgress:
        found = cell_progress(cells[record.run_id], record, runs.get(record.run_id, Status("missing")))
        return replace(found, metrics=_last_metrics(record)) if found.state == "running" else found

    settings: Any = (study["study"].get("search") or {}) if search else {}
    objective, seeds = (settings.get("objectives") or ["abs_rel"])[0], settings.get("seeds") or [0]
    return StudyProgress(name, store.read_each(read, map(store.run, cells)), objective, len(seeds))


def _unassigned_cell(record: RunRecord, status: Status) -> CellProgress:
    return CellProgress(
        name=record.run_id,
        run_id=record.run_id,
        state=status.state,
        epoch=status.epoch,
        epochs=status.epochs,
        device_seconds=status.device_seconds,
        metrics=_last_metrics(record),
        last_update=status.updated,
        **process_of(record),
    )


def _last_metrics(record: RunRecord) -> dict[str, float]:
    """Return the metrics of the last validated epoch of a running run; empty before the first."""
    epochs = record.epochs()
    rows = epochs.to_pylist() if epochs else []
    return next((found for row in reversed(rows) if (found := finite(row))), {})


def _cell_dict(study: StudyProgress, cell: CellProgress, now: float) -> dict[str, Any]:
    return {
        "study": study.title,
        "run_id": cell.run_id,
        "cell": cell.name,
        "epoch": cell.epoch,
        "epochs": cell.epochs,
        "metrics": cell.metrics,
        "host": cell.host,
        "heard_seconds_ago": now - cell.last_update,
        "silent": cell in study.stale(now),
    }


def _study_dict(study: StudyProgress, now: float) -> dict[str, Any]:
    best = study.best
    return {
        "cells": len(study.cells),
        "states": study.counts,
        "eta_seconds": study.eta_seconds(now),
        "best": best and {"run_id": best.run_id, "cell": best.name, study.objective: best.metrics[study.objective]},
        "device_hours": study.device_hours,
    }


def show_status(store: RunStore, study: str | None, as_json: bool) -> None:
    """Print the status once."""
    status = read_status(store, study)
    print(json_text(status.to_dict(), indent=2)) if as_json else make_console().print(status, soft_wrap=True)


def watch_status(store: RunStore, study: str | None, as_json: bool) -> None:
    """Print the status every REFRESH_S until Ctrl-C; a terminal is updated in place."""
    console = make_console()
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        live = None if as_json or not console.is_terminal else stack.enter_context(Live(console=console, auto_refresh=False))
        while True:
            status = read_status(store, study)
            if as_json:
                print(json_text(status.to_dict()), flush=True)
            elif live:
                live.update(status, refresh=True)
            else:
                console.print(status, soft_wrap=True)
            time.sleep(REFRESH_S)
