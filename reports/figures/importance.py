"""The importance of each parameter of a search."""

import pandas as pd
from matplotlib.figure import Figure

from reports.figures.spec import FigureData
from reports.figures.style import COLUMN_WIDTH, SERIES_COLORS, SMALLEST_TEXT
from reports.loading.collect import StoreFrames
from reports.tables.table import Table


def parameter_importance(table: Table, frames: StoreFrames) -> list[FigureData]:
    """Return parameter, share, as stored by the search (PED-ANOVA over its completed trials), in descending order."""
    shares = sorted(table.study.importance.items(), key=lambda item: -item[1])
    return [FigureData(pd.DataFrame(shares, columns=["parameter", "share"]))]


def draw_importance(data: pd.DataFrame) -> Figure:
    """Draw a bar per parameter."""
    figure = Figure(figsize=(COLUMN_WIDTH, 0.6 + 0.22 * len(data)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(data["parameter"], data["share"], color=SERIES_COLORS[0], height=0.6)
    axes.bar_label(bars, [f"{share:.0%}" for share in data["share"]], padding=3, fontsize=SMALLEST_TEXT)
    axes.set_xlim(0, 1.12 * data["share"].max())
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share of importance")
    return figure
