"""What a reader must know to read a table: how its numbers were made, and what they cannot say."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from reports.loading.schema import MAIN_METRIC, METRIC_LABELS, METRICS
from reports.pages.table_layouts import objective_metric
from reports.tables.aggregates import Numbers
from reports.tables.formatting import ROW_LABELS
from reports.tables.image_bootstrap import FEWEST_GROUPS, interval_coverage
from reports.tables.seed_statistics import ALPHA, BCA_COVERAGE, seeds_needed, smallest_p
from reports.tables.table import Table

_LABEL = METRIC_LABELS[MAIN_METRIC]
_MAIN = METRICS.index(MAIN_METRIC)


def table_notes(table: Table, whole: bool = True) -> list[str]:
    """The lines beneath a study's published layout, or beneath a search's trials.

    whole: the table has every label as a column, and the test against the baseline.
    """
    lines = [_protocol(table), _seeds()]
    if table.study.is_search:
        label = METRIC_LABELS[objective_metric(table)]
        ranking = (
            f"Each row is one trial, the best {label} first; trials without a number stand last. Nothing is bold: a search"
            " looks where it found good values, so that its trials are no fair test of each other."
        )
        return [*_shared(table), *lines, ranking, *_states(table)]
    lines = [*lines, *_published(table), *baseline_notes(table)] if whole else [*_shared(table), *lines, *_published(table)]
    return [*lines, *_bold(table, table.blocks, "the students of one backbone"), *_states(table)]


def baseline_notes(table: Table) -> list[str]:
    """The lines beneath differences to the baseline."""
    difference = f"{_LABEL} − Baseline (same data, backbone, protocol and shared settings)"
    return [*_test(table, table.numbers, difference), *_images(table)]


def one_factor_notes(table: Table, compared: Numbers, blocks: Sequence[Sequence[int]]) -> list[str]:
    """The lines beneath a table of one factor at a time."""
    return [
        "Each block varies one factor around the study's base; all else is as in the base.",
        *_test(table, compared, f"{_LABEL} − base"),
        *_bold(table, blocks, "a block"),
    ]


def grid_notes(table: Table, blocks: Sequence[Sequence[int]], block: str) -> list[str]:
    """The lines beneath a grid."""
    return [
        f"{_LABEL}, mean ± standard deviation over seeds (in parentheses how many). A blank place was not planned.",
        *_bold(table, blocks, block),
    ]


def cost_notes() -> list[str]:
    """The lines beneath the networks' costs."""
    return [
        "Measured by `tiekd measure` on one device: one image of the evaluation size at a time, without flip averaging;"
        " multiply-accumulates and parameters of the whole network, the median time with its quartiles, and the peak memory of"
        " weights and one forward pass."
    ]


def _shared(table: Table) -> Iterator[str]:
    """The labels that are no columns, for all rows share them."""
    if shared := [f"{name} {table.cells[0].labels[name]}" for name in ROW_LABELS if name in table.common]:
        yield f"In every row: {'; '.join(shared)}."


def _protocol(table: Table) -> str:
    counts = table.groups.groupby("run_id")[["n", "n_blank"]].sum()
    if counts.empty:
        return f"Protocol `{table.protocol}`; no run is done."
    return (
        f"Protocol `{table.protocol}`: each run's number is the mean over {_counts(counts['n'])} test images; images left"
        f" out for want of valid ground truth: {_counts(counts['n_blank'])}. RMSE and Sq Rel in metres, SILog × 100; δ: higher"
        " is better, all others: lower."
    )


def _counts(values: pd.Series) -> str:
    """The one count that all runs share, or every one that occurs."""
    return " or ".join(map(str, sorted(set(values)))) or "0"


def _seeds() -> str:
    return "Mean ± sample standard deviation (n − 1) over training seeds; one seed has no spread (–)."


