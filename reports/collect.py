"""The run store as data frames: one row per cell of each study, and one per run that no study holds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from reports import costs
from reports.described import Described, Descriptions
from reports.images import ImageRows
from reports.records import StoredRun, Study, read_run, read_studies
from reports.schema import METRICS, RUN_TYPES
from tiekd.errors import UserError
from tiekd.labels import LABELS
from tiekd.store import RunRecord, RunStore, Status

NO_STUDY = ""
EPOCH_HEAD = ("run_id", "epoch", "step", "lr", "loss", *METRICS)


@dataclass(frozen=True)
class Collected:
    """The store's frames.

    runs        the columns of RUN_TYPES, one row per (study, cell)
    identities  per row of runs: `settings` that the run reads, by dotted path, and the `factors` of its study; None where
                the config cannot be read
    epochs      run_id, epoch, ...
    groups      run_id, group, n, n_blank, and per metric its sum over the n images with valid pixels; of runs that are done
    costs       network, device, parameters, ...: of the networks of the runs, where they were measured
    provenance  run id -> the run's provenance.json
    """

    runs: pd.DataFrame
    identities: pd.DataFrame
    epochs: pd.DataFrame
    groups: pd.DataFrame
    costs: pd.DataFrame
    provenance: dict[str, dict]
    studies: dict[str, Study]


def collect(store: RunStore, study: str | None = None, images_to: Path | None = None) -> Collected:
    """Everything in the store, or one study's part of it.

    The images of all runs are more than memory holds: their sums are kept, and their rows written to the Parquet file
    `images_to` as they are read.
    """
    if store.local and not Path(store.filesystem[1]).is_dir():
        raise UserError(f"store {store.uri}: no such folder")
    studies = read_studies(store, study)
    wanted = {plan.run_id for s in studies.values() for plan in s.planned}
    found = [record for record in store.runs() if study is None or record.run_id in wanted]
    stored, groups = _read_runs(store, found, wanted, images_to)
    if not stored and not studies:
        raise UserError(f"store {store.uri}: holds no runs and no studies")
    rows, identities = zip(*_rows(studies, stored), strict=True)
    runs = pd.DataFrame(rows, columns=list(RUN_TYPES)).astype(RUN_TYPES)
    return Collected(
        runs=runs,
        identities=pd.DataFrame(identities, columns=["settings", "factors"], dtype=object),
        epochs=_epochs(stored.values()),
        groups=groups,
        costs=costs.read(store, runs["network"].dropna().unique()),
        provenance={r.run_id: r.provenance for r in stored.values() if r.provenance},
        studies=studies,
    )


def _read_runs(
    store: RunStore, found: list[RunRecord], planned: set[str | None], images_to: Path | None
) -> tuple[dict[str, StoredRun], pd.DataFrame]:
    """Runs by id, without their images, and the groups of these."""
    stored = {}
    with ImageRows(images_to) as images:
        for run in store.stream_each(lambda r: read_run(r, images, with_document=r.run_id not in planned), found):
            if run.images is not None:
                images.add(run.images)
            stored[run.run_id] = replace(run, images=None)
        return stored, images.groups()


def _rows(studies: dict[str, Study], stored: dict[str, StoredRun]) -> Iterator[tuple[dict, dict]]:
    """Columns and identity of each cell of the studies, then of the runs that are in none."""
    describe, left = Descriptions(), dict(stored)
    for study in studies.values():
        for plan in study.planned:
            left.pop(plan.run_id, None)
            run = stored.get(plan.run_id) or StoredRun(plan.run_id, Status("missing", plan.cause))
            yield _row(run, study.name, describe.of(plan.config, f"study {study.name}"), plan.factors)
    for run in left.values():
        described = describe.of(run.document, f"runs/{run.run_id}/config.yaml") if run.document is not None else None
        yield _row(run, NO_STUDY, described, {})


def _row(run: StoredRun, study: str, described: Described | UserError | None, factors: dict) -> tuple[dict, dict]:
    """One row of runs.parquet, and its identity. A run whose config is wrong is failed; one without a config has no labels."""
    if isinstance(described, UserError):
        run, described = StoredRun(run.run_id, Status("failed", f"unreadable: {described}")), None
    row = described.columns if described else dict.fromkeys(LABELS, "")
    row = row | {"run_id": run.run_id, "study": study, "state": run.status.state, "cause": run.status.cause}
    row["protocol"] = run.protocol or row.get("evaluation.protocol", "")
    row |= {"n_images": run.n_images, "device_seconds": run.device_seconds} | run.metrics
    return row, {"settings": described and described.settings, "factors": described and described.factors(factors)}


def _epochs(runs: Iterable[StoredRun]) -> pd.DataFrame:
    """The epochs of all runs below each other; EPOCH_HEAD comes first and is always there."""
    found = [run.epochs.append_column("run_id", pa.repeat(run.run_id, len(run.epochs))) for run in runs if run.epochs]
    stacked = pa.concat_tables(found, promote_options="permissive").to_pandas() if found else pd.DataFrame()
    return stacked.reindex(columns=[*EPOCH_HEAD, *(c for c in stacked.columns if c not in EPOCH_HEAD)])
