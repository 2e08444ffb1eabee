"""A run store as data frames, for Python; see `reports.load`."""

from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from reports.loading.collect import collect
from reports.loading.per_image import read_images
from reports.tables.table import build_tables, tables_frame
from tiekd.store.run_store import RunStore


class Report:
    """The data frames of a run store, or of one of its studies: those that `tiekd report` writes as Parquet files.

    Runs and epochs are read at once; images and tables are made when they are first used.
    """

    def __init__(self, store: RunStore, study: str | None = None):
        self._store = store
        self._frames = collect(store, [study] if study else [])

    @property
    def runs(self) -> pd.DataFrame:
        """One row for each cell of each study, and for each run outside all studies: state, labels, metrics, every setting."""
        return self._frames.runs

    @property
    def epochs(self) -> pd.DataFrame:
        """One row for each epoch of each run: losses, and the metrics of validated epochs."""
        return self._frames.epochs

    @property
    def damaged(self) -> dict[str, str]:
        """The files of the store that could not be read, with the reasons; what needs them is left out."""
        return self._frames.damaged

    @cached_property
    def images(self) -> pd.DataFrame:
        """One row for each test image of each finished run, with all its metrics. 10,000 runs of 700 images take about 1 GB."""
        done = set(self.runs.loc[self.runs["state"] == "done", "run_id"])
        run_ids = [record.run_id for record in self._store.runs() if record.run_id in done]
        with TemporaryDirectory() as folder:
            file = Path(folder) / "images.parquet"
            read_images(self._store, run_ids, file)
            return pd.read_parquet(file)

    @cached_property
    def tables(self) -> pd.DataFrame:
        """One row for each cell and metric: mean, intervals, test against the baseline, published value; see `tables_frame`."""
        return tables_frame(build_tables(self._frames))