def _images(table: Table) -> Iterator[str]:
    """What the other uncertainty is; only where a difference has an interval, or lacks one for want of groups."""
    if all(baseline is None for baseline in table.baselines):
        return
    groups = sorted({int(n) for n in table.numbers["n_groups"][:, _MAIN]} - {0})
    if groups and groups[-1] < FEWEST_GROUPS:
        yield (
            f"No interval over test images: they are of {' or '.join(map(str, groups))} drives or scenes, whose images resemble"
            f" each other, and it takes {FEWEST_GROUPS} to draw from."
        )
    elif np.isfinite(table.numbers["baseline_images_ci_low"]).any():
        yield (
            f"95 % over images: what another draw of the {groups[-1]} drives or scenes would say of the same trained networks"
            f" (bootstrap of whole groups; of so many it held the truth in"
            f" {interval_coverage(groups[-1]):.0%} of simulated studies)."
            " It holds no spread over seeds, and 95 % over seeds none over images."
        )


def _published(table: Table) -> Iterator[str]:
    if np.isfinite(table.numbers["published"]).any():
        yield (
            "Published: the paper's one number per cell, without seeds or spread, at its own settings (24 epochs, the released"
            " code's arithmetic); diff. is our mean − published."
        )


def _test(table: Table, numbers: Numbers, difference: str) -> Iterator[str]:
    """How differences were tested, and whether the seeds suffice for p < ALPHA."""
    tested = np.flatnonzero(np.isfinite(numbers["p_value"][:, _MAIN]))
    if not tested.size:
        return
    n = int(numbers["baseline_n_seeds"][tested, _MAIN].max())
    yield (
        f"p: two-sided exact sign-flip test of {difference}, paired by seed, corrected by Holm over the {len(tested)} tests of"
        " the table. 95 % over seeds: Student's t interval of that difference, uncorrected."
    )
    if n in BCA_COVERAGE:
        yield (
            f"`tables.parquet` also holds the bias-corrected bootstrap interval over seeds; with {n} seeds it held the"
            f" truth in {BCA_COVERAGE[n]:.0%} of simulated studies, not in 95 %."
        )
    needed = seeds_needed(ALPHA / len(tested))
    cannot = f"**p < {ALPHA} cannot be reached with {n} seed{'s' * (n > 1)}"
    if n < (seeds_needed() or math.inf):
        yield (
            f"{cannot}**: the smallest two-sided p is 2/2^{n} = {smallest_p(n):g} before correction. It takes"
            f" {seeds_needed()} seeds for one test, {_many(needed)} under Holm's correction over {len(tested)}."
        )
    elif needed is None or n < needed:
        yield (
            f"{cannot} under Holm's correction**: the smallest two-sided p is 2/2^{n} = {smallest_p(n):g} for one test;"
            f" the first of {len(tested)} takes {_many(needed)} seeds."
        )


def _bold(table: Table, blocks: Iterable[Sequence[int]], block: str) -> Iterator[str]:
    """Why rows are bold, or why none is; silent where nothing competes."""
    blocks = [[n for n in numbers if table.cells[n].n_done] for numbers in blocks]
    blocks = [numbers for numbers in blocks if len(numbers) > 1]
    if not blocks:
        return
    if any(table.best_of(numbers, MAIN_METRIC) for numbers in blocks):
        yield (
            f"Bold: in {block}, the best mean and the rows that the seeds do not show to be worse (sign-flip tests paired by"
            " seed, Holm over all pairs)."
        )
        return
    smallest = min(blocks, key=len)
    seeds = min(table.cells[n].n_done for n in smallest)
    needed = seeds_needed(ALPHA / math.comb(len(smallest), 2))
    if needed is None or seeds < needed:
        yield (
            f"**Nothing is bold**: {seeds} seed{'s' * (seeds > 1)} cannot tell which of {len(smallest)} rows is best; it takes"
            f" {_many(needed)} of each row."
        )
    else:
        yield f"**Nothing is bold**: the seeds show no row of {block} to be worse than the best."


def _states(table: Table) -> Iterator[str]:
    if any(cell.state != "done" for cell in table.cells):
        yield "A run that is not done gives no number: means are over the seeds that are, State tells of the others."


def _many(needed: int | None) -> str:
    return "more than can be tried out" if needed is None else str(needed)
