"""Per-image rows of many runs, a few runs in memory at a time: their sums over groups, and images.parquet."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reports.records import UNREADABLE, reason
from reports.schema import METRICS
from tiekd.store import RunRecord, RunStore

_TEXT = pa.large_string()  # as pandas writes it: columns of this type need no cast
_NUMBERS = dict.fromkeys((*METRICS, "depth_min", "depth_max"), pa.float64())
IMAGES = pa.schema({**dict.fromkeys(("run_id", "image", "group"), _TEXT), "n_valid": pa.int64(), **_NUMBERS})
GROUPS = ("run_id", "group", "n", "n_blank", *METRICS)
_SUMMED = ("run_id", "group", "n_valid", *METRICS)
RUNS_AT_ONCE = 64  # they make one row group of images.parquet, so that a reader of one run finds it without reading all


def read_images(store: RunStore, run_ids: Iterable[str], path: Path | None = None) -> tuple[pa.Table, dict[str, str]]:
    """Reads images.parquet of runs, and writes all their rows to the Parquet file `path` if one is named.

    Returns a row of GROUPS for each run and group, see `group_sums`, and the runs that cannot be read, with the reason.
    """
    unreadable = {}
    with ImageRows(path) as images:

        def read(record: RunRecord) -> tuple[str, pa.Table | str | None]:
            try:
                rows = record.read_arrow("images.parquet", images.columns)
                return record.run_id, None if rows is None else images.checked(record.run_id, rows)
            except UNREADABLE as error:
                return record.run_id, reason(error)

        for run_id, rows in store.stream_each(read, map(store.run, run_ids)):
            if isinstance(rows, str):
                unreadable[run_id] = rows
            elif rows is not None:
                images.add(rows)
        return images.groups(), unreadable


def group_sums(rows: pa.Table) -> pa.Table:
    """A row of GROUPS for each run and group of `rows`, in the order of runs, whose rows lie together.

    n counts the images that have valid pixels, n_blank the others; a metric is its sum over the n. A metric that is missing
    although pixels are valid makes the sum NaN.
    """
    runs = pc.run_end_encode(rows["run_id"].combine_chunks())
    groups = rows["group"].combine_chunks().dictionary_encode()
    run_of = np.repeat(np.arange(len(runs.values)), np.diff(runs.run_ends, prepend=0))
    place, size = run_of * len(groups.dictionary) + groups.indices.to_numpy(), len(runs.values) * len(groups.dictionary)
    valid = rows["n_valid"].to_numpy() > 0
    images, n = np.bincount(place, minlength=size), np.bincount(place[valid], minlength=size)
    found = np.flatnonzero(images)
    run, group = np.divmod(found, len(groups.dictionary))
    columns = {"run_id": runs.values.take(run), "group": groups.dictionary.take(group)}
    columns |= {"n": n[found], "n_blank": (images - n)[found]}
    for name in METRICS:
        sums = np.bincount(place, np.where(valid, rows[name].to_numpy(), 0.0), minlength=size)
        columns[name] = sums[found].astype(float)  # without any rows, they would be integers
    return pa.table(columns)


class ImageRows:
    """Takes the rows of one run after the other, and writes them to a Parquet file if one is named.

    `columns` are those that it needs of a run's images.parquet.
    """

    def __init__(self, path: Path | None = None):
        self._schema = IMAGES if path else pa.schema([IMAGES.field(name) for name in _SUMMED])
        self.columns = self._schema.names[1:]
        strings = ["run_id", "image", "group"]
        self._file = pq.ParquetWriter(path, IMAGES, compression="snappy", use_dictionary=strings) if path else None
        self._waiting: list[pa.Table] = []
        self._groups = [group_sums(self._schema.empty_table())]

    def __enter__(self) -> "ImageRows":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            self._file.close()

    def checked(self, run_id: str, rows: pa.Table) -> pa.Table:
        """Rows of a run's images.parquet as `add` takes them. Raises KeyError or ValueError where their columns are others."""
        if rows["group"].null_count or rows["n_valid"].null_count:
            raise ValueError("images.parquet: an image without group or n_valid")
        ids = pa.repeat(pa.scalar(run_id, _TEXT), len(rows))
        rows = rows.select(self.columns).add_column(0, "run_id", ids)
        return rows if rows.schema.equals(self._schema) else rows.cast(self._schema)

    def add(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        if len(self._waiting) == RUNS_AT_ONCE:
            self._flush()

    def groups(self) -> pa.Table:
        """The columns of GROUPS for all rows taken; see `group_sums`."""
        self._flush()
        return pa.concat_tables(self._groups)

    def _flush(self) -> None:
        if self._waiting:
            rows = pa.concat_tables(self._waiting)
            self._groups.append(group_sums(rows))
            if self._file:
                self._file.write_table(rows, row_group_size=len(rows))
            self._waiting = []
