"""Accuracy against what the network costs: parameters, MACs, milliseconds per image."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.figures.style import GREY, PAGE, SMALLEST_TEXT, scale, styles
from reports.loading.schema import MAIN_METRIC, METRIC_LABELS, METRICS
from reports.tables.formatting import cell_name
from reports.tables.table import Table

MOST_NETWORKS = 21  # as many as colours and markers tell apart
PANELS = {"parameters": ("parameters (M)", 1e6), "macs": ("MACs per image (G)", 1e9), "milliseconds": ("ms per image", 1)}
_COSTS = [*PANELS, "milliseconds_low", "milliseconds_high", "device"]


def cells_by_cost(table: Table) -> pd.DataFrame:
    """network, cell, mean, low, high, n_seeds, parameters, macs, milliseconds (and quartiles), device, best, front_<cost>.

    A row per cell that has a number and whose network was measured; low and high are its worst and best seeds. `best` marks the
    best cell of each network; `front_` those of these that no other one surpasses in both that cost and the metric. Empty where
    the cells share one network: there is nothing to weigh.
    """
    values = table.by_seed[:, METRICS.index(MAIN_METRIC)]
    numbers = [n for n, cell in enumerate(table.cells) if cell.network in table.costs.index and np.isfinite(values[n]).any()]
    if len({table.cells[n].network for n in numbers}) < 2:
        return pd.DataFrame()
    found = values[numbers]
    frame = pd.DataFrame(
        {
            "network": [table.cells[n].network for n in numbers],
            "cell": [cell_name(table, table.cells[n], without=("backbone", "bins.n_bins")) for n in numbers],
            "mean": np.nanmean(found, axis=1),
            "low": np.nanmin(found, axis=1),
            "high": np.nanmax(found, axis=1),
            "n_seeds": np.isfinite(found).sum(axis=1),
        }
    )
    frame = frame.join(table.costs[["name", *_COSTS]], on="network").sort_values("mean", ignore_index=True)
    frame["best"] = ~frame["network"].duplicated()
    for cost in PANELS:
        costs = frame[frame["best"]].sort_values(["mean", cost])[cost].astype(float)  # of equal means the cheapest first
        on_front = costs < costs.cummin().shift(fill_value=np.inf)
        frame[f"front_{cost}"] = on_front.reindex(frame.index, fill_value=False)
    return frame


def draw_frontier(data: pd.DataFrame) -> Figure:
    best = data[data["best"]].head(MOST_NETWORKS)
    style = styles(best["network"])
    figure = Figure(figsize=(PAGE, 3.0 + 0.14 * len(best)), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (cost, (label, unit)) in zip(panels, PANELS.items(), strict=True):
        axes.plot(data[cost] / unit, data["mean"], ".", color="0.75", markersize=3, label="other cells", zorder=1)
        front = data[data[f"front_{cost}"]].sort_values(cost)
        axes.plot(
            front[cost] / unit, front["mean"], color=GREY, drawstyle="steps-post", linewidth=1, label="Pareto front", zorder=1
        )
        for row in best.itertuples():
            _draw_network(axes, row, cost, unit, style[row.network])
        scale(axes, "x", data[cost] / unit)
        if axes.get_xscale() == "linear":
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(label)
    panels[0].set_ylabel(f"{METRIC_LABELS[MAIN_METRIC]} (lower is better)")
    handles, names = panels[0].get_legend_handles_labels()
    names = [textwrap.fill(name, 105) for name in names]
    title = f"one image at a time on {data['device'].iloc[0]}; of each network its best cell:"
    figure.legend(handles, names, loc="outside lower center", title=title, title_fontsize=SMALLEST_TEXT)
    return figure


def _draw_network(axes: Axes, row, cost: str, unit: float, style: dict) -> None:
    """A network's best cell: mean and range over seeds; of milliseconds the quartiles, too."""
    place = getattr(row, cost) / unit
    own = {"color": style["color"], "zorder": 3}
    axes.plot([place, place], [row.low, row.high], linewidth=1, **own)
    if cost == "milliseconds":
        axes.plot([row.milliseconds_low, row.milliseconds_high], 2 * [row.mean], linewidth=1, **own)
    axes.plot([place], [row.mean], style["marker"], markersize=5, linestyle="none", label=f"{row.name}: {row.cell}", **own)
