"""Who wins where: the ranks of a table's rows under each protocol, and how stable they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reports.loading.protocols import protocol_means
from reports.loading.schema import MAIN_METRIC
from reports.tables.image_bootstrap import FEWEST_GROUPS, resamples
from reports.tables.table import Table


@dataclass(frozen=True)
class BlockRanks:
    """Ranks by MAIN_METRIC in a block of a table, all [cells, protocols]; 1 is best, 0 stands for a cell without a result.

    Over the images, whole drives or scenes are resampled, the same for all cells, and the seeds are fixed.
    """

    cells: tuple[int, ...]  # positions in the table
    rank: np.ndarray
    n_seeds: np.ndarray  # seeds with a result of every cell that has a rank
    agree: np.ndarray  # those of them that give the cell this rank
    draws: np.ndarray  # share of the resamples that do; NaN below FEWEST_GROUPS, or where cells have other images


def protocols_of(table: Table) -> list[str]:
    """The protocols under which any run of a table was scored, that of the table first; one alone if there are no others."""
    return list(dict.fromkeys([table.protocol, *table.also["protocol"]]))


def protocol_ranks(table: Table) -> list[BlockRanks]:
    """The ranks of each block of at least two cells; none if no run was scored under another protocol."""
    names = protocols_of(table)
    if len(names) == 1:
        return []
    own = table.groups.assign(protocol=table.protocol)
    sums = pd.concat([own.loc[own["n"] > 0, table.also.columns], table.also], ignore_index=True)
    means = protocol_means(sums).set_index(["protocol", "run_id"])[MAIN_METRIC].to_dict()
    by_protocol = {name: sums.loc[sums["protocol"] == name] for name in names}
    found = []
    for block in table.blocks:
        if len(block) > 1:
            columns = [_column(table, block, name, means, by_protocol[name]) for name in names]
            found.append(BlockRanks(tuple(block), *(np.stack(part, 1) for part in zip(*columns, strict=True))))
    return found


def _column(
    table: Table, block: Sequence[int], protocol: str, means: Mapping[Any, float], sums: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The fields of BlockRanks under one protocol, [cells]."""
    cells = [table.cells[index].done_ids for index in block]
    seeds = sorted({seed for runs in cells for seed in runs})
    values = np.array([[means.get((protocol, runs.get(seed, "")), np.nan) for seed in seeds] for runs in cells])
    present = np.isfinite(values).any(1)
    rank, agree, n_seeds = np.zeros((3, len(block)), dtype=int)
    draws = np.full(len(block), np.nan)
    if present.any():
        rank[present] = _ranks(np.nanmean(values[present], 1))
        complete = values[present][:, np.isfinite(values[present]).all(0)]
        n_seeds[present] = complete.shape[1]
        agree[present] = (_ranks(complete) == rank[present, None]).sum(1)
        runs = [[run for run in cells[index].values() if (protocol, run) in means] for index in np.flatnonzero(present)]
        draws[present] = _agreeing_draws(sums, runs, rank[present])
    return rank, n_seeds, agree, draws


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks along the first axis, the smallest first; equal values share the better rank."""
    return 1 + (values[:, None] > values[None]).sum(1)


def _agreeing_draws(sums: pd.DataFrame, cells: Sequence[Sequence[str]], rank: np.ndarray) -> np.ndarray:
    """The share of resamples that give each cell its rank; `cells` are the run ids of each."""
    counts, scores = (sums.pivot_table(name, "run_id", "group", fill_value=0) for name in ("n", MAIN_METRIC))
    images = counts.loc[[run for runs in cells for run in runs]].to_numpy(float)
    if images.shape[1] < FEWEST_GROUPS or (images != images[0]).any():
        return np.full(len(cells), np.nan)
    mean = np.stack([scores.loc[list(runs)].to_numpy(float).mean(0) for runs in cells])
    drawn = resamples(images.shape[1]).T.astype(float)
    return (_ranks(mean @ drawn / (images[0] @ drawn)) == rank[:, None]).mean(1)
