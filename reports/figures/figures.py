"""Figures of a table, each as PNG and SVG with its data beside it as CSV.

Drawn on figures of their own (no pyplot): nothing is shared between two reports in one process.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from reports.figures.cost_frontier import cells_by_cost, draw_frontier
from reports.figures.factor_effects import MOST_ROWS, draw_effects, effects
from reports.figures.heatmap import MOST_GRIDS, draw_heatmap, fits, means_by_grid
from reports.figures.importance import draw_importance, shares
from reports.figures.learning_curves import draw_curves, learning_curves
from reports.figures.seed_dots import draw_dots, seeds_by_cell
from reports.figures.sensitivity import draw_sensitivity, draw_trials, seeds_by_factor, trials_by_factor
from reports.figures.style import STYLE
from reports.loading.collect import StoreFrames
from reports.loading.schema import MAIN_METRIC, METRIC_LABELS, METRICS
from reports.tables.factor_views import numeric_factors, numeric_grids
from reports.tables.table import Table

MOST_CELLS = 40
MOST_CURVES = 27
LABEL = METRIC_LABELS[MAIN_METRIC]


@dataclass(frozen=True)
class Picture:
    """One figure: its file's name, its caption, its data and how to draw them."""

    name: str
    caption: str
    data: pd.DataFrame
    draw: Callable[[pd.DataFrame], Figure]


def pictures(table: Table, collected: StoreFrames, stem: str) -> Iterator[Picture]:
    """The figures that this table's runs can fill."""
    drawn = _of_search(table) if table.study.is_search else _of_study(table, collected)
    for picture in [*drawn, *_frontier(table)]:
        if not picture.data.empty:
            yield replace(picture, name=f"{stem}-{picture.name}")


def _of_study(table: Table, collected: StoreFrames) -> Iterator[Picture]:
    """Of very many cells the best are drawn, and the captions say so."""
    best, of_which = _best(table, MOST_CURVES)
    caption = f"{LABEL} after each epoch: mean over the seeds that are done, in a band from the lowest to the highest."
    yield Picture("curves", caption + of_which, learning_curves(best, collected.epochs), draw_curves)
    best, of_which = _best(table, MOST_CELLS)
    seeds = seeds_by_cell(best)
    caption = f"{LABEL} of every seed; seeds without a number are named at the right."
    if seeds[MAIN_METRIC].notna().any():
        yield Picture("seeds", caption + of_which, seeds, draw_dots)
    yield _effects(table)
    for factor in numeric_factors(table):
        caption = f"{LABEL} against {factor}: every seed, and the mean over seeds as a line along which all else is equal."
        yield Picture(factor.replace(".", "-"), caption, seeds_by_factor(table, factor), draw_sensitivity)
    yield from _heatmaps(table)


def _best(table: Table, most: int) -> tuple[Table, str]:
    """The table with its best cells, and what a caption says of that; all of them and nothing where they are few."""
    if len(table.cells) <= most:
        return table, ""
    order = table.numbers["mean"][:, METRICS.index(MAIN_METRIC)].argsort()[:most]  # cells without a number stand last
    return replace(table, cells=tuple(table.cells[n] for n in order)), f" The best {most} of {len(table.cells)} cells."


def _effects(table: Table) -> Picture:
    found = effects(table)
    rows = found.groupby(["factor", "level"], sort=False).ngroup()
    rest = f" The first {MOST_ROWS} of {rows.max() + 1} levels." if rows.max() >= MOST_ROWS else ""
    caption = (
        f"What each level changes in {LABEL}, against the base level of its factor: mean of the differences paired by seed, "
        "all other factors equal, with the 95 % interval over seeds (Student's t, uncorrected), and every seed. An interval "
        "that lacks an end reaches beyond the frame."
    )
    return Picture("effects", caption + rest, found[rows < MOST_ROWS], draw_effects)


def _heatmaps(table: Table) -> Iterator[Picture]:
    pairs: dict[tuple[str, str], list] = {}
    for grid in filter(fits, numeric_grids(table)):
        pairs.setdefault((grid.row_name, grid.column_name), []).append(grid)
    for (row, column), grids in pairs.items():
        rest = f" The first {MOST_GRIDS} of {len(grids)} settings of the other factors." if len(grids) > MOST_GRIDS else ""
        caption = f"{LABEL} over {row} and {column}: mean ± standard deviation over seeds, all else equal.{rest}"
        data = means_by_grid(table, grids[:MOST_GRIDS])
        yield Picture(
            f"{row}-{column}".replace(".", "-"), caption, data if data["mean"].notna().any() else data[:0], draw_heatmap
        )


def _of_search(table: Table) -> Iterator[Picture]:
    """Each trial is a cell: they are told apart along the parameters only."""
    caption = (
        "What mattered in the search: Optuna's PED-ANOVA importance of each parameter, over the complete trials. Of few trials "
        "it is a hint: compare the trials themselves."
    )
    yield Picture("importance", caption, shares(table.study), draw_importance)
    caption = f"{LABEL} of each trial against each parameter; a trial draws all of them anew."
    yield Picture("trials", caption, trials_by_factor(table), draw_trials)


def _frontier(table: Table) -> Iterator[Picture]:
    caption = (
        f"{LABEL} against what the network costs, as `tiekd measure` found it: the best cell of each network, with the range "
        "over its seeds (and of milliseconds the quartiles), and the Pareto front of these; other cells in grey."
    )
    yield Picture("costs", caption, cells_by_cost(table), draw_frontier)


def save(picture: Picture, folder: Path) -> list[Path]:
    """Write the figure and its data; returns the files, the PNG first."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{picture.name}{ending}" for ending in (".png", ".svg", ".csv")]
    with matplotlib.rc_context(STYLE):
        figure = picture.draw(picture.data)
        figure.savefig(files[0], dpi=200)
        figure.set_layout_engine("none")  # the second file has the layout of the first
        figure.savefig(files[1], metadata={"Date": None})
    picture.data.to_csv(files[2], index=False)
    return files
