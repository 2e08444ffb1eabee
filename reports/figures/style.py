"""What figures share: widths, colours and line styles, and small multiples in which each line can be told from its neighbours.

Figures are drawn at the size in which they are printed, in one of two widths, with no text below SMALLEST_TEXT.
"""

import math
import textwrap
from collections.abc import Callable, Iterator
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

COLUMN, PAGE = 3.4, 7.0  # inches: one column and the whole width of a two-column page
SMALLEST_TEXT = 7  # points
LETTER = 0.065  # inches; the width of one, at most
# Told apart with any colour vision and, by their lightness, in print without colour.
COLOURS = ("#0072B2", "#EE7733", "#882255", "#33BBEE", "#EE3377", "#332288", "#000000")
MARKERS = "osD^vPX"
LINES = ("-", "--", ":")
GREY = "0.45"
PER_PANEL = 9
_AXIS = 0.42  # inches that ticks and label of a panel's axis take
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": SMALLEST_TEXT,
    "ytick.labelsize": SMALLEST_TEXT,
    "legend.fontsize": SMALLEST_TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "tiekd",  # the same numbers give the same file
}


def small_multiples(
    data: pd.DataFrame, ylabel: str, draw: Callable[[Axes, pd.DataFrame], None], shared_x: bool = True, columns: int = 3
) -> Figure:
    """A panel for each value of the column `panel`, drawn by `draw(axes, its rows)`; `series` names the lines.

    A panel of more than PER_PANEL series goes on in a next one.
    """
    groups = [
        (title, part[part["series"].isin(some)])
        for title, part in data.groupby("panel", sort=False)
        for some in _chunks(list(part["series"].unique()))
    ]
    columns = min(columns, len(groups))
    rows = math.ceil(len(groups) / columns)
    width = COLUMN if columns == 1 else PAGE
    letters = int((width - 0.9) / columns / LETTER)  # that fit beneath a panel
    names = {name: textwrap.fill(name, letters) for name in data["series"].unique()}
    named = data["series"].nunique() > 1
    lines = max(sum(names[name].count("\n") + 1 for name in part["series"].unique()) for _, part in groups) if named else 0
    figure = Figure(figsize=(width, 0.2 + rows * (2.3 + 0.16 * lines)), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=shared_x, sharey=True, squeeze=False)
    for axes in grid[:, 0]:
        axes.set_ylabel(ylabel)
    for axes, (title, part) in zip(grid.flat, groups, strict=False):
        draw(axes, part)
        axes.set_title(textwrap.fill(title, letters), loc="left")
        axes.tick_params(labelbottom=True)
        handles, found = axes.get_legend_handles_labels()
        if named and handles:
            below = axes.transAxes + ScaledTranslation(0, -_AXIS, figure.dpi_scale_trans)
            place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below, "borderaxespad": 0}
            axes.legend(handles, [names[name] for name in found], **place)
    for axes in grid.flat[len(groups) :]:
        axes.set_visible(False)
    return figure


def styles(names: pd.Series) -> dict[str, dict]:
    """Line properties of each distinct name: the same in all panels of a figure."""
    return {
        name: {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
            "linestyle": LINES[number // len(COLOURS) % len(LINES)],
        }
        for number, name in enumerate(names.unique())
    }


def scale(axes: Axes, direction: Literal["x", "y"], values: pd.Series) -> None:
    """A logarithmic axis where positive values span a decade or more, with as many ticks as find room."""
    low, high = values.min(), values.max()
    if low > 0 and high >= 10 * low:
        axes.set(**{f"{direction}scale": "log"})
        axis = axes.xaxis if direction == "x" else axes.yaxis
        decades = math.log10(high / low)
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.7 else (1, 3) if decades < 3 else (1,)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())


def _chunks(names: list[str]) -> Iterator[list[str]]:
    """Near-equal parts of at most PER_PANEL."""
    parts = math.ceil(len(names) / PER_PANEL)
    size = math.ceil(len(names) / parts)
    for start in range(0, len(names), size):
        yield names[start : start + size]
