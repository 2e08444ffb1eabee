"""A metric over a grid of two numeric factors, as colors and numbers."""

import math
import textwrap
from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from reports.figures.sensitivity import factor_label
from reports.figures.spec import FigureData
from reports.figures.style import COLUMN_WIDTH, LETTER_WIDTH, METRIC_AXIS, PAGE_WIDTH, SMALLEST_TEXT, limits_without_outliers
from reports.loading.collect import StoreFrames
from reports.loading.schema import DIGITS, MAIN_METRIC
from reports.tables.factor_views import FactorGrid, numeric_grids
from reports.tables.table import Table

MAX_GRID_ROWS, MAX_GRID_COLUMNS = 20, 12  # with readable numbers
MAX_GRIDS = 6
COLOR_MAP = "cividis"  # monotonic lightness, suitable for any color vision
_CELL_WIDTH = 0.42  # inches; fits ±0.0000
_INNER_WIDTH = PAGE_WIDTH - 1.1  # inches; without axis and color bar


def heatmaps(table: Table, frames: StoreFrames) -> Iterator[FigureData]:
    """Compute a figure for each pair of factors, with a panel for each setting of the other factors."""
    pairs: dict[tuple[str, str], list[FactorGrid]] = {}
    for grid in filter(fits_page, numeric_grids(table)):
        pairs.setdefault((grid.row_name, grid.column_name), []).append(grid)
    for factors, grids in pairs.items():
        frame = means_by_grid(table, grids[:MAX_GRIDS])
        remark = f" Only the first {MAX_GRIDS} of {len(grids)} settings of the other factors are shown."
        if frame["mean"].notna().any():
            yield FigureData(frame, factors, remark if len(grids) > MAX_GRIDS else "")


def fits_page(grid: FactorGrid) -> bool:
    """Whether the numbers of a grid are readable on a page."""
    return len(grid.rows) <= MAX_GRID_ROWS and len(grid.columns) <= MAX_GRID_COLUMNS


def means_by_grid(table: Table, grids: list[FactorGrid]) -> pd.DataFrame:
    """Compute panel, row_factor, column_factor, row, column, mean, std, n_seeds, state for every position of the grids.

    Positions with several cells have no mean, and the state "several".
    """
    rows = []
    for grid in grids:
        for (row, column), cells in grid.places.items():
            result = table.result(cells[0], MAIN_METRIC)
            unique = len(cells) == 1
            rows.append(
                {
                    "panel": grid.context,
                    "row_factor": grid.row_name,
                    "column_factor": grid.column_name,
                    "row": row,
                    "column": column,
                    "mean": result["mean"] if unique else math.nan,
                    "std": result["std"] if unique else math.nan,
                    "n_seeds": int(result["n_seeds"]) if unique else 0,
                    "state": table.cells[cells[0]].state if unique else "several",
                }
            )
    return pd.DataFrame(rows)


def draw_heatmap(data: pd.DataFrame) -> Figure:
    """Draw a panel for each setting of the other factors, with one color scale."""
    panels = [(str(title), part) for title, part in data.groupby("panel", sort=False)]
    rows, columns = sorted(data["row"].unique()), sorted(data["column"].unique())
    across = min(len(panels), max(1, int(_INNER_WIDTH / (_CELL_WIDTH * len(columns) + 0.25))))
    down = math.ceil(len(panels) / across)
    letters = int(_INNER_WIDTH / across / LETTER_WIDTH)  # that fit above a panel
    width = COLUMN_WIDTH if across == 1 and len(columns) <= 3 else PAGE_WIDTH
    figure = Figure(figsize=(width, 0.4 + down * (0.8 + 0.36 * len(rows))), layout="constrained")
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    limits = limits_without_outliers(data["mean"].dropna())
    lowest, highest = data["mean"].min(), data["mean"].max()
    low, high = limits or (lowest, highest)
    norm = Normalize(max(low, lowest), min(high, highest))
    for axes, (title, part) in zip(grid.flat, panels, strict=False):
        image = _draw_panel(axes, part, rows, columns, norm)
        axes.set_title(textwrap.fill(title, letters) if len(panels) > 1 else "", loc="left")
        axes.tick_params(labelbottom=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel(factor_label(data["column_factor"].iloc[0]), fontsize=8)
    figure.supylabel(factor_label(data["row_factor"].iloc[0]), fontsize=8)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[
        (lowest < low, high < highest)
    ]
    color_bar = figure.colorbar(image, ax=grid, label=METRIC_AXIS, fraction=0.05, extend=extend)
    color_bar.outline.set_visible(False)
    return figure


def _draw_panel(axes: Axes, part: pd.DataFrame, rows: list[Any], columns: list[Any], norm: Normalize) -> AxesImage:
    values = part.pivot(index="row", columns="column", values="mean").reindex(index=rows, columns=columns)
    image = axes.imshow(values, cmap=COLOR_MAP, norm=norm, aspect="auto", origin="lower")
    for cell in part.to_dict("records"):
        position = columns.index(cell["column"]), rows.index(cell["row"])
        if math.isnan(cell["mean"]):
            axes.annotate(cell["state"], position, ha="center", va="center", fontsize=SMALLEST_TEXT)
            continue
        std = "" if math.isnan(cell["std"]) else f"\n±{cell['std']:.{DIGITS}f}"
        color = "black" if norm(cell["mean"]) > 0.5 else "white"
        text = f"{cell['mean']:.{DIGITS}f}{std}"
        axes.annotate(text, position, ha="center", va="center", fontsize=SMALLEST_TEXT, color=color, linespacing=1.1)
    axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return image
