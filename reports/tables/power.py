"""The seeds and device-hours that a difference needs, from the spread that the finished seeds of a table have."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, ndtr, stdtrit

from reports.loading.schema import METRICS
from reports.tables.formatting import cell_name
from reports.tables.seed_statistics import ALPHA, seeds_needed
from reports.tables.table import Table

MOST_SEEDS = 1000
FEW_PAIRS = 10
LEVELS = 2000  # quantiles of the estimated sd


@dataclass(frozen=True)
class RowPower:
    """What one row of a table needs. sd: of its differences from the Baseline, with its 95 % interval.

    seeds: None above MOST_SEEDS. seeds_high: at the upper end of the interval.
    """

    row: str
    pairs: int
    sd: float
    sd_low: float
    sd_high: float
    seeds: int | None
    seeds_high: int | None
    device_hours: float | None  # of the row and a Baseline of its own, at `seeds`


def table_name(table: Table) -> str:
    return f"{table.study.name}, {table.dataset}, protocol {table.protocol}"


def rows_power(table: Table, metric: str, difference: float, chance: float) -> list[RowPower]:
    """The needs of every row that has a Baseline and two pairs of seeds or more."""
    pairs: dict[int, np.ndarray] = {}
    for index, baseline in enumerate(table.baselines):
        if baseline is not None:
            both = table.by_seed[index, METRICS.index(metric)] - table.by_seed[baseline, METRICS.index(metric)]
            if (known := both[np.isfinite(both)]).size > 1:
                pairs[index] = known
    alpha, rows = ALPHA / max(sum(b is not None for b in table.baselines), 1), []
    for index, values in pairs.items():
        sd, free = float(values.std(ddof=1)), len(values) - 1
        low, high = (sd * math.sqrt(free / chdtri(free, 1 - level)) for level in (1 - ALPHA / 2, ALPHA / 2))
        seeds = seeds_for(difference, sd, alpha, chance)
        hours = [_hours_per_seed(table, place) for place in (index, table.baselines[index]) if place is not None]
        spent = None if seeds is None or None in hours else seeds * sum(h for h in hours if h is not None)
        at_most = seeds_for(difference, high, alpha, chance)
        rows.append(RowPower(cell_name(table, table.cells[index]), len(values), sd, low, high, seeds, at_most, spent))
    return rows


def seeds_for(difference: float, sd: float, alpha: float, chance: float) -> int | None:
    """The smallest number of paired seeds with which a two-sided test at `alpha` finds a difference with probability `chance`.

    The power is that of Student's t test; the exact test of a report also needs enough sign patterns. None above MOST_SEEDS.
    """
    fewest = max(seeds_needed(alpha) or MOST_SEEDS + 1, 2)
    if sd == 0:
        return fewest if fewest <= MOST_SEEDS else None
    levels = (np.arange(LEVELS) + 0.5) / LEVELS

    def found(n: int) -> bool:
        """Whether the power is enough: a mean over the distribution of the estimated sd, by its quantiles."""
        limit = stdtrit(n - 1, 1 - alpha / 2) * np.sqrt(chdtri(n - 1, levels) / (n - 1))
        shift = difference / sd * math.sqrt(n)
        return bool((ndtr(shift - limit) + ndtr(-shift - limit)).mean() >= chance)

    low, high = fewest, MOST_SEEDS + 1  # the power rises with the seeds
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle + 1, high)
    return low if low <= MOST_SEEDS else None


def _hours_per_seed(table: Table, index: int) -> float | None:
    """Mean device-hours of the finished runs of a cell."""
    seconds = [run["device_seconds"] for run in table.cells[index].done.values()]
    known = [s for s in seconds if s is not None and not math.isnan(s)]
    return sum(known) / len(known) / 3600 if known else None


def power_text(rows: list[RowPower]) -> str:
    """Rows in columns of text, and the total."""
    lines = [("row", "pairs", "sd", "95 % of sd", "seeds", "at most", "device-hours")]
    for row in rows:
        seeds, at_most = (f"> {MOST_SEEDS}" if n is None else str(n) for n in (row.seeds, row.seeds_high))
        hours = "-" if row.device_hours is None else f"{row.device_hours:.2f}"
        lines.append(
            (row.row, str(row.pairs), f"{row.sd:.5f}", f"[{row.sd_low:.5f}, {row.sd_high:.5f}]", seeds, at_most, hours)
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    is_few = min((row.pairs for row in rows), default=0) < FEW_PAIRS
    few = " With few pairs, the interval of sd shows how little is known." if is_few else ""
    note = (
        "seeds: at the sd of the pairs; at most: at the upper end of its interval. device-hours: of the row and its Baseline."
    )
    return "\n".join([*shown, f"{note}{few}"])
