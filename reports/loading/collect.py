"""The run store as data frames: one row for each cell of each study, and one for each run outside all studies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from reports.loading.network_costs import read_network_costs
from reports.loading.per_image_worker import ImageReader, open_image_reader
from reports.loading.protocols import read_protocol_sums
from reports.loading.records import INFEASIBLE, StoredRun, StudyRecord, read_run, read_studies, unreadable_status
from reports.loading.run_columns import ConfigDescriber, ConfigDescription, teacher_key
from reports.loading.schema import METRICS, PRUNED, RUN_TYPES
from tiekd.config.labels import LABELS, TEACHER
from tiekd.data.progress import track
from tiekd.errors import UserError
from tiekd.store.documents import EPOCH_COLUMNS, Provenance
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunRecord, RunStore

NO_STUDY = ""
EPOCH_HEAD = ("run_id", "epoch", "step", "lr", "loss", *METRICS)


@dataclass(frozen=True)
class StoreFrames:
    """The data frames of a store, or of some of its studies.

    runs        runs.parquet, with the columns of RUN_TYPES: one row for each cell of each study
    identities  for each row of `runs`: the `settings` that the run reads, by dotted path, and the `factors` of its study; None
                if the config cannot be read
    epochs      epochs.parquet: EPOCH_HEAD, and the parts of the losses
    groups      run_id, group, n, n_blank, and for each metric its sum over the n images with valid pixels; of finished runs
    protocols   the same for each run and protocol of its protocols.parquet, without n_blank
    costs       the measured costs of the runs' networks: network, device, parameters, ...
    provenance  the content of provenance.json by run id
    updated     when a run last changed, in seconds since 1970, by run id
    studies     the studies by name
    damaged     the files that could not be read, with the reasons
    """

    runs: pd.DataFrame
    identities: pd.DataFrame
    epochs: pd.DataFrame
    groups: pd.DataFrame
    protocols: pd.DataFrame
    costs: pd.DataFrame
    provenance: dict[str, Provenance]
    updated: dict[str, float]
    studies: dict[str, StudyRecord]
    damaged: dict[str, str]


class _RowSource(NamedTuple):
    """What a row of `runs` is made from: a cell of a study, or a run outside all studies."""

    run_id: str | None
    study: str
    description: ConfigDescription | UserError | None  # None without a config
    factors: dict
    cause: str = ""  # why it has not run
    infeasible: str = ""  # the constraints of the search that its point violates


def collect(
    store: RunStore,
    only: Sequence[str] = (),
    images_to: Path | None = None,
    while_waiting: Callable[[], Any] = lambda: None,
) -> StoreFrames:
    """Read a store, or `only` these studies of it. Raises UserError if there is nothing to read.

    The per-image rows of all runs do not fit in memory: only their sums are returned, and the rows are written to the Parquet
    file `images_to` while they are read. `while_waiting` is called when everything else has been read.
    """
    if store.local and not Path(store.root).is_dir():
        raise UserError(f"store {store.uri}: no such folder")
    studies = read_studies(store, only)
    planned = {plan.run_id for record in studies.values() for plan in record.planned}
    records = [record for record in store.runs() if not only or record.run_id in planned]
    if not records and not studies:
        damage = "; ".join(f"{name} is damaged: {reason}" for name, reason in store.damaged.items())
        raise UserError(f"store {store.uri}: holds no runs and no studies" + (f" that can be read: {damage}" if damage else ""))
    with open_image_reader(store, len(records), images_to) as images:
        runs = _read_runs(store, records, planned, images)
        sources = list(_row_sources(studies, runs))
        runs_frame, identities, epochs = _frames(sources, runs)
        while_waiting()
        groups, damaged_images = images.result()
    protocols = read_protocol_sums(store, [id for id, run in runs.items() if run.also and run.status.state == "done"])
    costs = read_network_costs(store, runs_frame["network"].dropna().unique())
    return StoreFrames(
        runs=runs_frame,
        identities=identities,
        epochs=epochs,
        groups=groups.to_pandas(),
        protocols=protocols,
        costs=costs,
        provenance={run_id: run.provenance for run_id, run in runs.items() if run.provenance},
        updated={id: r.status.updated for id, r in runs.items() if r.status.state != "missing" or r.status.pruned},
        studies=studies,
        damaged=store.damaged | damaged_images,
    )


def _read_runs(
    store: RunStore, records: list[RunRecord], planned: set[str | None], images: ImageReader
) -> dict[str, StoredRun]:
    """Read runs by id, and request the images of finished ones. The configs of planned runs are in their studies."""
    read = store.stream_each(lambda record: read_run(record, with_document=record.run_id not in planned), records)
    runs = {}
    for record, run in track(zip(records, read, strict=True), "runs read", len(records)):
        runs[record.run_id] = run
        if run.status.state == "done":
            images.add(record.run_id)
    return runs


def _row_sources(studies: dict[str, StudyRecord], runs: dict[str, StoredRun]) -> Iterator[_RowSource]:
    """The cells of the studies, then the runs outside all studies, where teachers have the names that studies give them."""
    describer, others = ConfigDescriber(), dict(runs)
    teachers: dict[str, str] = {}  # names by the config of the run that trains them
    for study in studies.values():
        for plan in study.planned:
            others.pop(plan.run_id or "", None)
            description = describer.describe(plan.config, f"study {study.name}")
            if not isinstance(description, UserError) and (trained_by := description.columns["teacher.run"]):
                teachers[trained_by] = description.columns["teacher.name"]
            yield _RowSource(plan.run_id, study.name, description, plan.factors, plan.cause, plan.infeasible)
    for run_id, run in others.items():
        source = f"runs/{run_id}/config.yaml"
        found: ConfigDescription | UserError | None = UserError(run.damage) if run.damage else None
        if run.document is not None:
            found = describer.describe(run.document, source)
            if not isinstance(found, UserError) and (name := teachers.get(teacher_key(run.document))):
                found = replace(found, columns=found.columns | {"teacher": name, "method": TEACHER})
        yield _RowSource(run_id, NO_STUDY, found, {})


def _frames(sources: list[_RowSource], runs: dict[str, StoredRun]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The fields `runs`, `identities` and `epochs` of StoreFrames."""
    found = [_row(source, runs) for source in sources]
    rows, identities = [row for row, _ in found], [identity for _, identity in found]
    return (
        pd.DataFrame(rows, columns=list(RUN_TYPES)).astype(RUN_TYPES),
        pd.DataFrame(identities, columns=["settings", "factors"], dtype=object),
        _epochs(runs),
    )


