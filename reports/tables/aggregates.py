"""The statistics of a table, for all cells and metrics at once.

The uncertainty over training seeds and the one over test images are in separate columns.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from reports.loading.schema import METRICS
from reports.tables.cells import TableCell
from reports.tables.image_bootstrap import image_intervals
from reports.tables.seed_statistics import holm, sign_flip_p, summarize_seeds

Numbers = dict[str, np.ndarray]  # by column of tables.parquet, each [cells, metrics]
References = Sequence[int | None]  # for each cell, the position of the cell that it is compared with


def values_by_seed(cells: Sequence[TableCell]) -> np.ndarray:
    """The metrics of finished runs, [cells, metrics, seeds]; NaN elsewhere."""
    seeds = sorted({seed for cell in cells for seed in cell.done})
    values = np.full((len(cells), len(METRICS), len(seeds)), np.nan)
    place = {seed: position for position, seed in enumerate(seeds)}
    for index, cell in enumerate(cells):
        for seed, run in cell.done.items():
            values[index, :, place[seed]] = [run[metric] for metric in METRICS]
    return values


def seed_numbers(values: np.ndarray) -> Numbers:
    """Mean, sample standard deviation and intervals of the mean of values [cells, metrics, seeds]."""
    found = summarize_seeds(values)
    return {"n_seeds": found.n, "mean": found.mean, "std": found.std, "ci_low": found.ci_low, "ci_high": found.ci_high}


def difference_numbers(values: np.ndarray, references: References) -> Numbers:
    """Numbers of the differences between values [cells, metrics, seeds] and those of the cells that they are compared with.

    Differences are paired by seed. p_holm is p_value corrected over the cells, for each metric.
    """
    pairs = np.full_like(values, np.nan)
    partners = {index: other for index, other in enumerate(references) if other is not None}
    pairs[[*partners]] = values[[*partners]] - values[[*partners.values()]]
    found, p_value = summarize_seeds(pairs), sign_flip_p(pairs)
    return {
        "baseline_difference": found.mean,
        "baseline_n_seeds": found.n,
        "baseline_ci_low": found.ci_low,
        "baseline_ci_high": found.ci_high,
        "p_value": p_value,
        "p_holm": np.column_stack([holm(column) for column in p_value.T]),
    }


def numbers_of(numbers: Numbers, cell: int, metric: str) -> dict[str, float]:
    """The numbers of one cell's metric, by column."""
    column = METRICS.index(metric)
    return {name: array[cell, column] for name, array in numbers.items()}


def image_numbers(cells: Sequence[TableCell], references: References, groups: pd.DataFrame) -> Numbers:
    """Intervals over test images; `groups` are the rows of StoreFrames.groups of this table."""
    found = image_intervals(groups, [list(cell.done_ids.values()) for cell in cells], _pairs(cells, references))
    return {
        "n_groups": np.repeat(np.asarray(found.n_groups)[:, None], len(METRICS), axis=1),
        "images_ci_low": found.low,
        "images_ci_high": found.high,
        "baseline_images_ci_low": found.baseline_low,
        "baseline_images_ci_high": found.baseline_high,
    }


def _pairs(cells: Sequence[TableCell], references: References) -> list[tuple[list[str], list[str]] | None]:
    """The run ids of each cell and of the cell that it is compared with, for the seeds of both."""
    pairs = []
    for cell, other in zip(cells, references, strict=True):
        theirs = {} if other is None else cells[other].done_ids
        seeds = [seed for seed in cell.done_ids if seed in theirs]
        pairs.append(([cell.done_ids[seed] for seed in seeds], [theirs[seed] for seed in seeds]) if seeds else None)
    return pairs
