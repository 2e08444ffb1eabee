"""The `tiekd power` command: the seeds and device-hours that a difference needs, from the spread that a store has."""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from tiekd.errors import UserError, unknown
from tiekd.store.files import json_text

if TYPE_CHECKING:
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


def power(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="name of a study of the store", show_default=False)],
    difference: Annotated[float, typer.Option(min=0, help="smallest difference from the Baseline that should be found")],
    store: Annotated[str, typer.Option("--store", metavar="STORE", help="folder or URI of the run store")] = "store",
    metric: Annotated[str, typer.Option(metavar="NAME", help="the metric whose difference it is")] = "abs_rel",
    chance: Annotated[float, typer.Option("--power", help="probability of finding it, between 0 and 1")] = 0.8,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Tell how many seeds a difference from the Baseline needs, and how many device-hours, from the seeds that are done.

    Assumes the tests of a report: two-sided, paired by seed, corrected over the rows by Holm's method. Needs two seeds or more
    of a row and its Baseline.

    Example: tiekd power kitti --store store --difference 0.002
    """
    from reports.loading.collect import collect
    from reports.tables.table import build_tables
    from tiekd.config.labels import METRICS
    from tiekd.store.run_store import RunStore

    if metric not in METRICS:
        raise UserError(unknown("--metric", metric, METRICS))
    if not 0 < chance < 1:
        raise UserError(f"--power: must be between 0 and 1, got {chance:g}")
    if not difference > 0:
        raise UserError(f"--difference: must be above 0, got {difference:g}")
    tables = build_tables(collect(RunStore(store), [study]))
    found = {table_name(table): rows_power(table, metric, difference, chance) for table in tables}
    if not any(found.values()):
        raise UserError(f"study {study}: no row and its Baseline have two seeds in common in store {store}")
    if as_json:
        typer.echo(json_text({name: [asdict(row) for row in rows] for name, rows in found.items()}, indent=2))
        return
    for name, rows in found.items():
        typer.echo(f"{name}: seeds for a difference of {difference:g} in {metric} with probability {chance:g}\n{_text(rows)}\n")


def table_name(table: "Table") -> str:
    return f"{table.study.name}, {table.dataset}, protocol {table.protocol}"


def rows_power(table: "Table", metric: str, difference: float, chance: float) -> list[RowPower]:
    """The needs of every row that has a Baseline and two pairs of seeds or more."""
    import numpy as np
    from scipy.stats import chi2

    from reports.loading.schema import METRICS
    from reports.tables.formatting import cell_name
    from reports.tables.seed_statistics import ALPHA

    pairs: dict[int, np.ndarray] = {}
    for index, baseline in enumerate(table.baselines):
        if baseline is not None:
            both = table.by_seed[index, METRICS.index(metric)] - table.by_seed[baseline, METRICS.index(metric)]
            if (known := both[np.isfinite(both)]).size > 1:
                pairs[index] = known
    alpha, rows = ALPHA / max(sum(b is not None for b in table.baselines), 1), []
    for index, values in pairs.items():
        sd, free = float(values.std(ddof=1)), len(values) - 1
        low, high = (sd * math.sqrt(free / chi2.ppf(level, free)) for level in (1 - ALPHA / 2, ALPHA / 2))
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
    import numpy as np
    from scipy.special import chdtri, ndtr, stdtrit

    from reports.tables.seed_statistics import seeds_needed

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


def _hours_per_seed(table: "Table", index: int) -> float | None:
    """Mean device-hours of the finished runs of a cell."""
    seconds = [run["device_seconds"] for run in table.cells[index].done.values()]
    known = [s for s in seconds if s is not None and not math.isnan(s)]
    return sum(known) / len(known) / 3600 if known else None


def _text(rows: list[RowPower]) -> str:
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
