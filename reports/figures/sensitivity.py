"""A metric against one numeric factor, and against each parameter of a search."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from reports.figures.spec import FigureData
from reports.figures.style import (
    LETTER_WIDTH,
    METRIC_AXIS,
    SERIES_COLORS,
    limits_without_outliers,
    line_styles,
    mark_outliers,
    set_scale,
    small_multiples,
)
from reports.loading.collect import StoreFrames
from reports.loading.schema import MAIN_METRIC, PRUNED
from reports.tables.factor_views import numeric_factors
from reports.tables.formatting import cell_name, label_text
from reports.tables.table import Table

MAX_SERIES = 54  # in six panels; with more, only the factor effects are readable
_MAX_TICKS = 12
FACTOR_UNITS = {"loss.sigma": "m", "data.min_depth": "m", "data.max_depth": "m", "augment.rotate_degrees": "°"}
_COLUMNS = ["panel", "series", "factor", "value", "run_id", "seed", MAIN_METRIC]


def sensitivity(table: Table, frames: StoreFrames) -> Iterator[FigureData]:
    """Compute a figure for each numeric factor of a study."""
    for factor in numeric_factors(table):
        yield FigureData(seeds_by_factor(table, factor), factors=(factor,))


def seeds_by_factor(table: Table, factor: str) -> pd.DataFrame:
    """Compute panel, series, factor, value, run_id, seed, abs_rel of the finished runs.

    The cells of a series differ only in the factor and have at least two values of it. Empty with more than MAX_SERIES series.
    """
    series: dict[tuple[str, str], list[int]] = {}
    for position, cell in enumerate(table.cells):
        if table.value(cell, factor) is not None and cell.n_done:
            panel = " · ".join(filter(None, [label_text("teacher", cell.labels["teacher"]), cell.labels["backbone"]]))
            name = cell_name(table, cell, without=("teacher", "backbone", factor))
            series.setdefault((panel, name), []).append(position)
    lines = {key: cells for key, cells in series.items() if len({table.value(table.cells[n], factor) for n in cells}) > 1}
    if len(lines) > MAX_SERIES:
        return pd.DataFrame(columns=_COLUMNS)
    rows = [row for (panel, name), cells in lines.items() for row in _rows(table, factor, cells, panel, name)]
    return pd.DataFrame(rows, columns=_COLUMNS)


def search_trials(table: Table, frames: StoreFrames) -> list[FigureData]:
    """Compute the same columns and `state` for a search, with a panel per parameter: all parameters vary between trials.

    The value of a pruned trial is that of its last validated epoch.
    """
    validated = frames.epochs.dropna(subset=MAIN_METRIC)
    last = validated.drop_duplicates("run_id", keep="last").set_index("run_id")[MAIN_METRIC]
    rows: list[tuple[Any, ...]] = []
    for factor in table.varying:
        cells = [position for position, cell in enumerate(table.cells) if table.value(cell, factor) is not None]
        panel = factor_label(factor)
        rows += [(*row, "done") for row in _rows(table, factor, cells, panel, series="trials")]
        for cell in (table.cells[position] for position in cells):
            lost = [run for run in cell.runs if run["state"] == PRUNED and run["run_id"] in last.index]
            value = table.value(cell, factor)
            rows += [(panel, "trials", factor, value, r["run_id"], r["seed"], last[r["run_id"]], PRUNED) for r in lost]
    return [FigureData(pd.DataFrame(rows, columns=[*_COLUMNS, "state"]))]


def _rows(table: Table, factor: str, cells: list[int], panel: str, series: str) -> Iterator[tuple[Any, ...]]:
    """Yield a row for each finished seed of the cells at these positions."""
    for cell in (table.cells[position] for position in cells):
        for seed, run in cell.done.items():
            yield panel, series, factor, table.value(cell, factor), run["run_id"], seed, run[MAIN_METRIC]


def draw_sensitivity(data: pd.DataFrame) -> Figure:
    """Draw every seed, and the means over seeds as lines."""
    styles, limits = line_styles(data["series"]), limits_without_outliers(data[MAIN_METRIC])

    def draw(axes: Axes, part: pd.DataFrame) -> None:
        for series, rows in part.groupby("series", sort=False):
            style = styles[str(series)]
            axes.plot(rows["value"], rows[MAIN_METRIC], style["marker"], color=style["color"], markersize=3, alpha=0.45)
            means = rows.groupby("value")[MAIN_METRIC].mean()
            axes.plot(means.index, means, **style, markersize=4.5, linewidth=1.1, label=str(series))
        mark_outliers(axes, "y", part["value"], part[MAIN_METRIC], limits)
        _scale_factor_axis(axes, data["value"])
        axes.set_xlabel(factor_label(data["factor"].iloc[0]))

    return small_multiples(data, METRIC_AXIS, draw)


def draw_trials(data: pd.DataFrame) -> Figure:
    """Draw a point per trial, hollow if it was pruned, with a panel for each parameter."""
    limits = limits_without_outliers(data[MAIN_METRIC])

    def draw(axes: Axes, part: pd.DataFrame) -> None:
        values = part["value"].infer_objects()
        numeric = is_numeric_dtype(values) and not is_bool_dtype(values)
        levels = sorted(values.astype(str).unique())
        positions = values if numeric else values.astype(str).map(levels.index)
        for state, fill in (("done", SERIES_COLORS[0]), (PRUNED, "none")):
            rows = part["state"] == state
            done = part.loc[rows, MAIN_METRIC]
            axes.plot(positions[rows], done, "o", mfc=fill, mec=SERIES_COLORS[0], markersize=3.5, alpha=0.7)
        mark_outliers(axes, "y", positions, part[MAIN_METRIC], limits, numbers=False)
        if numeric and values.nunique() <= len(values) / 2:
            _scale_factor_axis(axes, values)
        elif numeric:
            set_scale(axes, "x", values)
        else:
            axes.set_xticks(range(len(levels)), levels)
            axes.margins(x=0.2)

    return small_multiples(data, METRIC_AXIS, draw, share_x=False)


def factor_label(factor: str) -> str:
    """Return the axis label of a factor, with its unit."""
    return f"{factor} ({FACTOR_UNITS[factor]})" if factor in FACTOR_UNITS else factor


def _scale_factor_axis(axes: Axes, values: pd.Series) -> None:
    """Scale the axis of a factor. If its values are few, they are the ticks, with the labels that fit beside each other."""
    set_scale(axes, "x", values)
    ticks = sorted(values.unique())
    if len(ticks) > _MAX_TICKS:
        return
    spec, figure = axes.get_subplotspec(), axes.get_figure(root=True)
    assert spec is not None
    assert figure is not None
    width = 0.8 * figure.get_figwidth() / spec.get_gridspec().ncols  # inches
    positions = axes.xaxis.get_transform().transform(np.array(ticks, dtype=float))
    inches = (positions - positions[0]) * width / max(np.ptp(positions), np.finfo(float).tiny)
    labels, free = [], -np.inf  # from where on there is room
    for tick, center in zip(ticks, inches, strict=True):
        text = f"{tick:g}"
        half = 0.5 * LETTER_WIDTH * (len(text) + 0.5)
        labels.append(text if center - half >= free else "")
        free = center + half if labels[-1] else free
    axes.set_xticks(ticks, labels)
