"""How much each parameter of a search mattered."""

import pandas as pd
from matplotlib.figure import Figure

from reports.figures.style import COLOURS, COLUMN, SMALLEST_TEXT
from reports.loading.records import StudyRecord


def shares(study: StudyRecord) -> pd.DataFrame:
    """parameter, share: the search's own measure (PED-ANOVA over its complete trials), the largest first."""
    found = sorted(study.importance.items(), key=lambda item: -item[1])
    return pd.DataFrame(found, columns=["parameter", "share"])


def draw_importance(data: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(COLUMN, 0.6 + 0.22 * len(data)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(data["parameter"], data["share"], color=COLOURS[0], height=0.6)
    axes.bar_label(bars, [f"{share:.0%}" for share in data["share"]], padding=3, fontsize=SMALLEST_TEXT)
    axes.set_xlim(0, 1.12 * data["share"].max())
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share of importance")
    return figure
