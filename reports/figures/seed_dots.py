"""Every seed of every cell on one axis."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.figures.spec import FigureData, best_cells
from reports.figures.style import (
    GRAY,
    METRIC_AXIS,
    PAGE_WIDTH,
    SERIES_COLORS,
    SMALLEST_TEXT,
    limits_without_outliers,
    mark_outliers,
)
from reports.loading.collect import StoreFrames
from reports.loading.schema import MAIN_METRIC
from reports.tables.formatting import cell_name, common_name
from reports.tables.published import published_value
from reports.tables.table import Table

MAX_CELLS = 40
_LETTERS_PER_LINE = 52  # of a cell's name


def seed_dots(table: Table, frames: StoreFrames) -> list[FigureData]:
    """Compute common, cell, run_id, seed, state, abs_rel, published for every run, with or without a result.

    `common` are the labels that all cells share, `cell` the others.
    """
    table, remark = best_cells(table, MAX_CELLS)
    parts = []
    for cell in table.cells:
        published = published_value(cell.labels, table.protocol, MAIN_METRIC)
        rows = pd.DataFrame(cell.runs, columns=["run_id", "seed", "state", MAIN_METRIC])
        parts.append(rows.assign(cell=cell_name(table, cell), published=float(published or "nan")))
    seeds = pd.concat(parts, ignore_index=True).assign(common=common_name(table))
    if seeds[MAIN_METRIC].isna().all():
        return []
    return [FigureData(seeds[["common", "cell", "run_id", "seed", "state", MAIN_METRIC, "published"]], remark=remark)]


def draw_seed_dots(data: pd.DataFrame) -> Figure:
    """Draw a row per cell: its seeds, their mean and the published value."""
    cells = data.groupby("cell", sort=False)
    names = [textwrap.fill(str(name), _LETTERS_PER_LINE) for name, _ in cells]
    lines = sum(name.count("\n") + 1 for name in names)
    figure = Figure(figsize=(PAGE_WIDTH, 0.9 + 0.07 * len(names) + 0.13 * lines), layout="constrained")
    axes = figure.subplots()
    axes.set_title(data["common"].iloc[0], loc="left")
    limits = limits_without_outliers(data[MAIN_METRIC].dropna(), list(data["published"].dropna()))
    for position, (_, rows) in enumerate(cells):
        done = rows[MAIN_METRIC].dropna()
        heights = position + np.linspace(-0.15, 0.15, len(done)) * (len(done) > 1)
        axes.plot(done, heights, "o", color=SERIES_COLORS[0], markersize=3.5, alpha=0.75, label="one seed", zorder=3)
        if len(done):
            ends = [position - 0.34, position + 0.34]
            axes.plot(2 * [done.mean()], ends, color=SERIES_COLORS[1], linewidth=2, label="mean")
        axes.plot(rows["published"].iloc[:1], [position], "D", mfc="none", mec="black", markersize=5, label="published")
        mark_outliers(axes, "x", pd.Series(position, done.index), done, limits)
        _list_lost_seeds(axes, rows, position)
    axes.set_yticks(range(len(cells)), names)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylim(len(cells) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(METRIC_AXIS)
    legend = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if data["published"].isna().all():
        legend.pop("published", None)
    figure.legend(legend.values(), legend.keys(), loc="outside upper right", ncols=3)
    return figure


def _list_lost_seeds(axes: Axes, rows: pd.DataFrame, position: int) -> None:
    """Write the number of runs without a result, by state, at the right edge of a row."""
    lost = rows.loc[rows["state"] != "done", "state"].value_counts()
    if len(lost):
        axes.annotate(
            ", ".join(f"{count} {state}" for state, count in lost.items()),
            xy=(1, position),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALLEST_TEXT,
            color=GRAY,
            annotation_clip=False,
        )
