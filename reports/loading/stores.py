"""Several run stores as one set of data frames."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reports.loading.collect import NO_STUDY, StoreFrames, collect
from reports.loading.per_image import open_images_writer
from tiekd.errors import UserError, unknown
from tiekd.store.run_store import RunStore


def collect_stores(
    stores: Sequence[RunStore],
    only: Sequence[str] = (),
    images_to: Path | None = None,
    while_waiting: Callable[[], Any] = lambda: None,
) -> list[StoreFrames]:
    """Read each store, or `only` these studies of all; see `collect`. Raises UserError if two stores have the same study."""
    if len(stores) == 1:
        return [collect(stores[0], only, images_to, while_waiting)]
    names = [store.studies() for store in stores]
    known = [name for found in names for name in found]
    for name in only:
        if name not in known:
            raise UserError(unknown("--study", name, known))
    for name in only or known:
        if known.count(name) > 1:
            raise UserError(f"study {name} is in several stores; launch one of them under another name (`--name`)")
    parts, files = [], []
    for number, (store, found) in enumerate(zip(stores, names, strict=True)):
        wanted = [name for name in only if name in found]
        if only and not wanted:
            raise UserError(f"--study: store {store.uri} has none of {', '.join(only)}, but {', '.join(found) or 'no study'}")
        files += [images_to.with_name(f"{number}.parquet")] if images_to else []
        parts.append(collect(store, wanted, files[-1] if files else None, while_waiting))
    if images_to:
        _join_images(files, images_to)
    return parts


def join_frames(parts: Sequence[StoreFrames], stores: Sequence[RunStore]) -> StoreFrames:
    """Join the frames of stores. A run that several have is that of the first."""
    if len(parts) == 1:
        return parts[0]
    origin = pd.concat([part.runs["run_id"] for part in parts], keys=range(len(parts)), names=["store", None])
    first = origin.dropna().reset_index("store").groupby("run_id")["store"].min()

    def own(frame: pd.DataFrame, number: int) -> pd.Series:
        """Which rows are of runs that no earlier store has."""
        return frame["run_id"].isna() | (frame["run_id"].map(first) == number)

    kept = [(part.runs["study"] != NO_STUDY) | own(part.runs, number) for number, part in enumerate(parts)]
    return StoreFrames(
        runs=_join(part.runs[rows] for part, rows in zip(parts, kept, strict=True)),
        identities=_join(part.identities[rows] for part, rows in zip(parts, kept, strict=True)),
        epochs=_join(part.epochs[own(part.epochs, number)] for number, part in enumerate(parts)),
        groups=_join(part.groups[own(part.groups, number)] for number, part in enumerate(parts)),
        protocols=_join(part.protocols[own(part.protocols, number)] for number, part in enumerate(parts)),
        costs=_join(part.costs for part in parts).drop_duplicates(["network", "device"], ignore_index=True),
        provenance={run_id: found for part in reversed(parts) for run_id, found in part.provenance.items()},
        updated={run_id: time for part in reversed(parts) for run_id, time in part.updated.items()},
        studies={name: study for part in parts for name, study in part.studies.items()},
        damaged={f"{s.uri}/{name}": why for s, part in zip(stores, parts, strict=True) for name, why in part.damaged.items()},
    )


def _join(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True)


def _join_images(files: Sequence[Path], out: Path) -> None:
    """Join images.parquet of several stores; a run that several have is that of the first."""
    seen: set[str] = set()
    with open_images_writer(out) as writer:
        for file in files:
            found: set[str] = set()
            with pq.ParquetFile(file) as parquet:
                for number in range(parquet.num_row_groups):
                    rows = parquet.read_row_group(number)
                    run_ids = rows["run_id"].unique().to_pylist()
                    found.update(run_ids)
                    if seen.intersection(run_ids):
                        rows = rows.filter(pc.invert(pc.is_in(rows["run_id"], value_set=pa.array(sorted(seen)))))
                    writer.write_table(rows.cast(writer.schema), row_group_size=max(len(rows), 1))
            seen |= found
            file.unlink()
