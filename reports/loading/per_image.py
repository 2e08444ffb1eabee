"""Per-image rows of many runs: sums over groups, and images.parquet, with the rows of a few runs in memory at a time."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reports.loading.schema import METRICS
from tiekd.store.run_store import RunRecord, RunStore

_NUMBERS = {"n_valid": pa.int64(), **dict.fromkeys((*METRICS, "depth_min", "depth_max"), pa.float64())}
_STORED = {"image": pa.string(), "group": pa.string(), **_NUMBERS}
_REPEATED = pa.dictionary(pa.int32(), pa.string())  # in memory only: in the written file these columns are strings
IMAGE_SCHEMA = pa.schema({"run_id": _REPEATED, **_STORED, "group": _REPEATED})
GROUPS = ("run_id", "group", "n", "n_blank", *METRICS)
_SUMMED = ("run_id", "group", "n_valid", *METRICS)
RUNS_AT_ONCE = 64  # in a row group of images.parquet, so that the rows of one run can be read without the others


def read_images(store: RunStore, run_ids: Iterable[str], path: Path | None = None) -> tuple[pa.Table, dict[str, str]]:
    """Read images.parquet of runs, and write all rows to the Parquet file `path` if given.

    Returns the sums over groups, see `group_sums`, and the damaged files of `store` with the reasons.
    """
    with ImageAggregator(path) as images:

        def read(record: RunRecord) -> tuple[str, pa.Table | None]:
            return record.run_id, record.read_arrow("images.parquet", images.columns, images.checked)

        for run_id, rows in store.stream_each(read, map(store.run, run_ids)):
            if rows is not None:
                images.add(run_id, rows)
        return images.groups(), dict(store.damaged)


def group_sums(rows: pa.Table) -> pa.Table:
    """Sum `rows` over each run and group, into the columns of GROUPS; in the order of the dictionaries of run_id and group.

    n counts the images with valid pixels, n_blank the others; a metric is its sum over the n images. If an image with valid
    pixels has no value of a metric, the sum is NaN.
    """
    runs, groups = (rows[name].combine_chunks() for name in ("run_id", "group"))
    n_groups = len(groups.dictionary)
    place, size = runs.indices.to_numpy() * n_groups + groups.indices.to_numpy(), len(runs.dictionary) * n_groups
    valid = rows["n_valid"].to_numpy() > 0
    images, n = np.bincount(place, minlength=size), np.bincount(place[valid], minlength=size)
    present = np.flatnonzero(images)
    run, group = np.divmod(present, n_groups)
    columns = {"run_id": runs.dictionary.take(run), "group": groups.dictionary.take(group)}
    columns |= {"n": n[present], "n_blank": (images - n)[present]}
    for name in METRICS:
        sums = np.bincount(place, np.where(valid, rows[name].to_numpy(), 0.0), minlength=size)
        columns[name] = sums[present].astype(float)  # without any rows, they would be integers
    return pa.table(columns)


class ImageAggregator:
    """Sums the rows of one run after the other, and writes them to a Parquet file if `path` is given.

    `columns` are the columns that it needs from each run's images.parquet.
    """

    def __init__(self, path: Path | None = None):
        self._schema = IMAGE_SCHEMA if path else pa.schema([IMAGE_SCHEMA.field(name) for name in _SUMMED])
        self.columns = self._schema.names[1:]
        self._stored = pa.schema([(name, _STORED[name]) for name in self.columns])
        self._file = open_images_writer(path) if path else None
        self._waiting: list[tuple[str, pa.Table]] = []
        self._groups = [group_sums(self._schema.empty_table())]

    def __enter__(self) -> "ImageAggregator":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            self._file.close()

    def checked(self, rows: pa.Table) -> pa.Table:
        """Convert rows of a run's images.parquet for `add`. Raises KeyError or ValueError if their columns are wrong."""
        if rows["group"].null_count or rows["n_valid"].null_count:
            raise ValueError("images.parquet: an image without group or n_valid")
        return rows if rows.schema.equals(self._stored) else rows.select(self.columns).cast(self._stored)

    def add(self, run_id: str, rows: pa.Table) -> None:
        self._waiting.append((run_id, rows))
        if len(self._waiting) == RUNS_AT_ONCE:
            self._flush()

    def groups(self) -> pa.Table:
        """The sums over the groups of all rows so far; see `group_sums`."""
        self._flush()
        return pa.concat_tables(self._groups)

    def _flush(self) -> None:
        if not self._waiting:
            return
        run_ids, tables = zip(*self._waiting, strict=True)
        self._waiting = []
        rows = pa.concat_tables(tables).combine_chunks()
        run = np.repeat(np.arange(len(tables), dtype=np.int32), [len(table) for table in tables])
        encoded = {"run_id": pa.DictionaryArray.from_arrays(run, pa.array(run_ids)), "group": rows["group"].dictionary_encode()}
        rows = pa.table({name: encoded[name] if name in encoded else rows[name] for name in self._schema.names})
        self._groups.append(group_sums(rows))
        if self._file:
            self._file.write_table(rows, row_group_size=len(rows))


def open_images_writer(path: Path) -> pq.ParquetWriter:
    """Statistics are kept for run_id alone, by which readers select row groups; numbers hardly shrink when compressed."""
    texts = ["run_id", "image", "group"]
    compression = {name: "snappy" if name in texts else "none" for name in IMAGE_SCHEMA.names}
    options = {"use_dictionary": texts, "write_statistics": texts[:1], "store_schema": False}
    return pq.ParquetWriter(path, IMAGE_SCHEMA, compression=compression, **options)
