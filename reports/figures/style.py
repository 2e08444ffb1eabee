"""The common style of figures: widths, colors, line styles, log axes and small multiples.

Figures are drawn at their printed size, in one of two widths, with no text smaller than SMALLEST_TEXT.
"""

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from reports.loading.schema import MAIN_METRIC, METRIC_LABELS

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType  # since matplotlib 3.11

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
LEGEND_LETTERS, PAGE_LETTERS = 40, 100  # after which the names of a legend are broken: beside a panel, and below several
_X_AXIS_HEIGHT = 0.42  # inches; ticks and label
Limits = tuple[float, float]
RC_PARAMS: "dict[RcKeyType, Any]" = {
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

    The column `series` names the lines. Up to MAX_SERIES_PER_PANEL share one legend: beside a single panel, or below several.
    More are split over panels, each with a legend below it.
    """
    names, panels = list(map(str, data["series"].unique())), _panels(data)
    shared, longest = 1 < len(names) <= MAX_SERIES_PER_PANEL, max(map(len, names))
    columns = min(columns, len(panels))
    if len(names) > MAX_SERIES_PER_PANEL:  # as few columns as leave the names of the legends on one line each
        columns = max(1, min(columns, int((PAGE_WIDTH - 0.9) / (longest * LETTER_WIDTH))))
    rows = math.ceil(len(panels) / columns)
    width = COLUMN_WIDTH if columns == 1 and not shared and len(names) <= MAX_SERIES_PER_PANEL else PAGE_WIDTH
    letters = int((width - 0.9) / columns / LETTER_WIDTH)  # that fit below a panel
    across = _legend_columns(longest, PAGE_WIDTH if shared else width / columns)
    beside = shared and len(panels) == 1
    lines = 0 if len(names) == 1 else math.ceil(min(len(names), MAX_SERIES_PER_PANEL) / across)  # of a legend
    if shared:
        wrapped = {name: textwrap.fill(name, LEGEND_LETTERS if beside else PAGE_LETTERS) for name in names}
        lines = _legend_lines(list(wrapped.values()), 1 if beside else across)
    legend = 0.17 * lines + 0.05 * bool(lines)  # inches
    height = max(2.3, legend) if beside else 2.3 * rows + legend * (1 if shared else rows)
    figure = Figure(figsize=(width, 0.2 + height), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=share_x, sharey=True, squeeze=False)
    for axes in grid[:, 0]:
        axes.set_ylabel(ylabel)
    for axes, (title, part) in zip(grid.flat, panels, strict=False):
        draw(axes, part)
        axes.set_title(textwrap.fill(title, letters), loc="left")
        axes.tick_params(labelbottom=True)
        if lines and not shared:
            _legend_below(figure, axes, letters, across)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    if shared:
        found = {str(line.get_label()): line for axes in grid.flat for line in axes.get_legend_handles_labels()[0]}
        handles = [found[name] for name in names if name in found]
        labels = [wrapped[name] for name in names if name in found]
        if beside:
            figure.legend(handles, labels, loc="outside right center")
        else:
            figure.legend(handles, labels, loc="outside lower center", ncols=across)
    return figure


def _panels(data: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The title and the rows of each panel; panels with too many series are split."""
    found = []
    for title, part in data.groupby("panel", sort=False):
        chunks = list(_chunks(list(part["series"].unique())))
        for number, chunk in enumerate(chunks, 1):
            ending = f" ({number} of {len(chunks)})" if len(chunks) > 1 else ""
            found.append((f"{title}{ending}", part[part["series"].isin(chunk)]))
    return found


def _legend_columns(longest: int, width: float) -> int:
    """How many names of a legend fit beside each other in a width in inches; `longest` is their number of letters."""
    return max(1, int(width / ((longest + 7) * LETTER_WIDTH)))


def _legend_lines(names: list[str], columns: int) -> int:
    """The lines of text of a legend, whose names may have several lines; a legend is filled column by column."""
    rows = math.ceil(len(names) / columns)
    return max(sum(name.count("\n") + 1 for name in names[start : start + rows]) for start in range(0, len(names), rows))


def _legend_below(figure: Figure, axes: Axes, letters: int, columns: int) -> None:
    handles, names = axes.get_legend_handles_labels()
    below = axes.transAxes + ScaledTranslation(0, -_X_AXIS_HEIGHT, figure.dpi_scale_trans)
    anchor: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below, "borderaxespad": 0}
    axes.legend(handles, [textwrap.fill(name, letters) for name in names], ncols=columns, **anchor)


def limits_without_outliers(values: pd.Series, visible: Sequence[float] = ()) -> Limits | None:
    """The ends of an axis on which a few outliers would flatten all other values; None if there are no such outliers.

    Outliers are beyond Tukey's outer fences (3 interquartile ranges), and leave less than a third of the axis to the others.
    The axis includes the numbers `visible`.
    """
    lowest, q1, q3, highest = values.quantile([0, 0.25, 0.75, 1])
    inside = values[values.between(q1 - 3 * (q3 - q1), q3 + 3 * (q3 - q1))]
    span = inside.max() - inside.min()
    if not 0 < 3 * span < highest - lowest:
        return None
    return min([inside.min() - 0.08 * span, *visible]), max([inside.max() + 0.08 * span, *visible])


def mark_outliers(
    axes: Axes, direction: Literal["x", "y"], along: pd.Series, values: pd.Series, limits: Limits | None, numbers: bool = True
) -> None:
    """End an axis at limits, with an arrow and `numbers` where values are beyond; `along`: their places on the other axis."""
    if limits is None:
        return
    axes.set(**{f"{direction}lim": limits})
    for end, beyond in zip(limits, (values < limits[0], values > limits[1]), strict=True):
        for place, found in values[beyond].groupby(along[beyond]):
            low, high = f"{found.min():.2g}", f"{found.max():.2g}"
            text = low if low == high else f"{low} to {high}"
            _mark(axes, direction, place, end, end == limits[0], text if numbers else "", (along.min(), along.max()))


def _mark(axes: Axes, direction: str, place: Any, end: float, first: bool, text: str, ends: tuple[Any, Any]) -> None:
    """Draw an arrow and a text at the first or last end of an axis; `ends` of the other axis are where the text must turn."""
    style: dict[str, Any] = {"color": "black", "markersize": 4, "clip_on": False, "zorder": 4}
    inwards = 5 if first else -5  # points
    words: dict[str, Any] = {"textcoords": "offset points", "fontsize": SMALLEST_TEXT}
    if direction == "x":
        axes.plot(end, place, "<" if first else ">", **style)
        axes.annotate(text, (end, place), (inwards, 0), ha="left" if first else "right", va="center", **words)
        return
    axes.plot(place, end, "v" if first else "^", **style)
    side = "left" if place == ends[0] else "right" if place == ends[1] else "center"
    axes.annotate(text, (place, end), (0, inwards), ha=side, va="bottom" if first else "top", **words)


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
