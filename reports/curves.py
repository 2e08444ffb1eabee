"""Learning curves: a metric after each epoch, mean and range over seeds."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.layout import cell_name
from reports.panels import scale, small_multiples, styles
from reports.schema import MAIN_METRIC, METRIC_LABELS
from reports.tables import Cell, Table


def learning_curves(table: Table, epochs: pd.DataFrame) -> pd.DataFrame:
    """panel, series, epoch, mean, low, high, n_seeds over the runs that are done; epochs without validation are left out."""
    measured = epochs.loc[epochs[MAIN_METRIC].notna(), ["run_id", "epoch", MAIN_METRIC]]
    parts = []
    for cell in table.cells:
        done = cell.runs.loc[cell.runs["state"] == "done", "run_id"]
        values = measured.loc[measured["run_id"].isin(done)].groupby("epoch")[MAIN_METRIC]
        part = values.agg(mean="mean", low="min", high="max", n_seeds="count").reset_index()
        series = cell_name(table, cell, without=("teacher", "backbone"))
        parts += [part.assign(panel=panel, series=series) for panel in _panels(table, cell)]
    curves = pd.concat(parts, ignore_index=True)
    return curves[["panel", "series", "epoch", "mean", "low", "high", "n_seeds"]]


def _panels(table: Table, cell: Cell) -> list[str]:
    """A panel per teacher and backbone; a cell without a teacher stands in every panel of its backbone, to compare with."""
    teachers = [cell.labels["teacher"]]
    if teachers == [""]:
        same = [c.labels["teacher"] for c in table.cells if c.labels["backbone"] == cell.labels["backbone"]]
        teachers = list(dict.fromkeys(filter(None, same))) or ["no teacher"]
    return [f"{teacher} · {cell.labels['backbone']}" for teacher in teachers]


def draw_curves(data: pd.DataFrame) -> Figure:
    style = styles(data)

    def draw(axes: Axes, part: pd.DataFrame) -> None:
        for name, rows in part.groupby("series", sort=False):
            axes.plot(rows["epoch"], rows["mean"], **style[name], markersize=3.5, linewidth=1.3, label=name)
            axes.fill_between(rows["epoch"], rows["low"], rows["high"], color=style[name]["color"], alpha=0.18, linewidth=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        scale(axes, "y", data["mean"])

    return small_multiples(data, "epoch", f"{METRIC_LABELS[MAIN_METRIC]} (lower is better)", draw)
