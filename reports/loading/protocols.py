"""The scores of runs under more protocols than their own (protocols.parquet), as sums over drives or scenes."""

from collections.abc import Iterable

import pandas as pd
import pyarrow as pa

from reports.loading.schema import METRICS
from tiekd.store.documents import IMAGE_COLUMNS, conform
from tiekd.store.run_store import RunRecord, RunStore

PROTOCOL_SUMS = ("run_id", "protocol", "group", "n", *METRICS)
_STORED = {"protocol": pa.string(), **IMAGE_COLUMNS}


def read_protocol_sums(store: RunStore, run_ids: Iterable[str]) -> pd.DataFrame:
    """Read protocols.parquet of runs: the sum of each metric over the n images with valid pixels of each protocol and group."""

    def read(record: RunRecord) -> tuple[str, pa.Table | None]:
        return record.run_id, record.read_arrow("protocols.parquet", list(_STORED), _checked)

    found = store.stream_each(read, map(store.run, run_ids))
    parts = [_sums(table.to_pandas()).assign(run_id=run_id) for run_id, table in found if table is not None]
    if not parts:
        return pd.DataFrame(columns=[*PROTOCOL_SUMS])
    return pd.concat(parts, ignore_index=True)[[*PROTOCOL_SUMS]]


def protocol_means(sums: pd.DataFrame) -> pd.DataFrame:
    """The means over images: one row for each run and protocol, with the number of images."""
    whole = sums.groupby(["run_id", "protocol"], sort=False, as_index=False)[["n", *METRICS]].sum()
    return whole.assign(**{name: whole[name] / whole["n"] for name in METRICS}).rename(columns={"n": "n_images"})


def _checked(table: pa.Table) -> pa.Table:
    """Raises ValueError or an Arrow error for rows that cannot be summed."""
    table = conform(table, _STORED).select(list(_STORED))
    if any(column.null_count for column in table.columns[:4]):
        raise ValueError("protocols.parquet: a row without protocol, image, group or n_valid")
    return table


def _sums(rows: pd.DataFrame) -> pd.DataFrame:
    measured = rows.loc[rows["n_valid"] > 0]
    groups = measured.groupby(["protocol", "group"], sort=False)
    return groups[[*METRICS]].sum().assign(n=groups.size()).reset_index()
