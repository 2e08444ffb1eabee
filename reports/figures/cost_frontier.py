"""Accuracy against the cost of the network: parameters, MACs and milliseconds per image."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.figures.spec import FigureData
from reports.figures.style import (
    GRAY,
    METRIC_AXIS,
    PAGE_WIDTH,
    SMALLEST_TEXT,
    limits_without_outliers,
    line_styles,
    mark_outliers,
    set_scale,
)
from reports.loading.collect import StoreFrames
from reports.loading.schema import MAIN_METRIC, METRICS
from reports.tables.formatting import cell_name
from reports.tables.table import Table

MAX_NETWORKS = 21  # with distinct pairs of color and marker
COST_AXES = {"parameters": ("parameters (M)", 1e6), "macs": ("MACs per image (G)", 1e9), "milliseconds": ("ms per image", 1)}
_COSTS = [*COST_AXES, "milliseconds_low", "milliseconds_high", "device"]


def cost_frontier(table: Table, frames: StoreFrames) -> list[FigureData]:
    """Compute the figure of a table."""
    return [FigureData(cells_by_cost(table))]


def cells_by_cost(table: Table) -> pd.DataFrame:
    """Compute network, cell, mean, low, high, n_seeds, name, costs, device, best, front_<cost> for every measured cell.

    `low` and `high` are the best and worst seed; the costs are parameters, macs, milliseconds and their quartiles. `best` marks
    the best cell of each network, `front_<cost>` those of them on the Pareto front of metric and cost. Empty if all cells have
    the same network.
    """
    values = table.by_seed[:, METRICS.index(MAIN_METRIC)]
    cells = [n for n, cell in enumerate(table.cells) if cell.network in table.costs.index and np.isfinite(values[n]).any()]
    if len({table.cells[n].network for n in cells}) < 2:
        return pd.DataFrame()
    values = values[cells]
    frame = pd.DataFrame(
        {
            "network": [table.cells[n].network for n in cells],
            "cell": [cell_name(table, table.cells[n], without=("backbone", "bins.n_bins")) for n in cells],
            "mean": np.nanmean(values, axis=1),
            "low": np.nanmin(values, axis=1),
            "high": np.nanmax(values, axis=1),
            "n_seeds": np.isfinite(values).sum(axis=1),
        }
    )
    frame = frame.join(table.costs[["name", *_COSTS]], on="network").sort_values("mean", ignore_index=True)
    frame["best"] = ~frame["network"].duplicated()
    for cost in COST_AXES:
        costs = frame[frame["best"]].sort_values(["mean", cost])[cost].astype(float)  # of equal means, the cheapest first
        on_front = costs < costs.cummin().shift(fill_value=np.inf)
        frame[f"front_{cost}"] = on_front.reindex(frame.index, fill_value=False)
    return frame


def draw_cost_frontier(data: pd.DataFrame) -> Figure:
    """Draw a panel per cost, with the best cell of each network and their Pareto front."""
    best = data[data["best"]].head(MAX_NETWORKS)
    styles, limits = line_styles(best["network"]), limits_without_outliers(data["mean"], [best["low"].min()])
    figure = Figure(figsize=(PAGE_WIDTH, 3.0 + 0.14 * len(best)), layout="constrained")
    panels = figure.subplots(1, len(COST_AXES), sharey=True)
    for axes, (cost, (label, unit)) in zip(panels, COST_AXES.items(), strict=True):
        axes.plot(data[cost] / unit, data["mean"], ".", color="0.75", markersize=3, label="other cells", zorder=1)
        front = data[data[f"front_{cost}"]].sort_values(cost)
        line = {"color": GRAY, "drawstyle": "steps-post", "linewidth": 1, "zorder": 1}
        axes.plot(front[cost] / unit, front["mean"], label="Pareto front", **line)
        for cell in best.to_dict("records"):
            _draw_network(axes, cell, cost, unit, styles[cell["network"]])
        mark_outliers(axes, "y", data[cost] / unit, data["mean"], limits)
        set_scale(axes, "x", data[cost] / unit)
        if axes.get_xscale() == "linear":
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(label)
    panels[0].set_ylabel(METRIC_AXIS)
    handles, labels = panels[0].get_legend_handles_labels()
    labels = [textwrap.fill(label, 105) for label in labels]
    title = f"one image at a time on {data['device'].iloc[0]}; best cell of each network:"
    figure.legend(handles, labels, loc="outside lower center", title=title, title_fontsize=SMALLEST_TEXT)
    return figure


def _draw_network(axes: Axes, cell: dict[Any, Any], cost: str, unit: float, style: dict[str, Any]) -> None:
    """Draw the best cell of a network: its mean, its range over seeds and, for milliseconds, the quartiles."""
    x, color = cell[cost] / unit, style["color"]
    axes.plot([x, x], [cell["low"], cell["high"]], linewidth=1, color=color, zorder=3)
    if cost == "milliseconds":
        quartiles = [cell["milliseconds_low"], cell["milliseconds_high"]]
        axes.plot(quartiles, 2 * [cell["mean"]], linewidth=1, color=color, zorder=3)
    label = f"{cell['name']}: {cell['cell']}"
    axes.plot([x], [cell["mean"]], style["marker"], markersize=5, linestyle="none", label=label, color=color, zorder=3)
