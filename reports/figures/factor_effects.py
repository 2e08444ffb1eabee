"""The effect of each level of each factor, relative to the base level: paired by seed, with all other factors equal."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.figures.spec import FigureData
from reports.figures.style import GRAY, METRIC_NAME, PAGE_WIDTH, SERIES_COLORS, limits_without_outliers, mark_outliers
from reports.loading.collect import StoreFrames
from reports.loading.schema import MAIN_METRIC, METRICS, SETTING_TYPES
from reports.tables.cells import TableCell
from reports.tables.formatting import format_value
from reports.tables.seed_statistics import summarize_seeds
from reports.tables.table import Table
from tiekd.config import build
from tiekd.config.documents import flatten
from tiekd.errors import UserError

BASE_LEVEL = "base"  # of a factor with named levels, in a cell without any of them
MAX_LEVELS = 12  # per factor; more are shown as a curve
MAX_LINES = 40
_COLUMNS = ["factor", "base", "level", "seed", "n_pairs", "difference", "mean", "ci_low", "ci_high"]


def factor_effects(table: Table, frames: StoreFrames) -> list[FigureData]:
    """Compute the figure of a study, limited to MAX_LINES levels."""
    effects = effects_by_level(table)
    numbers = effects.groupby(["factor", "level"], sort=False).ngroup()
    n_levels = numbers.max() + 1
    remark = f" Only the first {MAX_LINES} of {n_levels} levels are shown." if n_levels > MAX_LINES else ""
    return [FigureData(effects[numbers < MAX_LINES], remark=remark)]


def effects_by_level(table: Table) -> pd.DataFrame:
    """Compute factor, base, level, seed, n_pairs, difference and, over seeds, mean, ci_low, ci_high of abs_rel.

    Two cells that agree in all other factors are a pair. The difference of a seed is the mean over its n_pairs; the interval is
    Student's 95 % interval over seeds. Levels without a pair are left out.
    """
    seeds = sorted({seed for cell in table.cells for seed in cell.done})
    values = table.by_seed[:, METRICS.index(MAIN_METRIC)]
    rows: list[dict[str, Any]] = []
    for factor in table.factor_paths:
        base, levels = _levels(table, factor)
        for level, pairs in levels.items():
            differences = values[[cell for cell, _ in pairs]] - values[[other for _, other in pairs]]
            n_pairs = np.isfinite(differences).sum(0)
            by_seed = np.divide(np.nansum(differences, 0), n_pairs, out=np.full(len(seeds), np.nan), where=n_pairs > 0)
            summary = summarize_seeds(by_seed)
            shared: dict[str, Any] = {"factor": factor, "base": format_value(base), "level": format_value(level)}
            shared |= {"mean": float(summary.mean), "ci_low": float(summary.ci_low), "ci_high": float(summary.ci_high)}
            rows += [
                shared | {"seed": seed, "n_pairs": n, "difference": difference}
                for seed, n, difference in zip(seeds, n_pairs, by_seed, strict=True)
                if n
            ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _levels(table: Table, factor: str) -> tuple[Hashable, dict[Hashable, list[tuple[int, int]]]]:
    """Return a factor's base level and, for each other level, pairs of a cell and its counterpart at the base level."""
    others = [path for path in table.factor_paths if path != factor]
    level_of = [_level(table, cell, factor) for cell in table.cells]
    cell_at: dict[tuple[Any, ...], int] = {}
    ambiguous = set()  # settings of several cells that differ only in their inputs: these are in no pair
    for number, (cell, level) in enumerate(zip(table.cells, level_of, strict=True)):
        settings = (*(table.value(cell, path) for path in others), level)
        ambiguous |= {settings} & cell_at.keys()
        cell_at[settings] = number
    levels = list(dict.fromkeys(level for level in level_of if level is not None))
    base = _base_level(table, factor, levels)
    pairs: dict[Hashable, list[tuple[int, int]]] = {level: [] for level in _sort_numbers(levels) if level != base}
    for settings, number in cell_at.items():
        counterpart = (*settings[:-1], base)
        if settings[-1] in pairs and counterpart in cell_at and not ambiguous & {settings, counterpart}:
            pairs[settings[-1]].append((number, cell_at[counterpart]))
    if len(pairs) > MAX_LEVELS:
        return base, {}
    return base, {level: found for level, found in pairs.items() if found}


