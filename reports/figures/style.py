"""The common style of figures: widths, colors, line styles, log axes and small multiples.

Figures are drawn at their printed size, in one of two widths, with no text smaller than SMALLEST_TEXT.
"""

import math
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation
from matplotlib.typing import RcKeyType

from reports.loading.schema import MAIN_METRIC, METRIC_LABELS

METRIC_NAME = METRIC_LABELS[MAIN_METRIC]
METRIC_AXIS = f"{METRIC_NAME} (lower is better)"
COLUMN_WIDTH, PAGE_WIDTH = 3.4, 7.0  # inches; one column and both columns of a page
SMALLEST_TEXT = 7  # points
LETTER_WIDTH = 0.065  # inches; upper bound
# Distinguishable with any color vision and, by lightness, in black and white print.
SERIES_COLORS = ("#0072B2", "#EE7733", "#882255", "#33BBEE", "#EE3377", "#332288", "#000000")
MARKERS = "osD^vPX"
LINES = ("-", "--", ":")
GRAY = "0.45"
MAX_SERIES_PER_PANEL = 9
_X_AXIS_HEIGHT = 0.42  # inches; ticks and label
RC_PARAMS: dict[RcKeyType, Any] = {
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
    "svg.hashsalt": "tiekd",  # makes SVG files reproducible
    "pdf.fonttype": 42,  # text as text, in fonts that publishers accept
}


def small_multiples(
    data: pd.DataFrame, ylabel: str, draw: Callable[[Axes, pd.DataFrame], None], share_x: bool = True, columns: int = 3
) -> Figure:
    """Draw a panel for each value of the column `panel`, by `draw(axes, rows of the panel)`.

    The column `series` names the lines. Panels with more than MAX_SERIES_PER_PANEL series are split.
    """
    panels = [
        (str(title), part[part["series"].isin(chunk)])
        for title, part in data.groupby("panel", sort=False)
        for chunk in _chunks(list(part["series"].unique()))
    ]
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    letters = int((width - 0.9) / columns / LETTER_WIDTH)  # that fit below a panel
    labels = {name: textwrap.fill(name, letters) for name in data["series"].unique()}
    with_legend = len(labels) > 1
    lines = [sum(labels[name].count("\n") + 1 for name in part["series"].unique()) for _, part in panels]  # of each legend
    figure = Figure(figsize=(width, 0.2 + rows * (2.3 + 0.16 * max(lines) * with_legend)), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=share_x, sharey=True, squeeze=False)
    for axes in grid[:, 0]:
        axes.set_ylabel(ylabel)
    for axes, (title, part) in zip(grid.flat, panels, strict=False):
        draw(axes, part)
        axes.set_title(textwrap.fill(title, letters), loc="left")
        axes.tick_params(labelbottom=True)
        handles, names = axes.get_legend_handles_labels()
        if with_legend and handles:
            below = axes.transAxes + ScaledTranslation(0, -_X_AXIS_HEIGHT, figure.dpi_scale_trans)
            anchor = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below, "borderaxespad": 0}
            axes.legend(handles, [labels[name] for name in names], **anchor)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    return figure


def line_styles(names: pd.Series) -> dict[str, dict[str, Any]]:
    """Return keyword arguments of `Axes.plot` for each distinct name, the same in all panels of a figure."""
    return {
        name: {
            "color": SERIES_COLORS[number % len(SERIES_COLORS)],
            "marker": MARKERS[(number + number // len(SERIES_COLORS)) % len(MARKERS)],
            "linestyle": LINES[number // len(SERIES_COLORS) % len(LINES)],
        }
        for number, name in enumerate(names.unique())
    }


def set_scale(axes: Axes, direction: Literal["x", "y"], values: pd.Series) -> None:
    """Make an axis logarithmic if the values are positive and span at least a decade, with as many ticks as fit."""
    low, high = values.min(), values.max()
    if low > 0 and high >= 10 * low:
        axes.set(**{f"{direction}scale": "log"})
        axis = axes.xaxis if direction == "x" else axes.yaxis
        decades = math.log10(high / low)
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.7 else (1, 3) if decades < 3 else (1,)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())


def _chunks(names: list[str]) -> Iterator[list[str]]:
    """Split names into chunks of nearly equal size, of at most MAX_SERIES_PER_PANEL."""
    n_chunks = math.ceil(len(names) / MAX_SERIES_PER_PANEL)
    size = math.ceil(len(names) / n_chunks)
    for start in range(0, len(names), size):
        yield names[start : start + size]
