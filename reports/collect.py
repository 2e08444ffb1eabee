"""The run store as data frames: one row per cell of each study, and one per run that no study holds."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reports.records import StoredRun, Study, read_run, read_studies
from reports.schema import METRICS, RUN_TYPES, SETTING_TYPES, TABLE_COLUMNS
from tiekd.config import RunConfig, TeacherConfig, build
from tiekd.documents import flatten
from tiekd.errors import UserError
from tiekd.labels import LABELS, fidelity, labels
from tiekd.store import RunStore, Status

NO_STUDY = ""


@dataclass(frozen=True)
class Collected:
    """The store's frames.

    runs        the columns of RUN_TYPES, one row per (study, cell)
    identities  per row of runs: `settings` that the run reads, by dotted path, and the `factors` of its study; None where
                the config cannot be read
    epochs      run_id, epoch, ...
    images      run_id, image, group, n_valid, metrics, ...; of runs that are done
    provenance  run id -> the run's provenance.json
    """

    runs: pd.DataFrame
    identities: pd.DataFrame
    epochs: pd.DataFrame
    images: pd.DataFrame
    provenance: dict[str, dict]
    studies: dict[str, Study]


def collect(store: RunStore, study: str | None = None) -> Collected:
    """Everything in the store, or one study's part of it."""
    if store.local and not Path(store.filesystem[1]).is_dir():
        raise UserError(f"store {store.uri}: no such folder")
    studies = read_studies(store, study)
    wanted = {plan.run_id for s in studies.values() for plan in s.planned}
    found = [record for record in store.runs() if study is None or record.run_id in wanted]
    runs = store.read_each(lambda record: read_run(record, with_config=record.run_id not in wanted), found)
    stored = {run.run_id: run for run in runs}
    if not stored and not studies:
        raise UserError(f"store {store.uri}: holds no runs and no studies")
    rows = [*_study_rows(studies, stored), *_other_rows(stored, wanted)]
    frame = pd.DataFrame([row for row, _ in rows], columns=list(RUN_TYPES)).astype(RUN_TYPES)
    identities = pd.DataFrame([identity for _, identity in rows], columns=["settings", "factors"], dtype=object)
    return Collected(
        runs=frame,
        identities=identities,
        epochs=_stack({r.run_id: r.epochs for r in stored.values()}, ("run_id", "epoch", "step", "lr", "loss", *METRICS)),
        images=_stack({r.run_id: r.images for r in stored.values()}, ("run_id", "image", "group", "n_valid", *METRICS)),
        provenance={r.run_id: r.provenance for r in stored.values() if r.provenance},
        studies=studies,
    )


def _study_rows(studies: dict[str, Study], stored: dict[str, StoredRun]) -> Iterator[tuple[dict, dict]]:
    for study in studies.values():
        for plan in study.planned:
            run = stored.get(plan.run_id) or StoredRun(plan.run_id, Status("missing", plan.cause))
            try:
                config = build(plan.config, source=f"study {study.name}")
            except UserError as error:
                config, run = None, StoredRun(run.run_id, Status("failed", f"unreadable: {error}"))
            yield _row(run, config, study.name), _identity(config, plan.factors)


def _other_rows(stored: dict[str, StoredRun], in_studies: set[str]) -> Iterator[tuple[dict, dict]]:
    for run in stored.values():
        if run.run_id not in in_studies:
            yield _row(run, run.config, NO_STUDY), _identity(run.config, {})


def _row(run: StoredRun, config: RunConfig | None, study: str) -> dict[str, Any]:
    """One row of runs.parquet."""
    row = {"run_id": run.run_id, "study": study, "state": run.status.state, "cause": run.status.cause}
    row |= _all_settings(config) | labels(config) if config else dict.fromkeys(LABELS, "")
    row["protocol"] = run.protocol or (config.evaluation.protocol if config else "")
    return row | {"n_images": run.n_images, "device_seconds": run.device_seconds} | run.metrics


def _all_settings(config: RunConfig) -> dict[str, Any]:
    document = config.document()
    document["teacher"] = document["teacher"] or dict.fromkeys(TeacherConfig.model_fields)
    return {path: _plain(value) for path, value in flatten(document).items()}


def _identity(config: RunConfig | None, factors: dict) -> dict[str, dict | None]:
    """What tells a cell from others, whatever its seed.

    Settings are those that the run reads, and the paths of its inputs: they stand for contents that only a digest knows.
    A factor that is a setting takes the run's value, so that one which the run does not read is blank.
    """
    if config is None:
        return {"settings": None, "factors": None}
    settings = flatten(config.identity())
    del settings["seed"]
    everything = _all_settings(config)
    inputs = ["data.root", "data.train_split", "data.test_split"]
    inputs += ["teacher.maps"] if config.reads_teacher else []
    settings = {path: _plain(value) for path, value in settings.items()} | {path: everything[path] for path in inputs}
    settings["fidelity"] = fidelity(config)
    return {
        "settings": settings,
        "factors": {
            f"factor.{name}" if name in TABLE_COLUMNS else name: settings.get(name) if name in SETTING_TYPES else _plain(level)
            for name, level in factors.items()
        },
    }


def _plain(value: Any) -> Any:
    """Lists as text: a column of a data frame holds single values."""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def _stack(tables: dict[str, pd.DataFrame | None], head: tuple[str, ...]) -> pd.DataFrame:
    """Tables of many runs below each other, with their run_id; the columns of `head` come first and are always there."""
    found = [table.assign(run_id=run_id) for run_id, table in tables.items() if table is not None and len(table)]
    if not found:
        return pd.DataFrame(columns=list(head))
    stacked = pd.concat(found, ignore_index=True)
    return stacked.reindex(columns=[*head, *(c for c in stacked.columns if c not in head)])
