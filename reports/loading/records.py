"""Reading the run store, file by file.

A run that cannot be read is failed, with the reason as its cause; it neither hides other runs nor becomes a number.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import yaml

from reports.loading.schema import METRICS
from tiekd.errors import StoreError, UserError, unknown
from tiekd.store.run_status import STATES, Status
from tiekd.store.run_store import RunRecord, RunStore

# What files that are cut off, edited by hand or written by another version raise when they are read.
UNREADABLE = (StoreError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError, OSError)


@dataclass(frozen=True)
class StoredRun:
    """What one run's folder holds. Metrics are empty unless the run is done."""

    run_id: str | None
    status: Status
    document: dict | None = None  # its config, unchecked
    metrics: dict[str, float] = field(default_factory=dict)
    protocol: str = ""
    n_images: int | None = None
    device_seconds: float | None = None
    provenance: dict = field(default_factory=dict)
    epochs: pa.Table | None = None


class PlannedRun(NamedTuple):
    """One cell of a study under one seed.

    Factors are what the study varies: dotted paths, or names of its own. Without its inputs a run has no id yet.
    """

    run_id: str | None
    config: dict
    factors: dict
    cause: str  # which input is missing


@dataclass(frozen=True)
class StudyRecord:
    """A study as it was launched; its document keeps the settings of a search, `importance` the share of each parameter.

    `commands` are the launches, each as words.
    """

    name: str
    title: str = ""
    document: dict = field(default_factory=dict)
    planned: tuple[PlannedRun, ...] = ()
    importance: dict[str, float] = field(default_factory=dict)
    commands: tuple[list[str], ...] = ()

    @property
    def is_search(self) -> bool:
        return self.document.get("kind") == "search"


def read_studies(store: RunStore, only: str | None = None) -> dict[str, StudyRecord]:
    """Studies by name. An unreadable study is the user's to mend: without it, cells never run would be missed unseen."""
    names = store.studies()
    if only is not None and only not in names:
        raise UserError(unknown("--study", only, names))
    found = {}
    for name in names if only is None else [only]:
        try:
            content = store.read_study(name)
            if content is not None:
                found[name] = _study(name, content, store.read_json(f"studies/{name}/findings.json") or {})
        except UNREADABLE as error:
            raise UserError(f"store {store.uri}: studies/{name}/study.json is unreadable: {error_summary(error)}") from None
    if only is not None and only not in found:
        raise UserError(f"--study {only}: studies/{only}/study.json is missing in store {store.uri}: launch it first")
    return found


def _study(name: str, content: dict, findings: dict) -> StudyRecord:
    document = content["study"]
    planned = tuple(map(_planned, content["cells"]))
    commands = tuple(content.get("commands", ()))
    return StudyRecord(name, document.get("title") or "", document, planned, findings.get("importance", {}), commands)


def _planned(cell: dict) -> PlannedRun:
    return PlannedRun(cell["run_id"], cell["config"], cell.get("factors") or {}, cell.get("missing") or "")


def read_run(record: RunRecord, with_document: bool = True) -> StoredRun:
    """One run's folder but for its images; one that cannot be read is failed, with the reason as its cause.

    with_document: its config, too, which a study holds of its runs.
    """
    document = None
    try:
        document = record.document() if with_document else None
        status = record.status()
        if status.state not in STATES:
            raise ValueError(unknown("status.json: state", status.state, STATES))
        done = status.state == "done"
        summary, provenance = (dict(record.read_json(f"{name}.json") or {}) for name in ("summary", "provenance"))
        return StoredRun(
            record.run_id,
            status,
            document,
            metrics=_metrics(summary) if done else {},
            protocol=str(summary.get("protocol", "")),
            n_images=int(summary["n_images"]) if "n_images" in summary else None,
            device_seconds=status.device_seconds,
            provenance=provenance,
            epochs=record.read_arrow("epochs.parquet"),
        )
    except UNREADABLE as error:
        return StoredRun(record.run_id, unreadable_status(error_summary(error)), document)


def unreadable_status(cause: str) -> Status:
    return Status("failed", f"unreadable: {cause}")


def _metrics(summary: dict) -> dict[str, float]:
    if "metrics" not in summary:
        raise ValueError("summary.json has no metrics although the run is done")
    values = summary["metrics"]
    return {name: math.nan if values.get(name) is None else float(values[name]) for name in METRICS}


def error_summary(error: BaseException) -> str:
    """The first line of an error, or what it is."""
    return (str(error).splitlines() or [type(error).__name__])[0]
