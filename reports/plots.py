"""Figures of a table, each as PNG and SVG with its data beside it as CSV.

Drawn on figures of their own (no pyplot): nothing is shared between two reports in one process.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from reports.collect import Collected
from reports.curves import draw_curves, learning_curves
from reports.dots import draw_dots, seeds_by_cell
from reports.schema import MAIN_METRIC, METRIC_LABELS
from reports.sensitivity import draw_sensitivity, numeric_factors, seeds_by_factor
from reports.tables import Table

MOST_CELLS = 60
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "tiekd",  # the same numbers give the same file
}


@dataclass(frozen=True)
class Picture:
    """One figure: its file's name, its caption, its data and how to draw them."""

    name: str
    caption: str
    data: pd.DataFrame
    draw: Callable[[pd.DataFrame], Figure]


def pictures(table: Table, collected: Collected, stem: str) -> Iterator[Picture]:
    """The figures that this table's runs can fill; of very many cells the best are drawn, and the captions say so."""
    label = METRIC_LABELS[MAIN_METRIC]
    if table.study.is_search:  # each trial is a cell of one seed: they are told apart along the factors only
        yield from _sensitivities(table, stem)
        return
    best = _best(table, MOST_CELLS)
    of_which = f" The best {MOST_CELLS} of {len(table.cells)} cells." if best is not table else ""
    curves = learning_curves(best, collected.epochs)
    if not curves.empty:
        caption = f"{label} after each epoch: mean over the seeds that are done, in a band from the lowest to the highest."
        yield Picture(f"{stem}-curves", caption + of_which, curves, draw_curves)
    seeds = seeds_by_cell(best)
    if seeds[MAIN_METRIC].notna().any():
        caption = f"{label} of every seed; seeds without a number are named at the right."
        yield Picture(f"{stem}-seeds", caption + of_which, seeds, draw_dots)
    if best is table:
        yield from _sensitivities(table, stem)


def _best(table: Table, n: int) -> Table:
    if len(table.cells) <= n:
        return table
    means = table.results.xs(MAIN_METRIC, level="metric")["mean"]
    return replace(table, cells=tuple(table.cells[number] for number in means.nsmallest(n).index))


def _sensitivities(table: Table, stem: str) -> Iterator[Picture]:
    label = METRIC_LABELS[MAIN_METRIC]
    for factor in numeric_factors(table):
        data = seeds_by_factor(table, factor)
        if not data.empty:
            caption = f"{label} against {factor}: every seed, and the mean over seeds as a line along which all else is equal."
            yield Picture(f"{stem}-{factor.replace('.', '-')}", caption, data, draw_sensitivity)


def save(picture: Picture, folder: Path) -> list[Path]:
    """Write the figure and its data; returns the files, the PNG first."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{picture.name}{ending}" for ending in (".png", ".svg", ".csv")]
    with matplotlib.rc_context(STYLE):
        figure = picture.draw(picture.data)
        figure.savefig(files[0], dpi=150)
        figure.savefig(files[1], metadata={"Date": None})
    picture.data.to_csv(files[2], index=False)
    return files
