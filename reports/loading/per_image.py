"""Per-image rows of many runs, a few runs in memory at a time: their sums over groups, and images.parquet."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reports.loading.records import UNREADABLE, error_summary
from reports.loading.schema import METRICS
from tiekd.store.run_store import RunRecord, RunStore

_NUMBERS = {"n_valid": pa.int64(), **dict.fromkeys((*METRICS, "depth_min", "depth_max"), pa.float64())}
_STORED = {"image": pa.string(), "group": pa.string(), **_NUMBERS}
_REPEATED = pa.dictionary(pa.int32(), pa.string())  # each word once for many rows; the written file tells nothing of it
IMAGE_SCHEMA = pa.schema({"run_id": _REPEATED, **_STORED, "group": _REPEATED})
GROUPS = ("run_id", "group", "n", "n_blank", *METRICS)
_SUMMED = ("run_id", "group", "n_valid", *METRICS)
RUNS_AT_ONCE = 64  # they make one row group of images.parquet, so that a reader of one run finds it without reading all


def read_images(store: RunStore, run_ids: Iterable[str], path: Path | None = None) -> tuple[pa.Table, dict[str, str]]:
    """Reads images.parquet of runs, and writes all their rows to the Parquet file `path` if one is named.

    Returns a row of GROUPS for each run and group, see `group_sums`, and the runs that cannot be read, with the reason.
    """
    unreadable = {}
    with ImageAggregator(path) as images:

        def read(record: RunRecord) -> tuple[str, pa.Table | str | None]:
            try:
                rows = record.read_arrow("images.parquet", images.columns)
                return record.run_id, None if rows is None else images.checked(rows)
            except UNREADABLE as error:
                return record.run_id, error_summary(error)

        for run_id, rows in store.stream_each(read, map(store.run, run_ids)):
            if isinstance(rows, str):
                unreadable[run_id] = rows
            elif rows is not None:
                images.add(run_id, rows)
        return images.groups(), unreadable


def group_sums(rows: pa.Table) -> pa.Table:
    """A row of GROUPS for each run and group of `rows`, in the order of the dictionaries of run_id and group.

    n counts the images that have valid pixels, n_blank the others; a metric is its sum over the n. A metric that is missing
    although pixels are valid makes the sum NaN.
    """
    runs, groups = (rows[name].combine_chunks() for name in ("run_id", "group"))
    n_groups = len(groups.dictionary)
    place, size = runs.indices.to_numpy() * n_groups + groups.indices.to_numpy(), len(runs.dictionary) * n_groups
    valid = rows["n_valid"].to_numpy() > 0
    images, n = np.bincount(place, minlength=size), np.bincount(place[valid], minlength=size)
    found = np.flatnonzero(images)
    run, group = np.divmod(found, n_groups)
    columns = {"run_id": runs.dictionary.take(run), "group": groups.dictionary.take(group)}
    columns |= {"n": n[found], "n_blank": (images - n)[found]}
    for name in METRICS:
        sums = np.bincount(place, np.where(valid, rows[name].to_numpy(), 0.0), minlength=size)
        columns[name] = sums[found].astype(float)  # without any rows, they would be integers
    return pa.table(columns)


class ImageAggregator:
    """Takes the rows of one run after the other, and writes them to a Parquet file if one is named.

    `columns` are those that it needs of a run's images.parquet.
    """

    def __init__(self, path: Path | None = None):
        self._schema = IMAGE_SCHEMA if path else pa.schema([IMAGE_SCHEMA.field(name) for name in _SUMMED])
        self.columns = self._schema.names[1:]
        self._stored = pa.schema([(name, _STORED[name]) for name in self.columns])
        self._file = _writer(path) if path else None
        self._waiting: list[tuple[str, pa.Table]] = []
        self._groups = [group_sums(self._schema.empty_table())]

    def __enter__(self) -> "ImageAggregator":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            self._file.close()

    def checked(self, rows: pa.Table) -> pa.Table:
        """Rows of a run's images.parquet as `add` takes them. Raises KeyError or ValueError where their columns are others."""
        if rows["group"].null_count or rows["n_valid"].null_count:
            raise ValueError("images.parquet: an image without group or n_valid")
        return rows if rows.schema.equals(self._stored) else rows.select(self.columns).cast(self._stored)

    def add(self, run_id: str, rows: pa.Table) -> None:
        self._waiting.append((run_id, rows))
        if len(self._waiting) == RUNS_AT_ONCE:
            self._flush()

    def groups(self) -> pa.Table:
        """The columns of GROUPS for all rows taken; see `group_sums`."""
        self._flush()
        return pa.concat_tables(self._groups)

    def _flush(self) -> None:
        if not self._waiting:
            return
        run_ids, tables = zip(*self._waiting, strict=True)
        self._waiting = []
        rows = pa.concat_tables(tables).combine_chunks()
        run = np.repeat(np.arange(len(tables), dtype=np.int32), [len(table) for table in tables])
        words = {"run_id": pa.DictionaryArray.from_arrays(run, pa.array(run_ids)), "group": rows["group"].dictionary_encode()}
        rows = pa.table({name: words[name] if name in words else rows[name] for name in self._schema.names})
        self._groups.append(group_sums(rows))
        if self._file:
            self._file.write_table(rows, row_group_size=len(rows))


def _writer(path: Path) -> pq.ParquetWriter:
    """Of row groups whose runs alone are told by statistics: nobody looks for one number."""
    words = ["run_id", "image", "group"]
    form = {"use_dictionary": words, "write_statistics": words[:1], "store_schema": False}
    compression = {name: "snappy" if name in words else "none" for name in IMAGE_SCHEMA.names}  # numbers hardly become smaller
    return pq.ParquetWriter(path, IMAGE_SCHEMA, compression=compression, **form)
