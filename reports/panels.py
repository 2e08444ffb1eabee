"""Small multiples: many series in panels of a few, with shared axes, so that each line can be told from its neighbours."""

import math
import textwrap
from collections.abc import Callable, Iterator
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

# Okabe and Ito: told apart with any colour vision; the yellow is left out as too faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
LINES = ("-", "--", ":")
PER_PANEL = 9
_COLUMNS = 3


def small_multiples(data: pd.DataFrame, xlabel: str, ylabel: str, draw: Callable[[Axes, pd.DataFrame], None]) -> Figure:
    """A panel for each value of the column `panel`, drawn by `draw(axes, its rows)`; `series` names the lines.

    A panel of more than PER_PANEL series goes on in a next one.
    """
    groups = [
        (title, part[part["series"].isin(some)])
        for title, part in data.groupby("panel", sort=False)
        for some in _chunks(list(part["series"].unique()))
    ]
    columns = min(_COLUMNS, len(groups))
    rows = math.ceil(len(groups) / columns)
    lines = max(sum(_wrapped(name).count("\n") + 1 for name in part["series"].unique()) for _, part in groups)
    figure = Figure(figsize=(1 + 3.6 * columns, 0.4 + rows * (2.9 + 0.17 * lines)), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    figure.supylabel(ylabel, fontsize="medium")
    for axes, (title, part) in zip(grid.flat, groups, strict=False):
        draw(axes, part)
        axes.set_title(title, fontsize="medium", loc="left")
        axes.set_xlabel(xlabel)
        axes.tick_params(labelbottom=True)
        handles, names = axes.get_legend_handles_labels()
        if handles:
            axes.legend(handles, map(_wrapped, names), loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize="small")
    for axes in grid.flat[len(groups) :]:
        axes.set_visible(False)
    return figure


def styles(data: pd.DataFrame) -> dict[str, dict]:
    """Line properties of each series of a figure: the same in all its panels."""
    return {
        name: {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "linestyle": LINES[number // len(COLOURS) % len(LINES)],
        }
        for number, name in enumerate(data["series"].unique())
    }


def scale(axes: Axes, direction: Literal["x", "y"], values: pd.Series) -> None:
    """A logarithmic axis where positive values span a decade or more."""
    if (values > 0).all() and values.max() >= 10 * values.min():
        axes.set(**{f"{direction}scale": "log"})
        axis = axes.xaxis if direction == "x" else axes.yaxis
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())


def _wrapped(name: str) -> str:
    """A legend must not be wider than its panel."""
    return textwrap.fill(name, 42)


def _chunks(names: list[str]) -> Iterator[list[str]]:
    """Near-equal parts of at most PER_PANEL."""
    parts = math.ceil(len(names) / PER_PANEL)
    size = math.ceil(len(names) / parts)
    for start in range(0, len(names), size):
        yield names[start : start + size]
