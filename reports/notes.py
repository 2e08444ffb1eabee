"""What a reader must know to read a table: how its numbers were made, and what they cannot say."""

from collections.abc import Iterable

import pandas as pd

from reports.layout import objective
from reports.schema import MAIN_METRIC, METRIC_LABELS
from reports.statistics import ALPHA, RESAMPLES, seeds_needed, smallest_p
from reports.tables import Table


def notes(table: Table, images: pd.DataFrame) -> list[str]:
    """The lines beneath a table. images: rows of images.parquet."""
    if table.study.is_search:
        label = METRIC_LABELS[objective(table)]
        return [_protocol(table, images), f"Each row is one run, the best {label} first; runs without a number stand last."]
    lines = [_protocol(table, images), _seeds(), *_published(table), *_test(table)]
    if any(cell.state != "done" for cell in table.cells):
        lines.append("A run that is not done gives no number: means are over the seeds that are, State tells of the others.")
    return lines


def _protocol(table: Table, images: pd.DataFrame) -> str:
    runs = pd.concat([cell.runs for cell in table.cells])
    runs = runs.loc[runs["state"] == "done"]
    if runs.empty:
        return f"Protocol `{table.protocol}`; no run is done."
    measured = images.loc[images["run_id"].isin(runs["run_id"])]
    blank = (measured["n_valid"] == 0).groupby(measured["run_id"]).sum()
    return (
        f"Protocol `{table.protocol}`: each run's number is the mean over {_counts(runs['n_images'])} test images; images left"
        f" out for want of valid ground truth: {_counts(blank)}. RMSE and Sq Rel in metres, SILog × 100; δ: higher is better,"
        " all others: lower."
    )


def _counts(values: pd.Series) -> str:
    """The one count that all runs share, or every one that occurs."""
    return " or ".join(map(str, sorted(set(values.dropna().astype(int))))) or "0"


def _seeds() -> str:
    return (
        "Mean ± sample standard deviation (n − 1) over training seeds; one seed has no spread (–). tables.parquet holds the "
        f"{1 - ALPHA:.0%} interval of the mean (bias-corrected and accelerated bootstrap, {RESAMPLES} resamples, from 3 seeds)."
    )


def _published(table: Table) -> Iterable[str]:
    if table.results["published"].notna().any():
        yield (
            "Published: the paper's one number per cell, without seeds or spread, at its own settings (24 epochs, the released"
            " code's arithmetic); diff. is our mean − published."
        )


def _test(table: Table) -> Iterable[str]:
    tests = table.results.xs(MAIN_METRIC, level="metric")["p_value"].dropna()
    if tests.empty:
        return
    label = METRIC_LABELS[MAIN_METRIC]
    yield (
        f"p: two-sided exact sign-flip test of {label} − Baseline (same data, backbone, protocol and shared settings), paired"
        f" by seed, corrected by Holm over the {len(tests)} tests of the table."
    )
    n, needed = max(len(cell.runs) for cell in table.cells), seeds_needed(ALPHA / len(tests))
    if n < seeds_needed():
        yield (
            f"**p < {ALPHA} cannot be reached with {n} seed{'s' * (n > 1)}**: the smallest two-sided p is 2/2^{n} ="
            f" {smallest_p(n):g} before correction. It takes {seeds_needed()} seeds for one test, {needed} under Holm's"
            f" correction over {len(tests)}."
        )
    elif n < needed:
        yield (
            f"**p < {ALPHA} cannot be reached with {n} seeds under Holm's correction**: the smallest two-sided p is"
            f" 2/2^{n} = {smallest_p(n):g} for one test; the first of {len(tests)} takes {needed} seeds."
        )
