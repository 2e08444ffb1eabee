"""Learning curves: a metric during training, mean and range over seeds."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.figures.spec import FigureData, best_cells
from reports.figures.style import METRIC_AXIS, line_styles, set_scale, small_multiples
from reports.loading.collect import StoreFrames
from reports.loading.schema import MAIN_METRIC
from reports.tables.cells import TableCell
from reports.tables.formatting import cell_name, label_text
from reports.tables.table import Table

MAX_CURVES = 27
MAX_MARKERS = 8  # per line


def learning_curves(table: Table, frames: StoreFrames) -> list[FigureData]:
    """Compute panel, series, epoch, mean, low, high, n_seeds over the finished runs, at validated epochs.

    `step` replaces `epoch` if the runs have different numbers of epochs, as those that see different frames do.
    """
    table, remark = best_cells(table, MAX_CURVES)
    members = [
        (run_id, panel, cell_name(table, cell, without=("teacher", "backbone")))
        for cell in table.cells
        for panel in _panels(table, cell)
        for run_id in cell.done_ids.values()
    ]
    drawn = pd.DataFrame(members, columns=["run_id", "panel", "series"])
    epochs = drawn.merge(frames.epochs, on="run_id")
    time = "epoch" if epochs.groupby("run_id")["epoch"].max().nunique() <= 1 else "step"
    validated = epochs[epochs[MAIN_METRIC].notna()]
    values = validated.groupby(["panel", "series", time], sort=False)[MAIN_METRIC]
    return [FigureData(values.agg(mean="mean", low="min", high="max", n_seeds="count").reset_index(), remark=remark)]


def _panels(table: Table, cell: TableCell) -> list[str]:
    """List the panels of a cell, one per teacher and backbone; a cell without a teacher is in every panel of its backbone."""
    teachers = [label_text("teacher", cell.labels["teacher"])]
    if teachers == [""]:
        same = [
            label_text("teacher", c.labels["teacher"]) for c in table.cells if c.labels["backbone"] == cell.labels["backbone"]
        ]
        teachers = list(dict.fromkeys(filter(None, same))) or ["no teacher"]
    return [f"{teacher} · {cell.labels['backbone']}" for teacher in teachers]


def draw_learning_curves(data: pd.DataFrame) -> Figure:
    """Draw a panel per teacher and backbone: means as lines, ranges as bands."""
    styles, time = line_styles(data["series"]), "step" if "step" in data else "epoch"

    def draw(axes: Axes, part: pd.DataFrame) -> None:
        for series, rows in part.groupby("series", sort=False):
            style, every = styles[str(series)], math.ceil(len(rows) / MAX_MARKERS)
            axes.plot(rows[time], rows["mean"], **style, markersize=3.5, linewidth=1.1, markevery=every, label=str(series))
            axes.fill_between(rows[time], rows["low"], rows["high"], color=style["color"], alpha=0.15, linewidth=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(time)
        set_scale(axes, "y", pd.concat([data["low"], data["high"]]))

    return small_multiples(data, METRIC_AXIS, draw)
