"""What one numeric factor does to a metric, all else equal."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.layout import cell_name
from reports.panels import scale, small_multiples, styles
from reports.schema import MAIN_METRIC, METRIC_LABELS
from reports.tables import Table

_MOST_TICKS = 8
TRIALS = "trials"
UNITS = {"loss.sigma": "m", "data.min_depth": "m", "data.max_depth": "m", "augment.rotate_degrees": "°"}


def numeric_factors(table: Table) -> Iterator[str]:
    """Factors that vary and are numbers wherever a cell reads them."""
    for path in table.varying:
        values = {table.value(cell, path) for cell in table.cells} - {None}
        if len(values) > 1 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            yield path


def seeds_by_factor(table: Table, factor: str) -> pd.DataFrame:
    """panel, series, factor, value, run_id, seed, abs_rel of the runs that are done.

    Cells along a series differ in the factor alone, and a series has two of its values at least. In a search each trial draws
    all its values anew, so its trials are one series of points.
    """
    parts = []
    for cell in table.cells:
        if table.value(cell, factor) is None:
            continue
        name = TRIALS if table.study.is_search else cell_name(table, cell, without=("teacher", "backbone", factor))
        panel = " · ".join(filter(None, [cell.labels["teacher"], cell.labels["backbone"]]))
        rows = cell.runs.loc[cell.runs["state"] == "done", ["run_id", "seed", MAIN_METRIC]]
        parts.append(rows.assign(panel=panel, series=name, factor=factor, value=table.value(cell, factor)))
    data = pd.concat(parts, ignore_index=True)[["panel", "series", "factor", "value", "run_id", "seed", MAIN_METRIC]]
    return data[data.groupby(["panel", "series"])["value"].transform("nunique") > 1]


def draw_sensitivity(data: pd.DataFrame) -> Figure:
    factor, levels, style = data["factor"].iloc[0], sorted(data["value"].unique()), styles(data)
    xlabel = f"{factor} ({UNITS[factor]})" if factor in UNITS else factor

    def draw(axes: Axes, part: pd.DataFrame) -> None:
        for name, rows in part.groupby("series", sort=False):
            axes.plot(rows["value"], rows[MAIN_METRIC], **style[name] | {"linestyle": "none"}, markersize=4, alpha=0.7)
            if name != TRIALS:
                means = rows.groupby("value")[MAIN_METRIC].mean()
                axes.plot(means.index, means, **style[name], markersize=2, label=name)
        scale(axes, "x", data["value"])
        scale(axes, "y", data[MAIN_METRIC])
        if len(levels) <= _MOST_TICKS and TRIALS not in style:
            axes.set_xticks(levels, [f"{level:g}" for level in levels])

    return small_multiples(data, xlabel, f"{METRIC_LABELS[MAIN_METRIC]} (lower is better)", draw)
