"""Lines are distinguishable without color and with any color vision, and legends fit."""

from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from reports.figures.learning_curves import draw_learning_curves
from reports.figures.style import MAX_SERIES_PER_PANEL, RC_PARAMS, SERIES_COLORS, line_styles

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
