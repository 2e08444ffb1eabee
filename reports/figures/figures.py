"""The list of figures, and how they are written.

To add a figure, write a module with a function for its data and one that draws it, and add an entry to FIGURES. Do not use
pyplot, so that reports in one process share no state.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from reports.figures.cost_frontier import cost_frontier, draw_cost_frontier
from reports.figures.factor_effects import draw_factor_effects, factor_effects
from reports.figures.heatmap import draw_heatmap, heatmaps
from reports.figures.importance import draw_importance, parameter_importance
from reports.figures.learning_curves import draw_learning_curves, learning_curves
from reports.figures.seed_dots import draw_seed_dots, seed_dots
from reports.figures.sensitivity import draw_sensitivity, draw_trials, search_trials, sensitivity
from reports.figures.spec import FigureSpec
from reports.figures.style import METRIC_NAME, RC_PARAMS, limits_without_outliers
from reports.loading.collect import StoreFrames
from reports.loading.schema import MAIN_METRIC
from reports.tables.table import Table
from tiekd.store.files import safe_name

OUTLIERS = " Arrows at the edge are values beyond it."

FIGURES: dict[str, FigureSpec] = {
    "curves": FigureSpec(
        "study",
        f"{METRIC_NAME} during training: mean over the finished seeds, in a band from the lowest to the highest.",
        learning_curves,
        draw_learning_curves,
    ),
    "seeds": FigureSpec(
        "study",
        f"{METRIC_NAME} of every seed. Seeds without a result are listed at the right.",
        seed_dots,
        draw_seed_dots,
        outliers=MAIN_METRIC,
    ),
    "effects": FigureSpec(
        "study",
        f"Effect of each level on {METRIC_NAME}, relative to the base level of its factor: mean of the differences paired by "
        "seed, with all other factors equal, its 95 % interval over seeds (Student's t, uncorrected), and every seed. "
        "Intervals without an end mark extend beyond the frame.",
        factor_effects,
        draw_factor_effects,
        outliers="difference",
    ),
    "sensitivity": FigureSpec(
        "study",
        f"{METRIC_NAME} against {{}}: every seed, and the means over seeds as lines along which all other factors are equal.",
        sensitivity,
        draw_sensitivity,
        outliers=MAIN_METRIC,
    ),
    "heatmap": FigureSpec(
        "study",
        f"{METRIC_NAME} over {{}} and {{}}: mean ± standard deviation over seeds, with all other factors equal.",
        heatmaps,
        draw_heatmap,
    ),
    "importance": FigureSpec(
        "search",
        "Importance of each search parameter: Optuna's PED-ANOVA over the completed trials. With few trials it is only a hint: "
        "compare the trials themselves.",
        parameter_importance,
        draw_importance,
    ),
    "trials": FigureSpec(
        "search",
        f"{METRIC_NAME} of each trial against each parameter. All parameters vary between trials. Hollow points are pruned "
        "trials at their last validated epoch.",
        search_trials,
        draw_trials,
        outliers=MAIN_METRIC,
    ),
    "costs": FigureSpec(
        "both",
        f"{METRIC_NAME} against the cost of the network, as measured by `tiekd measure`: the best cell of each network with "
        "the range over its seeds (for milliseconds also the quartiles), and the Pareto front of these cells. Other cells are "
        "gray.",
        cost_frontier,
        draw_cost_frontier,
        outliers="mean",
    ),
}


@dataclass(frozen=True)
class ReportFigure:
    """One figure of a report, ready to be drawn; `name` is the stem of its files."""

    name: str
    caption: str
    data: pd.DataFrame
    draw: Callable[[pd.DataFrame], Figure]

    def files(self, folder: Path) -> list[Path]:
        """Its files as PNG, SVG, PDF and CSV."""
        return [folder / f"{safe_name(self.name)}.{suffix}" for suffix in ("png", "svg", "pdf", "csv")]


def figures_of(table: Table, frames: StoreFrames, stem: str) -> Iterator[ReportFigure]:
    """Yield every figure that has data in a table; `stem` starts their names."""
    kind = "search" if table.study.is_search else "study"
    for name, spec in FIGURES.items():
        if spec.tables not in (kind, "both"):
            continue
        for data in spec.data(table, frames):
            if not data.frame.empty:
                suffix = "-".join(data.factors).replace(".", "-") or name
                caption = f"{spec.caption.format(*data.factors)}{data.remark}"
                if spec.outliers and limits_without_outliers(data.frame[spec.outliers].dropna()):
                    caption += OUTLIERS
                yield ReportFigure(f"{stem}-{suffix}", caption, data.frame, spec.draw)


class DrawnFigures:
    """The figures in a folder that this process has drawn. They are copied while their data stay the same."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._data: dict[str, str] = {}

    def save(self, figure: ReportFigure, folder: Path) -> list[Path]:
        """Copy or draw a figure; see `save_figure`."""
        data, files = figure.data.to_csv(index=False), figure.files(folder)
        drawn = [self._folder / file.name for file in files]
        if self._data.get(figure.name) == data and all(file.is_file() for file in drawn):
            folder.mkdir(parents=True, exist_ok=True)
            for old, new in zip(drawn, files, strict=True):
                shutil.copy(old, new)
        else:
            save_figure(figure, folder)
        self._data[figure.name] = data
        return files


def save_figure(figure: ReportFigure, folder: Path) -> list[Path]:
    """Draw a figure and write it as PNG, SVG, PDF and CSV; returns the files in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg, pdf, csv = figure.files(folder)
    with matplotlib.rc_context(RC_PARAMS):
        drawing = figure.draw(figure.data)
        drawing.savefig(png, dpi=200)
        drawing.set_layout_engine("none")  # keep the layout of the first file
        drawing.savefig(svg, metadata={"Date": None})
        drawing.savefig(pdf, metadata={"CreationDate": None})
    figure.data.to_csv(csv, index=False)
    return figure.files(folder)
