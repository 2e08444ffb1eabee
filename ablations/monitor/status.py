"""Where a store's runs and studies stand, read from the store alone: also from another shell while they run."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from ablations.monitor.failure_groups import FailureGroup, group_failures
from ablations.monitor.study_progress import FAILURE_STATES, CellProgress, StudyProgress, cell_progress, log_path, process_of
from ablations.monitor.terminal import ProgressDisplay, failure_lines, running_lines
from tiekd.cli.console import make_console
from tiekd.config.labels import METRICS
from tiekd.errors import UserError, unknown
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunRecord, RunStore

LOOK_EVERY_S = 2.0


@dataclass(frozen=True)
class StoreStatus:
    """What a store held when it was looked at, or one of its studies."""

    uri: str
    runs: dict[str, Status]
    studies: list[StudyProgress]
    unassigned: StudyProgress  # the running runs of no study
    failures: list[FailureGroup]
    when: float  # seconds since 1970

    @property
    def device_hours(self) -> float:
        return sum(status.device_seconds for status in self.runs.values()) / 3600

    @property
    def states(self) -> dict[str, int]:
        return dict(Counter(status.state for status in self.runs.values()))

    def to_dict(self) -> dict[str, Any]:
        studies = [*self.studies, self.unassigned]
        return {
            "store": self.uri,
            "time": self.when,
            "runs": len(self.runs),
            "states": self.states,
            "device_hours": self.device_hours,
            "running": [_running(progress, c, self.when) for progress in studies for c in progress.in_state("running")],
            "failures": [failure.to_dict() for failure in self.failures],
            "studies": {progress.title: _summary(progress, self.when) for progress in self.studies},
        }

    def __rich__(self) -> RenderableType:
        return Group(*self._parts())

    def _parts(self) -> Iterator[RenderableType]:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        yield Text(f"{len(self.runs)} runs: {counts or 'none'}; {self.device_hours:.2f} device-hours")
        for progress in self.studies:
            yield ProgressDisplay(progress, self.when)
        if running := self.unassigned.in_state("running"):
            yield Text("of no study:")
            yield from running_lines(self.unassigned, running, self.when)
        yield from failure_lines(self.failures)


def read_status(store: RunStore, study: str | None = None) -> StoreStatus:
    """Look at a store, or at one of its studies alone. Raises UserError where there is nothing to look at."""
    known = store.studies()
    if study is not None and study not in known:
        raise UserError(unknown(f"store {store.uri}: --study", study, known))
    records = {name: record for name in (known if study is None else [study]) if (record := store.read_study(name))}
    wanted = {c["run_id"] for record in records.values() for c in record["cells"]} - {None}
    chosen = [record for record in store.runs() if study is None or record.run_id in wanted]
    runs = dict(zip([record.run_id for record in chosen], store.read_each(RunRecord.status, chosen), strict=True))
    if not runs and not known:
        raise UserError(f"store {store.uri}: holds no runs")
    studies = [_study_progress(name, record, runs, store) for name, record in records.items()]
    unassigned = [
        _unassigned_cell(store.run(i), status) for i, status in runs.items() if status.state == "running" and i not in wanted
    ]
    unfit = ((i, s) for i, s in runs.items() if s.state in FAILURE_STATES)
    failures = group_failures((i, s.state, s.cause, log_path(store.run(i)) if s.state == "failed" else "") for i, s in unfit)
    return StoreStatus(store.uri, runs, studies, StudyProgress("", unassigned), failures, time.time())


def _study_progress(name: str, study: dict[str, Any], runs: dict[str, Status], store: RunStore) -> StudyProgress:
    """A study's cells, each run once."""
    search = study["study"].get("kind") == "search"
    cells = {c["run_id"] or f"without inputs {i}": c for i, c in enumerate(study["cells"])}
    if search:  # of a point that was given up, the runs with further seeds are never begun
        cells = {run_id: c for run_id, c in cells.items() if run_id in runs}

    def look(record: RunRecord) -> CellProgress:
        found = cell_progress(cells[record.run_id], record, runs.get(record.run_id, Status("missing")))
        return replace(found, metrics=_last_metrics(record)) if found.state == "running" else found

    objective = study["study"]["search"]["objectives"][0] if search else "abs_rel"
    return StudyProgress(name, store.read_each(look, map(store.run, cells)), objective)


def _unassigned_cell(record: RunRecord, status: Status) -> CellProgress:
    times = {"device_seconds": status.device_seconds, "last_update": status.updated}
    reached = {"epoch": status.epoch, "epochs": status.epochs, "metrics": _last_metrics(record)}
    return CellProgress(record.run_id, record.run_id, state=status.state, **reached, **times, **process_of(record))


def _last_metrics(record: RunRecord) -> dict[str, float]:
    """Of a running run's last validated epoch."""
    epochs = record.read_table("epochs.parquet")
    if epochs is None or METRICS[0] not in epochs:
        return {}
    validated = epochs.dropna(subset=METRICS[0])
    return {name: float(validated[name].iloc[-1]) for name in METRICS} if len(validated) else {}


def _running(progress: StudyProgress, cell: CellProgress, now: float) -> dict[str, Any]:
    return {
        "study": progress.title,
        "run_id": cell.run_id,
        "cell": cell.name,
        "epoch": cell.epoch,
        "epochs": cell.epochs,
        "metrics": cell.metrics,
        "host": cell.host,
        "heard_seconds_ago": now - cell.last_update,
        "silent": cell in progress.stale(now),
    }


def _summary(progress: StudyProgress, now: float) -> dict[str, Any]:
    best = progress.best
    found = best and {"run_id": best.run_id, "cell": best.name, progress.objective: best.metrics[progress.objective]}
    return {
        "cells": len(progress.cells),
        "states": progress.counts,
        "eta_seconds": progress.eta_seconds(now),
        "best": found,
        "device_hours": progress.device_hours,
    }


def show_status(store: RunStore, study: str | None, as_json: bool) -> None:
    """Print how things stand."""
    found = read_status(store, study)
    print(json.dumps(found.to_dict(), indent=2)) if as_json else make_console().print(found, soft_wrap=True)


def watch_status(store: RunStore, study: str | None, as_json: bool) -> None:
    """Print how things stand again and again, on a terminal in one place, until Ctrl-C."""
    console = make_console()
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        live = None if as_json or not console.is_terminal else stack.enter_context(Live(console=console, auto_refresh=False))
        while True:
            found = read_status(store, study)
            if as_json:
                print(json.dumps(found.to_dict()), flush=True)
            elif live:
                live.update(found, refresh=True)
            else:
                console.print(found, soft_wrap=True)
            time.sleep(LOOK_EVERY_S)
