"""The run store as data frames: one row per cell of each study, and one per run that no study holds."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from reports.loading.network_costs import read_network_costs
from reports.loading.per_image_worker import ImageReader, open_image_reader
from reports.loading.records import StoredRun, StudyRecord, read_run, read_studies, unreadable_status
from reports.loading.run_columns import ConfigDescriber, ConfigDescription
from reports.loading.schema import METRICS, RUN_TYPES
from tiekd.config.labels import LABELS
from tiekd.errors import UserError
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunRecord, RunStore

NO_STUDY = ""
EPOCH_HEAD = ("run_id", "epoch", "step", "lr", "loss", *METRICS)


@dataclass(frozen=True)
class StoreFrames:
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
    studies: dict[str, StudyRecord]


def collect(
    store: RunStore, study: str | None = None, images_to: Path | None = None, meanwhile: Callable[[], Any] = lambda: None
) -> StoreFrames:
    """Everything in the store, or one study's part of it.

    The images of all runs are more than memory holds: their sums are kept, and their rows written to the Parquet file
    `images_to` as they are read. `meanwhile` is called when only these are left to wait for.
    """
    if store.local and not Path(store.filesystem[1]).is_dir():
        raise UserError(f"store {store.uri}: no such folder")
    studies = read_studies(store, study)
    planned = {plan.run_id for s in studies.values() for plan in s.planned}
    found = [record for record in store.runs() if study is None or record.run_id in planned]
    if not found and not planned:
        nothing = f"store {store.uri}: holds no runs and no studies"
        raise UserError(nothing if study is None else f"--study {study}: has no cells")
    with open_image_reader(store, len(found), images_to) as images:
        stored = _read_runs(store, found, planned, images)
        places = list(_places(studies, stored))
        frames = _frames(places, stored)
        meanwhile()
        groups, lost = images.result()
    if lost:  # a run whose images cannot be read is a failed one
        stored |= {
            run_id: StoredRun(run_id, unreadable_status(cause), stored[run_id].document) for run_id, cause in lost.items()
        }
        frames = _frames(places, stored)
    return StoreFrames(
        **frames,
        groups=groups.to_pandas(),
        costs=read_network_costs(store, frames["runs"]["network"].dropna().unique()),
        provenance={r.run_id: r.provenance for r in stored.values() if r.provenance},
        studies=studies,
    )


class _Place(NamedTuple):
    """A row of runs.parquet: a cell of a study, or a run that is in none; what its config says, None without one."""

    run_id: str | None
    study: str
    described: ConfigDescription | UserError | None
    factors: dict
    cause: str = ""  # why it was not run


def _read_runs(store: RunStore, found: list[RunRecord], planned: set[str | None], images: ImageReader) -> dict[str, StoredRun]:
    """Runs by id; `images` takes those that are done."""
    stored = {}
    for run in store.stream_each(lambda record: read_run(record, with_document=record.run_id not in planned), found):
        stored[run.run_id] = run
        if run.status.state == "done":
            images.add(run.run_id)
    return stored


def _places(studies: dict[str, StudyRecord], stored: dict[str, StoredRun]) -> Iterator[_Place]:
    """The cells of the studies, then the runs that are in none."""
    describe, left = ConfigDescriber(), dict(stored)
    for study in studies.values():
        for plan in study.planned:
            left.pop(plan.run_id, None)
            yield _Place(plan.run_id, study.name, describe.of(plan.config, f"study {study.name}"), plan.factors, plan.cause)
    for run in left.values():
        described = describe.of(run.document, f"runs/{run.run_id}/config.yaml") if run.document is not None else None
        yield _Place(run.run_id, NO_STUDY, described, {})


def _frames(places: list[_Place], stored: dict[str, StoredRun]) -> dict[str, pd.DataFrame]:
    """The frames of StoreFrames that tell nothing of images."""
    rows, identities = zip(*(_row(place, stored) for place in places), strict=True)
    return {
        "runs": pd.DataFrame(rows, columns=list(RUN_TYPES)).astype(RUN_TYPES),
        "identities": pd.DataFrame(identities, columns=["settings", "factors"], dtype=object),
        "epochs": _epochs(stored.values()),
    }


def _row(place: _Place, stored: dict[str, StoredRun]) -> tuple[dict, dict]:
    """One row of runs.parquet, and its identity. A run whose config is wrong is failed; one without a config has no labels."""
    run, described = stored.get(place.run_id) or StoredRun(place.run_id, Status("missing", place.cause)), place.described
    if isinstance(described, UserError):
        run, described = StoredRun(run.run_id, unreadable_status(str(described))), None
    row = described.columns if described else dict.fromkeys(LABELS, "")
    row = row | {"run_id": run.run_id, "study": place.study, "state": run.status.state, "cause": run.status.cause}
    row["protocol"] = run.protocol or row.get("evaluation.protocol", "")
    row |= {"n_images": run.n_images, "device_seconds": run.device_seconds} | run.metrics
    factors = described and described.factors(place.factors)
    return row, {"settings": described and described.settings, "factors": factors}


def _epochs(runs: Iterable[StoredRun]) -> pd.DataFrame:
    """The epochs of all runs below each other; EPOCH_HEAD comes first and is always there."""
    found = {run.run_id: run.epochs for run in runs if run.epochs}
    stacked = pd.DataFrame()
    if found:
        rows = pa.concat_tables(found.values(), promote_options="permissive")
        run = np.repeat(np.arange(len(found)), [len(epochs) for epochs in found.values()])
        stacked = rows.append_column("run_id", pa.array(list(found)).take(run)).to_pandas()
    return stacked.reindex(columns=[*EPOCH_HEAD, *(c for c in stacked.columns if c not in EPOCH_HEAD)])
