"""Figures can be read in print, at the size in which they are drawn, without colour and with any colour vision."""

from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from reports.figures.figures import pictures
from reports.figures.learning_curves import draw_curves
from reports.figures.style import COLOURS, COLUMN, PAGE, PER_PANEL, SMALLEST_TEXT, STYLE, styles

# What dichromats see, as linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
VISION = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])


def lab(colour: str, vision) -> np.ndarray:
    """L*, a*, b* of a colour as it is seen."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = TO_XYZ @ np.clip(np.asarray(vision) @ linear, 0, 1) / (0.95047, 1, 1.08883)
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_colours_differ_in_lightness():
    lightness = sorted(lab(colour, VISION["normal"])[0] for colour in COLOURS)
    assert min(np.diff(lightness)) > 7
    assert lightness[-1] < 75  # on white


@pytest.mark.parametrize("vision", VISION)
def test_colours_differ_for_any_colour_vision(vision):
    seen = [lab(colour, VISION[vision]) for colour in COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 15


def test_series_differ_in_more_than_colour():
    found = styles(pd.Series([f"series {number}" for number in range(3 * len(COLOURS))]))
    assert len({tuple(style.values()) for style in found.values()}) == 3 * len(COLOURS)
    first = list(found.values())[: len(COLOURS)]
    assert len({style["marker"] for style in first}) == len(COLOURS)


@pytest.fixture(scope="module")
def figures(table, collected):
    """Every figure of the made study, laid out."""
    with matplotlib.rc_context(STYLE):
        drawn = {picture.name: picture.draw(picture.data) for picture in pictures(table, collected, "demo")}
        for figure in drawn.values():
            figure.draw_without_rendering()
    return drawn


def shown_texts(figure):
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def test_figures_have_a_printed_width_and_no_small_text(figures):
    assert len(figures) == 4
    for figure in figures.values():
        assert figure.get_figwidth() in (COLUMN, PAGE)
        assert min(text.get_fontsize() for text in shown_texts(figure)) >= SMALLEST_TEXT


def test_nothing_is_cut_off(figures):
    for name, figure in figures.items():
        needed, paper = figure.get_tightbbox(), figure.bbox_inches.padded(0.02)
        assert paper.contains(needed.x0, needed.y0), name
        assert paper.contains(needed.x1, needed.y1), name


def test_a_long_legend_stands_beneath_its_panel_and_within_the_figure():
    names = [f"a name of several words, number {number} of many" for number in range(2 * PER_PANEL)]
    data = pd.DataFrame({"panel": "one", "series": names, "epoch": 1, "mean": 0.1, "low": 0.1, "high": 0.1})
    with matplotlib.rc_context(STYLE):
        figure = draw_curves(data)
        figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend().get_window_extent()
        assert 0 <= legend.x0 < legend.x1 <= figure.bbox.x1
        assert 0 <= legend.y0 < legend.y1 <= axes.xaxis.label.get_window_extent().y0
