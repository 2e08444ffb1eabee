"""Reading studies and runs from the store, file by file.

The store survives damaged files (tiekd/store/run_store.py): only what needs such a file is left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pyarrow as pa

from reports.loading.schema import METRICS
from tiekd.errors import UserError, unknown
from tiekd.store.documents import Metrics, Provenance, StudyDocument
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunRecord, RunStore

INFEASIBLE = "infeasible"  # a run's cause begins with it if its trial violates a constraint of the search


@dataclass(frozen=True)
class StoredRun:
    """The content of a run's folder, without its images. Metrics are empty unless the run is done."""

    status: Status
    document: dict | None = None  # its config, not validated
    damage: str = ""  # why its config cannot be read
    metrics: dict[str, float] = field(default_factory=dict)
    protocol: str = ""
    n_images: int | None = None
    also: tuple[str, ...] = ()  # the protocols of its protocols.parquet
    device_seconds: float | None = None
    target_floor: float | None = None  # abs_rel of a perfect student of L_DPM with respect to the teacher
    provenance: Provenance = field(default_factory=lambda: Provenance())
    epochs: pa.Table | None = None


class PlannedRun(NamedTuple):
    """One cell of a study with one seed."""

    run_id: str | None  # None while its inputs are missing
    config: dict
    factors: dict  # levels by dotted path, or by a factor's own name
    cause: str  # the missing input
    infeasible: str  # the constraints of the search that its point violates


@dataclass(frozen=True)
class StudyRecord:
    """A study as it was launched."""

    name: str
    title: str = ""
    document: dict = field(default_factory=dict)
    planned: tuple[PlannedRun, ...] = ()
    importance: dict[str, float] = field(default_factory=dict)  # of a search: the share of each parameter
    commands: tuple[list[str], ...] = ()  # argv of each launch
    sequential: dict = field(default_factory=dict)  # of seeds until decided: the `rule`, and the tests of `rows`
    teachers: tuple[str, ...] = ()  # ids of the runs that train its teachers, which a launch makes too

    @property
    def is_search(self) -> bool:
        return self.document.get("kind") == "search"


def read_studies(store: RunStore, only: Sequence[str] = ()) -> dict[str, StudyRecord]:
    """Read all studies, or `only` these, by name. Raises UserError if one of `only` does not exist or is damaged."""
    names = store.studies()
    for name in only:
        if name not in names:
            raise UserError(unknown("--study", name, names))
    found = ((name, store.read_study(name)) for name in only or names)
    studies = {
        name: _study(name, content, store.read_findings(name).get("importance", {})) for name, content in found if content
    }
    for name in only:
        if name not in studies:
            reason = store.damaged.get(f"studies/{name}/study.json")
            problem = f"is damaged: {reason}" if reason else "is missing"
            raise UserError(f"--study {name}: studies/{name}/study.json {problem} in store {store.uri}: launch it first")
    return studies


def _study(name: str, content: StudyDocument, importance: dict[str, float]) -> StudyRecord:
    document: Any = content["study"]
    planned = tuple(
        PlannedRun(
            cell["run_id"],
            dict(cell["config"]),
            cell.get("factors", {}),
            cell.get("missing", ""),
            cell.get("infeasible", ""),
        )
        for cell in content["cells"]
    )
    title, commands, teachers = document.get("title") or "", content.get("commands", ()), content.get("teachers", ())
    sequential: Any = content.get("sequential") or {}
    return StudyRecord(name, title, document, planned, importance, tuple(commands), sequential, tuple(teachers))


def read_run(record: RunRecord, with_document: bool = True) -> StoredRun:
    """Read a run's folder, without its images, and without its config unless `with_document`.

    A done run without readable results counts as failed: its results cannot be shown.
    """
    document = record.document() if with_document else None
    status, summary = record.status(), record.summary()
    device_seconds = status.device_seconds
    if status.state == "done" and not summary:
        reason = record.damage("summary.json") or "summary.json is missing although the run is done"
        status = replace(unreadable_status(reason), updated=status.updated)
    return StoredRun(
        status,
        document,
        record.damage("config.yaml") if with_document else "",
        metrics=_metrics(summary["metrics"]) if summary and status.state == "done" else {},
        protocol=summary.get("protocol", "") if summary else "",
        n_images=summary.get("n_images") if summary else None,
        also=tuple(summary.get("also", ())) if summary else (),
        device_seconds=device_seconds,
        target_floor=summary.get("floor", {}).get("abs_rel") if summary else None,
        provenance=record.provenance(),
        epochs=record.epochs(),
    )


def unreadable_status(cause: str) -> Status:
    return Status("failed", f"unreadable: {cause}")


def _metrics(values: Metrics) -> dict[str, float]:
    return {name: math.nan if (value := values.get(name)) is None else value for name in METRICS}
