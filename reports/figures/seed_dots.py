"""Every seed of every cell on one axis."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.figures.style import COLOURS, GREY, PAGE, SMALLEST_TEXT
from reports.loading.schema import MAIN_METRIC, METRIC_LABELS
from reports.tables.formatting import cell_name, common_name
from reports.tables.published import published_value
from reports.tables.table import Table

_LETTERS = 52  # of a cell's name in a line


def seeds_by_cell(table: Table) -> pd.DataFrame:
    """common, cell, run_id, seed, state, abs_rel, published: a row per run, also of those without a number.

    `common` are the labels that all cells share, `cell` what tells them apart.
    """
    parts = []
    for cell in table.cells:
        published = published_value(cell.labels, table.protocol, MAIN_METRIC)
        rows = pd.DataFrame(cell.runs, columns=["run_id", "seed", "state", MAIN_METRIC])
        parts.append(rows.assign(cell=cell_name(table, cell), published=float(published or "nan")))
    seeds = pd.concat(parts, ignore_index=True).assign(common=common_name(table))
    return seeds[["common", "cell", "run_id", "seed", "state", MAIN_METRIC, "published"]]


def draw_dots(data: pd.DataFrame) -> Figure:
    cells = data.groupby("cell", sort=False)
    names = [textwrap.fill(name, _LETTERS) for name, _ in cells]
    lines = sum(name.count("\n") + 1 for name in names)
    figure = Figure(figsize=(PAGE, 0.9 + 0.07 * len(names) + 0.13 * lines), layout="constrained")
    axes = figure.subplots()
    axes.set_title(data["common"].iloc[0], loc="left")
    for position, (_, rows) in enumerate(cells):
        done = rows[MAIN_METRIC].dropna()
        heights = position + np.linspace(-0.15, 0.15, len(done)) * (len(done) > 1)
        axes.plot(done, heights, "o", color=COLOURS[0], markersize=3.5, alpha=0.75, label="one seed", zorder=3)
        if len(done):
            axes.plot(2 * [done.mean()], [position - 0.34, position + 0.34], color=COLOURS[1], linewidth=2, label="mean")
        axes.plot(rows["published"].iloc[:1], [position], "D", mfc="none", mec="black", markersize=5, label="published")
        _tell_lost(axes, rows, position)
    axes.set_yticks(range(len(cells)), names)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylim(len(cells) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"{METRIC_LABELS[MAIN_METRIC]} (lower is better)")
    shown = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if data["published"].isna().all():
        shown.pop("published", None)
    figure.legend(shown.values(), shown.keys(), loc="outside upper right", ncols=3)
    return figure


def _tell_lost(axes: Axes, rows: pd.DataFrame, position: int) -> None:
    """Name the runs without a number at the right edge of their row."""
    lost = rows.loc[rows["state"] != "done", "state"].value_counts()
    if len(lost):
        text = ", ".join(f"{count} {state}" for state, count in lost.items())
        place = {"xy": (1, position), "xycoords": axes.get_yaxis_transform(), "xytext": (4, 0), "textcoords": "offset points"}
        axes.annotate(text, **place, va="center", fontsize=SMALLEST_TEXT, color=GREY, annotation_clip=False)
