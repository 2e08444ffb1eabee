"""Two numeric factors at once: a metric over their grid, in colour and in numbers."""

import math
import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from reports.figures.sensitivity import axis_label
from reports.figures.style import COLUMN, LETTER, PAGE, SMALLEST_TEXT
from reports.loading.schema import DIGITS, MAIN_METRIC, METRIC_LABELS
from reports.tables.factor_views import FactorGrid
from reports.tables.table import Table

MOST_ROWS, MOST_COLUMNS = 20, 12  # of a grid whose numbers can be read
MOST_GRIDS = 6
COLOUR_MAP = "cividis"  # lightness rises steadily, with any colour vision
_CELL = 0.42  # inches; room for ±0.0000
_INNER = PAGE - 1.1  # inches beside the axis and the colour bar


def means_by_grid(table: Table, grids: list[FactorGrid]) -> pd.DataFrame:
    """panel, row_factor, column_factor, row, column, mean, std, n_seeds, state: a row per place of grids of two factors.

    state is that of a place without a number: where several cells have it, "several", since no mean is of them all.
    """
    rows = []
    for grid in grids:
        for (row, column), numbers in grid.places.items():
            result = table.result(numbers[0], MAIN_METRIC)
            alone = len(numbers) == 1
            rows.append(
                {
                    "panel": grid.context,
                    "row_factor": grid.row_name,
                    "column_factor": grid.column_name,
                    "row": row,
                    "column": column,
                    "mean": result["mean"] if alone else math.nan,
                    "std": result["std"] if alone else math.nan,
                    "n_seeds": int(result["n_seeds"]) if alone else 0,
                    "state": table.cells[numbers[0]].state if alone else "several",
                }
            )
    return pd.DataFrame(rows)


def fits(grid: FactorGrid) -> bool:
    return len(grid.rows) <= MOST_ROWS and len(grid.columns) <= MOST_COLUMNS


def draw_heatmap(data: pd.DataFrame) -> Figure:
    """A panel for each setting of the other factors, all on one colour scale."""
    panels = list(data.groupby("panel", sort=False))
    rows, columns = sorted(data["row"].unique()), sorted(data["column"].unique())
    side_by_side = min(len(panels), max(1, int(_INNER / (_CELL * len(columns) + 0.25))))
    down = math.ceil(len(panels) / side_by_side)
    letters = int(_INNER / side_by_side / LETTER)  # above a panel
    width = COLUMN if side_by_side == 1 and len(columns) <= 3 else PAGE
    figure = Figure(figsize=(width, 0.4 + down * (0.8 + 0.36 * len(rows))), layout="constrained")
    grid = figure.subplots(down, side_by_side, sharex=True, sharey=True, squeeze=False)
    colours = Normalize(data["mean"].min(), data["mean"].max())
    for axes, (title, part) in zip(grid.flat, panels, strict=False):
        image = _fill(axes, part, rows, columns, colours)
        axes.set_title(textwrap.fill(title, letters) if len(panels) > 1 else "", loc="left")
        axes.tick_params(labelbottom=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel(axis_label(data["column_factor"].iloc[0]), fontsize=8)
    figure.supylabel(axis_label(data["row_factor"].iloc[0]), fontsize=8)
    bar = figure.colorbar(image, ax=grid, label=f"{METRIC_LABELS[MAIN_METRIC]} (lower is better)", fraction=0.05)
    bar.outline.set_visible(False)
    return figure


def _fill(axes: Axes, part: pd.DataFrame, rows: list, columns: list, colours: Normalize):
    values = part.pivot(index="row", columns="column", values="mean").reindex(index=rows, columns=columns)
    image = axes.imshow(values, cmap=COLOUR_MAP, norm=colours, aspect="auto", origin="lower")
    for place in part.itertuples():
        position = columns.index(place.column), rows.index(place.row)
        if math.isnan(place.mean):
            axes.annotate(place.state, position, ha="center", va="center", fontsize=SMALLEST_TEXT)
            continue
        spread = "" if math.isnan(place.std) else f"\n±{place.std:.{DIGITS}f}"
        ink = "black" if image.norm(place.mean) > 0.5 else "white"
        text = f"{place.mean:.{DIGITS}f}{spread}"
        axes.annotate(text, position, ha="center", va="center", fontsize=SMALLEST_TEXT, color=ink, linespacing=1.1)
    axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return image
