"""Learning curves: a metric after each epoch, mean and range over seeds."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.figures.style import scale, small_multiples, styles
from reports.loading.schema import MAIN_METRIC, METRIC_LABELS
from reports.tables.cells import TableCell
from reports.tables.formatting import cell_name
from reports.tables.table import Table

MOST_MARKERS = 8  # on a line


def learning_curves(table: Table, epochs: pd.DataFrame) -> pd.DataFrame:
    """panel, series, epoch, mean, low, high, n_seeds over the runs that are done; epochs without validation are left out."""
    members = [
        (run_id, panel, cell_name(table, cell, without=("teacher", "backbone")))
        for cell in table.cells
        for panel in _panels(table, cell)
        for run_id in cell.done_ids.values()
    ]
    drawn = pd.DataFrame(members, columns=["run_id", "panel", "series"])
    measured = epochs.loc[epochs[MAIN_METRIC].notna(), ["run_id", "epoch", MAIN_METRIC]]
    values = drawn.merge(measured, on="run_id").groupby(["panel", "series", "epoch"], sort=False)[MAIN_METRIC]
    return values.agg(mean="mean", low="min", high="max", n_seeds="count").reset_index()


def _panels(table: Table, cell: TableCell) -> list[str]:
    """A panel per teacher and backbone; a cell without a teacher stands in every panel of its backbone, to compare with."""
    teachers = [cell.labels["teacher"]]
    if teachers == [""]:
        same = [c.labels["teacher"] for c in table.cells if c.labels["backbone"] == cell.labels["backbone"]]
        teachers = list(dict.fromkeys(filter(None, same))) or ["no teacher"]
    return [f"{teacher} · {cell.labels['backbone']}" for teacher in teachers]


def draw_curves(data: pd.DataFrame) -> Figure:
    style = styles(data["series"])

    def draw(axes: Axes, part: pd.DataFrame) -> None:
        for name, rows in part.groupby("series", sort=False):
            apart = math.ceil(len(rows) / MOST_MARKERS)
            axes.plot(rows["epoch"], rows["mean"], **style[name], markersize=3.5, linewidth=1.1, markevery=apart, label=name)
            axes.fill_between(rows["epoch"], rows["low"], rows["high"], color=style[name]["color"], alpha=0.15, linewidth=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        scale(axes, "y", data[["low", "high"]].stack())

    return small_multiples(data, f"{METRIC_LABELS[MAIN_METRIC]} (lower is better)", draw)
