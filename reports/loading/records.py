"""Reading studies and runs from the store, file by file.

A run that cannot be read counts as failed, with the reason as its cause; other runs are not affected.
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

# Raised by files that are truncated, edited by hand or written by another version.
UNREADABLE = (StoreError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError, OSError)


@dataclass(frozen=True)
class StoredRun:
    """The content of a run's folder, without its images. Metrics are empty unless the run is done."""

    status: Status
    document: dict | None = None  # its config, not validated
    metrics: dict[str, float] = field(default_factory=dict)
    protocol: str = ""
    n_images: int | None = None
    device_seconds: float | None = None
    provenance: dict = field(default_factory=dict)
    epochs: pa.Table | None = None


class PlannedRun(NamedTuple):
    """One cell of a study with one seed."""

    run_id: str | None  # None while its inputs are missing
    config: dict
    factors: dict  # levels by dotted path, or by a factor's own name
    cause: str  # the missing input


@dataclass(frozen=True)
class StudyRecord:
    """A study as it was launched."""

    name: str
    title: str = ""
    document: dict = field(default_factory=dict)
    planned: tuple[PlannedRun, ...] = ()
    importance: dict[str, float] = field(default_factory=dict)  # of a search: the share of each parameter
    commands: tuple[list[str], ...] = ()  # argv of each launch

    @property
    def is_search(self) -> bool:
        return self.document.get("kind") == "search"


def read_studies(store: RunStore, only: str | None = None) -> dict[str, StudyRecord]:
    """Read the studies by name.

    Raises UserError for an unreadable study: if it were skipped, its missing cells would not appear anywhere.
    """
    names = store.studies()
    if only is not None and only not in names:
        raise UserError(unknown("--study", only, names))
    studies = {}
    for name in names if only is None else [only]:
        try:
            content = store.read_study(name)
            if content is not None:
                studies[name] = _study(name, content, store.read_json(f"studies/{name}/findings.json") or {})
        except UNREADABLE as error:
            raise UserError(f"store {store.uri}: studies/{name}/study.json is unreadable: {error_summary(error)}") from None
    if only is not None and only not in studies:
        raise UserError(f"--study {only}: studies/{only}/study.json is missing in store {store.uri}: launch it first")
    return studies


def _study(name: str, content: dict, findings: dict) -> StudyRecord:
    document = content["study"]
    planned = tuple(
        PlannedRun(cell["run_id"], cell["config"], cell.get("factors") or {}, cell.get("missing") or "")
        for cell in content["cells"]
    )
    commands = tuple(content.get("commands", ()))
    return StudyRecord(name, document.get("title") or "", document, planned, findings.get("importance", {}), commands)


def read_run(record: RunRecord, with_document: bool = True) -> StoredRun:
    """Read a run's folder, without its images, and without its config unless `with_document`."""
    document = None
    try:
        document = record.document() if with_document else None
        status = record.status()
        if status.state not in STATES:
            raise ValueError(unknown("status.json: state", status.state, STATES))
        summary, provenance = (dict(record.read_json(f"{name}.json") or {}) for name in ("summary", "provenance"))
        return StoredRun(
            status,
            document,
            metrics=_metrics(summary) if status.state == "done" else {},
            protocol=str(summary.get("protocol", "")),
            n_images=int(summary["n_images"]) if "n_images" in summary else None,
            device_seconds=status.device_seconds,
            provenance=provenance,
            epochs=record.read_arrow("epochs.parquet"),
        )
    except UNREADABLE as error:
        return StoredRun(unreadable_status(error_summary(error)), document)


def unreadable_status(cause: str) -> Status:
    return Status("failed", f"unreadable: {cause}")


def _metrics(summary: dict) -> dict[str, float]:
    if "metrics" not in summary:
        raise ValueError("summary.json has no metrics although the run is done")
    values = summary["metrics"]
    return {name: math.nan if values.get(name) is None else float(values[name]) for name in METRICS}


def error_summary(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
