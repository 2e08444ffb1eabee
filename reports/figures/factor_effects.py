"""What each level of each factor changes, against the factor's base level: paired by seed, everything else equal."""

from collections.abc import Hashable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.figures.style import COLOURS, GREY, PAGE
from reports.loading.schema import MAIN_METRIC, METRIC_LABELS, METRICS, SETTING_TYPES
from reports.tables.cells import TableCell
from reports.tables.formatting import format_value
from reports.tables.seed_statistics import summarize_seeds
from reports.tables.table import Table
from tiekd.config import build
from tiekd.config.documents import flatten
from tiekd.errors import UserError

BASE = "base"  # the level of a factor with named levels in the cell that has none of them
MOST_LEVELS = 12  # of one factor; more are a curve
MOST_ROWS = 40
_COLUMNS = ["factor", "base", "level", "seed", "n_pairs", "difference", "mean", "ci_low", "ci_high"]


def effects(table: Table) -> pd.DataFrame:
    """A row per factor, level and seed: difference in abs_rel to the base level, and over seeds mean, ci_low, ci_high.

    A pair are two cells that agree in all other factors. A seed's difference is the mean over its n_pairs; the interval is
    Student's t over seeds, of 95 %. Levels of which no seed has a pair are left out.
    """
    seeds = sorted({seed for cell in table.cells for seed in cell.done})
    values = table.by_seed[:, METRICS.index(MAIN_METRIC)]
    rows = []
    for factor in table.factor_paths:
        base, levels = _levels(table, factor)
        for level, pairs in levels.items():
            difference = values[[cell for cell, _ in pairs]] - values[[other for _, other in pairs]]
            n_pairs = np.isfinite(difference).sum(0)
            of_seeds = np.divide(np.nansum(difference, 0), n_pairs, out=np.full(len(seeds), np.nan), where=n_pairs > 0)
            found = summarize_seeds(of_seeds)
            shared = {"factor": factor, "base": format_value(base), "level": format_value(level)}
            shared |= {"mean": float(found.mean), "ci_low": float(found.ci_low), "ci_high": float(found.ci_high)}
            rows += [
                shared | {"seed": seed, "n_pairs": n, "difference": one}
                for seed, n, one in zip(seeds, n_pairs, of_seeds, strict=True)
                if n
            ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _levels(table: Table, factor: str) -> tuple[Hashable, dict[Hashable, list[tuple[int, int]]]]:
    """A factor's base level, and for each other level the cells that have it, each with its counterpart at the base level."""
    others = [path for path in table.factor_paths if path != factor]
    level_of = [_level(table, cell, factor) for cell in table.cells]
    places: dict[tuple, int] = {}
    twice = set()  # cells that their inputs alone tell apart: neither is the other's counterpart
    for number, (cell, level) in enumerate(zip(table.cells, level_of, strict=True)):
        place = (*(table.value(cell, path) for path in others), level)
        twice |= {place} & places.keys()
        places[place] = number
    found = dict.fromkeys(level for level in level_of if level is not None)
    base = _base_level(table, factor, list(found))
    pairs: dict[Hashable, list[tuple[int, int]]] = {level: [] for level in _ordered(found) if level != base}
    for (*rest, level), number in places.items():
        counterpart = (*rest, base)
        if level in pairs and counterpart in places and not twice & {(*rest, level), counterpart}:
            pairs[level].append((number, places[counterpart]))
    few = len(pairs) <= MOST_LEVELS
    return base, {level: found for level, found in pairs.items() if found and few}


def _level(table: Table, cell: TableCell, factor: str) -> Hashable:
    """A cell's level. Where one factor varies at a time, a cell without one of its named levels has the base."""
    level = table.value(cell, factor)
    named = factor not in SETTING_TYPES
    return BASE if level is None and named and table.study.document.get("vary") == "one_at_a_time" else level


def _base_level(table: Table, factor: str, levels: list[Hashable]) -> Hashable:
    """The level of the study's base config; of named levels the one that the study names first."""
    if BASE in levels:
        return BASE
    try:
        stated = flatten(build(table.study.document.get("base") or {}).document()).get(factor)
    except UserError:
        stated = None
    if stated in levels:
        return stated
    blocks = table.study.document.get("factors") or {}
    named = [level for block in (blocks if isinstance(blocks, list) else [blocks]) for level in block.get(factor, ())]
    return next((level for level in named if level in levels), levels[0] if levels else None)


def _ordered(levels: dict[Hashable, None]) -> list[Hashable]:
    numbers = all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
    return sorted(levels) if numbers else list(levels)


def draw_effects(data: pd.DataFrame) -> Figure:
    """A forest plot: a heading for each factor, beneath it a row for each level."""
    lines = _lines(data)
    figure = Figure(figsize=(PAGE, 0.7 + 0.18 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for position, (_, rows) in enumerate(lines):
        if rows is not None:
            _draw_level(axes, rows, position)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlim(*_frame(data))
    axes.set_yticks(range(len(lines)), [text for text, _ in lines])
    for text, (_, rows) in zip(axes.get_yticklabels(), lines, strict=True):
        text.set_fontweight("bold" if rows is None else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.set_xlabel(f"difference in {METRIC_LABELS[MAIN_METRIC]} to the base level (below 0 is better)")
    handles, names = axes.get_legend_handles_labels()
    shown = dict(zip(names, handles, strict=True))
    figure.legend(shown.values(), shown.keys(), loc="outside upper right", ncols=3)
    return figure


def _frame(data: pd.DataFrame) -> tuple[float, float]:
    """The range of the seeds and of 0, half as wide again: intervals of two seeds would dwarf all others."""
    low, high = min(data["difference"].min(), 0), max(data["difference"].max(), 0)
    room = (high - low) / 4 or 1.0
    return low - room, high + room


def _lines(data: pd.DataFrame) -> list[tuple[str, pd.DataFrame | None]]:
    """The text and the rows of each line, from the top; a heading has no rows."""
    lines: list[tuple[str, pd.DataFrame | None]] = []
    for (factor, base), part in data.groupby(["factor", "base"], sort=False):
        lines.append((f"{factor} (base: {base})", None))
        lines += [(str(level), rows) for level, rows in part.groupby("level", sort=False)]
    return lines


def _draw_level(axes: Axes, rows: pd.DataFrame, position: int) -> None:
    first = rows.iloc[0]
    heights = position + np.linspace(-0.2, 0.2, len(rows)) * (len(rows) > 1)
    axes.plot(rows["difference"], heights, "o", color=GREY, markersize=2.5, alpha=0.8, label="one seed")
    if np.isfinite(first["ci_low"]):
        ends = [first["ci_low"], first["ci_high"]]
        axes.plot(ends, 2 * [position], "|-", color=COLOURS[0], linewidth=1.2, markersize=5, label="95 % over seeds")
    axes.plot([first["mean"]], [position], "D", color=COLOURS[0], markersize=4, label="mean")
