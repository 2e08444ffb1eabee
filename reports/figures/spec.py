"""What a kind of figure consists of."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd
from matplotlib.figure import Figure

from reports.loading.collect import StoreFrames
from reports.loading.schema import MAIN_METRIC, METRICS
from reports.tables.table import Table


@dataclass(frozen=True)
class FigureData:
    """The data of one figure, written beside it as CSV.

    factors   the factors it is about: they name its file and fill the {} of the caption
    remark    appended to the caption, such as what is left out
    """

    frame: pd.DataFrame
    factors: tuple[str, ...] = ()
    remark: str = ""


@dataclass(frozen=True)
class FigureSpec:
    """A kind of figure, drawn for every table that has data for it.

    tables    whether it is drawn for studies, for searches or for both
    caption   prose with a {} for each of the data's factors
    data      computes the data of each figure of this kind; data without rows give no figure
    draw      draws one figure from its data
    outliers  the column whose outliers are arrows at the edge of the figure; "" if there are none
    """

    tables: Literal["study", "search", "both"]
    caption: str
    data: Callable[[Table, StoreFrames], Iterable[FigureData]]
    draw: Callable[[pd.DataFrame], Figure]
    outliers: str = ""


def best_cells(table: Table, max_cells: int) -> tuple[Table, str]:
    """Reduce a table to its best cells. Returns it with a remark for the caption, empty if no cell is left out."""
    if len(table.cells) <= max_cells:
        return table, ""
    order = table.numbers["mean"][:, METRICS.index(MAIN_METRIC)].argsort()[:max_cells]  # NaN is sorted last
    remark = f" Only the best {max_cells} of {len(table.cells)} cells are shown."
    return replace(table, cells=tuple(table.cells[position] for position in order)), remark
