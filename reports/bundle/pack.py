"""Collect a study, its runs and its report, and write them into one zip file."""

import hashlib
import shutil
import uuid
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from reports.bundle.crate import METADATA, crate_metadata
from reports.loading.collect import StoreFrames, collect
from reports.loading.records import read_studies
from reports.loading.run_columns import ConfigDescriber, ConfigDescription
from reports.loading.zipped import RUN_FILES, STORE, STUDY_FILES
from reports.pages.recipe import report_command
from reports.pages.write import make_content, write_report
from tiekd.deploy.profile_records import FOLDER as COSTS
from tiekd.errors import UserError, unknown
from tiekd.store.files import json_text
from tiekd.store.provenance import LOCK
from tiekd.store.run_store import RunStore

_OLDEST = (1980, 1, 1, 0, 0, 0)  # the first time that a zip file can state; all members have it
_LAST_SECOND = 253_402_300_799  # of the year 9999


class Packed(NamedTuple):
    """What a bundle contains. `lock`: which runs used its constraints.txt, in words."""

    runs: int
    teachers: int
    files: int
    lock: str


def pack_study(store: RunStore, study: str, folder: Path, out: Path) -> Packed:
    """Write the bundle of a study to the zip file `out`. `folder` is empty and takes the files before.

    The report is made from the copied files, so that it agrees with them also while the study runs. Raises UserError if
    there is no such study, StoreError if a file cannot be read.
    """
    copy = RunStore(folder / STORE)
    n_runs = _copy_study(store, study, copy)
    (folder / "report").mkdir()
    frames = collect(copy, [study], folder / "report" / "images.parquet")
    content = make_content([frames], [store], [study], {})
    write_report(folder / "report", content, report_command(Path("report"), [study], {}, published=False), None)
    teachers = sorted({*frames.studies[study].teachers, *content.recipe.teachers} - set(frames.runs["run_id"]))
    n_teachers = _copy_runs(store, teachers, RunStore(folder / "teachers"))
    lock = _copy_lock(frames, folder)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    date = _last_update(frames)
    described = crate_metadata(study, frames, folder, files, date, lock)
    (folder / METADATA).write_text(json_text(described, indent=1) + "\n", encoding="utf-8")
    _write_zip(folder, [METADATA, *files], out)
    return Packed(n_runs, n_teachers, len(files) + 1, lock)


def _copy_study(store: RunStore, study: str, copy: RunStore) -> int:
    """Copy a study, its runs and the costs of their networks; return the number of runs that have a folder."""
    if not (names := store.studies()):
        raise UserError(f"store {store.uri}: holds no study")
    if study not in names:
        raise UserError(unknown("STUDY", study, names))
    read_studies(store, [study])  # errors name the store
    _copy_files(store, [f"studies/{study}/{file}" for file in STUDY_FILES], copy)
    planned = read_studies(copy, [study])[study].planned
    n_runs = _copy_runs(store, dict.fromkeys(plan.run_id for plan in planned if plan.run_id), copy)
    describer = ConfigDescriber()
    described = [describer.describe(plan.config, f"study {study}") for plan in planned]
    networks = dict.fromkeys(found.columns["network"] for found in described if isinstance(found, ConfigDescription))
    _copy_files(store, [f"{COSTS}/{device}/{name}.json" for device in store.list_folders(COSTS) for name in networks], copy)
    return n_runs


def _copy_runs(store: RunStore, run_ids: Iterable[str], copy: RunStore) -> int:
    """Copy what a report reads of runs; return the number of runs that have a folder."""
    runs = map(store.run, run_ids)
    return sum(store.stream_each(lambda run: _copy_files(store, [f"{run.folder}/{file}" for file in RUN_FILES], copy), runs))


def _copy_files(store: RunStore, names: Iterable[str], copy: RunStore) -> bool:
    """Copy those files that exist, byte for byte, also damaged ones; return whether there is any."""
    found = {name: content for name in names if (content := store.read_bytes(name)) is not None}
    for name, content in found.items():
        file = Path(copy.uri) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return bool(found)


def _copy_lock(frames: StoreFrames, folder: Path) -> str:
    """Copy the lock of versions; say which runs used it."""
    if not LOCK.is_file():  # a wheel has none
        return "no constraints.txt: tiekd does not run from a checkout"
    text = LOCK.read_text()
    (folder / LOCK.name).write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    used = sum(found.get("lock", {}).get(LOCK.name) == digest for found in frames.provenance.values())
    return f"{LOCK.name} is the lock that {used} of {len(frames.provenance)} runs used"


def _last_update(frames: StoreFrames) -> str:
    """The day of the last update of a run; the same store gives the same date."""
    last = max((frames.updated[run_id] for run_id in frames.runs["run_id"].dropna() if run_id in frames.updated), default=0.0)
    return datetime.fromtimestamp(min(max(last, 0.0), _LAST_SECOND), UTC).date().isoformat()


def _write_zip(folder: Path, names: Iterable[str], out: Path) -> None:
    """Write files into a zip file that depends only on their names and contents; `out` appears whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{uuid.uuid4().hex}.zip")
    try:
        with zipfile.ZipFile(partial, "x") as archive:
            for name in names:
                member = zipfile.ZipInfo(name, _OLDEST)
                member.compress_type, member.create_system, member.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
                member.file_size = (folder / name).stat().st_size
                with (folder / name).open("rb") as source, archive.open(member, "w") as sink:
                    shutil.copyfileobj(source, sink)
        partial.replace(out)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