def _level(table: Table, cell: TableCell, factor: str) -> Hashable:
    """Return a cell's level. If one factor varies at a time, a cell without any of the named levels is at the base."""
    level = table.value(cell, factor)
    is_named = factor not in SETTING_TYPES
    return BASE_LEVEL if level is None and is_named and table.study.document.get("vary") == "one_at_a_time" else level


def _base_level(table: Table, factor: str, levels: list[Hashable]) -> Hashable:
    """Return the level of the study's base config, or the first named level."""
    if BASE_LEVEL in levels:
        return BASE_LEVEL
    try:
        stated = flatten(build(table.study.document.get("base") or {}).document()).get(factor)
    except UserError:
        stated = None
    if stated in levels:
        return stated
    blocks = table.study.document.get("factors") or {}
    named = [level for block in (blocks if isinstance(blocks, list) else [blocks]) for level in block.get(factor, ())]
    return next((level for level in named if level in levels), levels[0] if levels else None)


def _sort_numbers(levels: list[Any]) -> list[Any]:
    """Sort numbers; keep the order of other levels."""
    is_numeric = all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
    return sorted(levels) if is_numeric else levels


def draw_factor_effects(data: pd.DataFrame) -> Figure:
    """Draw a forest plot: a heading for each factor, followed by a line for each level."""
    lines = _lines(data)
    figure = Figure(figsize=(PAGE_WIDTH, 0.7 + 0.18 * len(lines)), layout="constrained")
    axes = figure.subplots()
    limits = limits_without_outliers(data["difference"], [0])
    for position, (_, rows) in enumerate(lines):
        if rows is not None:
            _draw_level(axes, rows, position)
            mark_outliers(axes, "x", pd.Series(position, rows.index), rows["difference"], limits)
    axes.axvline(0, color="black", linewidth=0.8)
    # Half as wide again as the seeds and 0; the intervals of two seeds would be too wide.
    low, high = min(data["difference"].min(), 0), max(data["difference"].max(), 0)
    margin = (high - low) / 4 or 1.0
    if limits is None:
        axes.set_xlim(low - margin, high + margin)
    axes.set_yticks(range(len(lines)), [text for text, _ in lines])
    for label, (_, rows) in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontweight("bold" if rows is None else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.set_xlabel(f"difference in {METRIC_NAME} from the base level (below 0 is better)")
    handles, names = axes.get_legend_handles_labels()
    legend = dict(zip(names, handles, strict=True))
    figure.legend(legend.values(), legend.keys(), loc="outside upper right", ncols=3)
    return figure


def _lines(data: pd.DataFrame) -> list[tuple[str, pd.DataFrame | None]]:
    """Return the text and the rows of each line, from the top; headings have no rows."""
    lines: list[tuple[str, pd.DataFrame | None]] = []
    for (factor, base), part in data.groupby(["factor", "base"], sort=False):
        lines.append((f"{factor} (base: {base})", None))
        lines += [(str(level), rows) for level, rows in part.groupby("level", sort=False)]
    return lines


def _draw_level(axes: Axes, rows: pd.DataFrame, position: int) -> None:
    first = rows.iloc[0]
    heights = position + np.linspace(-0.2, 0.2, len(rows)) * (len(rows) > 1)
    axes.plot(rows["difference"], heights, "o", color=GRAY, markersize=2.5, alpha=0.8, label="one seed")
    if np.isfinite(first["ci_low"]):
        ends = [first["ci_low"], first["ci_high"]]
        axes.plot(ends, 2 * [position], "|-", color=SERIES_COLORS[0], linewidth=1.2, markersize=5, label="95 % over seeds")
    axes.plot([first["mean"]], [position], "D", color=SERIES_COLORS[0], markersize=4, label="mean")
