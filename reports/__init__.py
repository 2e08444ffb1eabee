"""Tables, figures and pages made from the run store alone.

    import reports

    report = reports.load("store")
    report.tables.query("metric == 'abs_rel'")[["method", "loss", "mean", "ci_low", "ci_high"]]

loading/    the run store as data frames
tables/     runs grouped into cells, statistics over seeds and over test images, tables.parquet
figures/    figures, each with its data beside it
pages/      the content of report.*, tables.*, runs.md and published.*, and their files
render/     page blocks as Markdown, HTML and LaTeX
bundle/     the `tiekd bundle` command: a study and its report in one zip file
viewer/     the `tiekd view` command: predictions side by side
published/  the published tables as CSV
report.py   the class that `load` returns
cli.py      the commands `tiekd report` and `tiekd power`
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reports.report import Report

__all__ = ["load"]


def load(store: str | Path, study: str | None = None) -> "Report":
    """Read a run store, or one study of it, as data frames: `runs`, `epochs`, `images` and `tables`.

    store: a folder, or a URI such as s3://bucket/prefix. Raises UserError if there is no such store or study.
    """
    from reports.report import Report  # imports pandas, PyArrow and SciPy
    from tiekd.store.run_store import RunStore

    return Report(RunStore(store), study)
