"""Lines are distinguishable without color and with any color vision, and legends fit."""

from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from reports.figures.learning_curves import draw_learning_curves
from reports.figures.style import (
    MAX_SERIES_PER_PANEL,
    RC_PARAMS,
    SERIES_COLORS,
    limits_without_outliers,
    line_styles,
    mark_outliers,
)

# Linear RGB as seen by dichromats (Machado, Oliveira and Fernandes 2009, severity 1).
VISION = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])


def lab(color: str, vision) -> np.ndarray:
    """L*, a*, b* of a color as seen with a kind of color vision."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = TO_XYZ @ np.clip(np.asarray(vision) @ linear, 0, 1) / (0.95047, 1, 1.08883)
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_colors_differ_in_lightness():
    lightness = sorted(lab(color, VISION["normal"])[0] for color in SERIES_COLORS)
    assert min(np.diff(lightness)) > 7
    assert lightness[-1] < 75  # on white


@pytest.mark.parametrize("vision", VISION)
def test_colors_differ_for_any_color_vision(vision):
    seen = [lab(color, VISION[vision]) for color in SERIES_COLORS]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 15


def test_series_differ_in_more_than_color():
    styles = line_styles(pd.Series([f"series {number}" for number in range(3 * len(SERIES_COLORS))]))
    assert len({tuple(style.values()) for style in styles.values()}) == 3 * len(SERIES_COLORS)
    first = list(styles.values())[: len(SERIES_COLORS)]
    assert len({style["marker"] for style in first}) == len(SERIES_COLORS)


def test_long_legend_is_below_its_panel_and_inside_the_figure():
    names = [f"a name of several words, number {number} of many" for number in range(2 * MAX_SERIES_PER_PANEL)]
    data = pd.DataFrame({"panel": "one", "series": names, "epoch": 1, "mean": 0.1, "low": 0.1, "high": 0.1})
    with matplotlib.rc_context(RC_PARAMS):
        figure = draw_learning_curves(data)
        figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend().get_window_extent()
        assert 0 <= legend.x0 < legend.x1 <= figure.bbox.x1
        assert 0 <= legend.y0 < legend.y1 <= axes.xaxis.label.get_window_extent().y0


def test_few_series_share_one_legend_inside_the_figure():
    for panels in (["one"], ["one", "two", "three", "four"]):
        rows = [(panel, f"series {n}", epoch, 0.1, 0.1, 0.2) for panel in panels for n in range(5) for epoch in (1, 2)]
        with matplotlib.rc_context(RC_PARAMS):
            figure = draw_learning_curves(pd.DataFrame(rows, columns=["panel", "series", "epoch", "mean", "low", "high"]))
            figure.draw_without_rendering()
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == [f"series {n}" for n in range(5)]
        box = legend.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
        plots = [axes.get_window_extent() for axes in figure.axes if axes.get_visible()]
        assert not any(box.overlaps(plot) for plot in plots)
        assert sum(plot.width * plot.height for plot in plots) > 2 * box.width * box.height


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([0.06, 0.07, 0.08, 0.09, 0.1, 0.9], (0.06, 0.1)),
        ([-9, 0.06, 0.07, 0.08, 0.09, 0.1, 0.11, 0.9], (0.06, 0.11)),
        ([0.06, 0.07, 0.08, 0.09, 0.1, 0.13], None),  # they still have more than a third
        ([0.1, 0.9], None),
        ([0.1, 0.1, 0.1, 0.1, 0.9], None),
        ([0.1], None),
    ],
)
def test_axes_end_before_outliers_that_would_flatten_all_others(values, ends):
    limits = limits_without_outliers(pd.Series(values))
    if ends is None:
        assert limits is None
    else:
        inside = [value for value in values if limits[0] <= value <= limits[1]]
        assert (min(inside), max(inside)) == ends
        assert limits_without_outliers(pd.Series(values), [0])[0] == 0


def test_outliers_are_arrows_with_their_numbers():
    axes = Figure().subplots()
    values = pd.Series([0.06, 0.065, 0.07, 0.075, 0.08, 0.085, 0.09, 0.095, 0.1, 0.8, 0.9])
    along = pd.Series([1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3])
    mark_outliers(axes, "y", along, values, limits_without_outliers(values))
    (arrow,) = axes.lines
    assert (list(arrow.get_xdata()), list(arrow.get_ydata())) == ([3], [axes.get_ylim()[1]])
    assert [text.get_text() for text in axes.texts] == ["0.8 to 0.9"]
