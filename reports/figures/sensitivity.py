"""What one numeric factor does to a metric, all else equal."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from reports.figures.style import COLOURS, scale, small_multiples, styles
from reports.loading.schema import MAIN_METRIC, METRIC_LABELS
from reports.tables.formatting import cell_name
from reports.tables.table import Table

MOST_SERIES = 54  # in six panels; the effects sum up what more of them would show
_MOST_TICKS = 6
UNITS = {"loss.sigma": "m", "data.min_depth": "m", "data.max_depth": "m", "augment.rotate_degrees": "°"}
_COLUMNS = ["panel", "series", "factor", "value", "run_id", "seed", MAIN_METRIC]


def seeds_by_factor(table: Table, factor: str) -> pd.DataFrame:
    """panel, series, factor, value, run_id, seed, abs_rel of the runs that are done.

    Cells along a series differ in the factor alone, and a series has two of its values at least. Empty where the series are
    more than MOST_SERIES.
    """
    series: dict[tuple[str, str], list[int]] = {}
    for number, cell in enumerate(table.cells):
        if table.value(cell, factor) is not None and cell.n_done:
            panel = " · ".join(filter(None, [cell.labels["teacher"], cell.labels["backbone"]]))
            name = cell_name(table, cell, without=("teacher", "backbone", factor))
            series.setdefault((panel, name), []).append(number)
    long = {key: numbers for key, numbers in series.items() if len({table.value(table.cells[n], factor) for n in numbers}) > 1}
    if len(long) > MOST_SERIES:
        return pd.DataFrame(columns=_COLUMNS)
    rows = [row for (panel, name), numbers in long.items() for row in _rows(table, factor, numbers, panel, name)]
    return pd.DataFrame(rows, columns=_COLUMNS)


def trials_by_factor(table: Table) -> pd.DataFrame:
    """The same columns for a search, a panel for each parameter: a trial draws all of them anew, so it is a point in each."""
    rows = []
    for factor in table.varying:
        numbers = [number for number, cell in enumerate(table.cells) if table.value(cell, factor) is not None]
        rows += _rows(table, factor, numbers, panel=axis_label(factor), series="trials")
    return pd.DataFrame(rows, columns=_COLUMNS)


def _rows(table: Table, factor: str, numbers: list[int], panel: str, series: str) -> Iterator[tuple]:
    """A row for each seed of these cells that is done."""
    for cell in (table.cells[number] for number in numbers):
        for seed, run in cell.done.items():
            yield panel, series, factor, table.value(cell, factor), run["run_id"], seed, run[MAIN_METRIC]


def draw_sensitivity(data: pd.DataFrame) -> Figure:
    """Every seed, and the mean over seeds as a line."""
    style = styles(data["series"])

    def draw(axes: Axes, part: pd.DataFrame) -> None:
        for name, rows in part.groupby("series", sort=False):
            own = style[name]
            axes.plot(rows["value"], rows[MAIN_METRIC], own["marker"], color=own["color"], markersize=3, alpha=0.45)
            means = rows.groupby("value")[MAIN_METRIC].mean()
            axes.plot(means.index, means, **own, markersize=4.5, linewidth=1.1, label=name)
        _along(axes, data["value"])
        axes.set_xlabel(axis_label(data["factor"].iloc[0]))

    return small_multiples(data, f"{METRIC_LABELS[MAIN_METRIC]} (lower is better)", draw)


def draw_trials(data: pd.DataFrame) -> Figure:
    """A point per trial, in a panel for each factor."""

    def draw(axes: Axes, part: pd.DataFrame) -> None:
        values = part["value"].infer_objects()
        numeric = is_numeric_dtype(values) and not is_bool_dtype(values)
        axes.plot(
            values if numeric else values.astype(str), part[MAIN_METRIC], "o", color=COLOURS[0], markersize=3.5, alpha=0.7
        )
        if numeric:
            _along(axes, values)
        else:
            axes.margins(x=0.2)

    return small_multiples(data, f"{METRIC_LABELS[MAIN_METRIC]} (lower is better)", draw, shared_x=False)


def axis_label(factor: str) -> str:
    return f"{factor} ({UNITS[factor]})" if factor in UNITS else factor


def _along(axes: Axes, values: pd.Series) -> None:
    """The factor's axis; the values themselves are its ticks where they are few, and none lies on its neighbour."""
    scale(axes, "x", values)
    ticks = sorted(values.unique())
    places = axes.xaxis.get_transform().transform(np.array(ticks, dtype=float))
    apart = np.diff(places).min(initial=np.inf) >= 0.09 * np.ptp(places)
    if len(ticks) <= _MOST_TICKS and apart:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