def _row(source: _RowSource, runs: dict[str, StoredRun]) -> tuple[dict, dict]:
    """A row of `runs` and its identity. A run with an invalid config has failed; without a config it has no labels."""
    run = runs.get(source.run_id or "") or StoredRun(Status("missing", source.cause))
    description = source.description
    if isinstance(description, UserError):
        run, description = StoredRun(unreadable_status(str(description))), None
    cause = f"{INFEASIBLE}: {source.infeasible}" if source.infeasible else run.status.cause
    row: dict[str, Any] = dict(description.columns) if description else dict.fromkeys(LABELS, "")
    row |= {"run_id": source.run_id, "study": source.study, "cause": cause}
    row["state"] = PRUNED if run.status.pruned else run.status.state
    row["protocol"] = run.protocol or row.get("evaluation.protocol", "")
    row |= {"n_images": run.n_images, "device_seconds": run.device_seconds, "target_floor": run.target_floor}
    row |= run.metrics
    factors = description and description.factors(source.factors)
    return row, {"settings": description and description.settings, "factors": factors}


def _epochs(runs: Mapping[str, StoredRun]) -> pd.DataFrame:
    """The epochs of all runs, one after the other; the columns of EPOCH_HEAD come first and always exist."""
    tables = {run_id: run.epochs for run_id, run in runs.items() if run.epochs}
    # Before the first epoch of the first run, the columns still have their types.
    empty = pa.schema(list(EPOCH_COLUMNS.items())).empty_table()
    rows = pa.concat_tables([empty, *tables.values()], promote_options="permissive")
    run = np.repeat(np.arange(len(tables)), [len(table) for table in tables.values()])
    stacked = rows.append_column("run_id", pa.array(list(tables), pa.string()).take(run)).to_pandas()
    return stacked.reindex(columns=[*EPOCH_HEAD, *(c for c in stacked.columns if c not in EPOCH_HEAD)])
