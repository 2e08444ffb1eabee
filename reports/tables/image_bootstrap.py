"""What another draw of test images would say about a number, the trained networks being what they are (seeds: statistics.py).

Frames of one drive or scene resemble each other, so whole groups are drawn, with replacement, never single images. Sums and
counts per group are all that it takes. benchmarks/uncertainty.py measures how often the intervals hold the truth.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtr, stdtrit

from reports.loading.schema import METRICS
from reports.tables.seed_statistics import ALPHA, resamples

FEWEST_GROUPS = 5  # with fewer, the widened level lies beyond the ends of what can be drawn
# What 95 % intervals over so many groups hold, where groups and images differ normally (benchmarks/uncertainty.py).
COVERAGE = {5: 0.92, 10: 0.94, 30: 0.95}
_ROWS = 256  # at once: bounds the memory of resampled means

Score = tuple[np.ndarray, np.ndarray]  # metric sums [groups, metrics] and images [groups]; no images where there is no score
Pair = tuple[Sequence[str], Sequence[str]]  # run ids of a cell and of its baseline, at the seeds that both have


@dataclass(frozen=True)
class ImageIntervals:
    """95 % intervals over test images of each cell's mean, and of its difference to the baseline: [cells, metrics].

    n_groups [cells]: the drives or scenes that are drawn; 0 where a cell's runs were not scored on the same images. Intervals
    are NaN below FEWEST_GROUPS of them; that of the difference also without a baseline on the same images.
    """

    n_groups: np.ndarray
    low: np.ndarray
    high: np.ndarray
    baseline_low: np.ndarray
    baseline_high: np.ndarray


def image_intervals(groups: pd.DataFrame, cells: Sequence[Sequence[str]], pairs: Sequence[Pair | None]) -> ImageIntervals:
    """The intervals of cells, each given by its runs' ids, and of their differences to a baseline, where there is one.

    groups: a row per run and group with `run_id`, `group`, `n` images, and each metric's sum over them. The runs of a cell are
    averaged first: its seeds are a fixed set of networks. Cell and baseline are scored on the same draws of groups.
    """
    scores = _Scores.of(groups)
    means = [scores.mean(run_ids) for run_ids in cells]
    differences = [scores.difference(*pair) if pair else scores.mean(()) for pair in pairs]
    n_groups = np.array([(counts > 0).sum() for _, counts in means], dtype=int)
    return ImageIntervals(n_groups, *_intervals(means), *_intervals(differences))


def interval_coverage(n_groups: int) -> float:
    """What a 95 % interval over n_groups >= FEWEST_GROUPS holds at least, in simulation."""
    return COVERAGE[max(n for n in COVERAGE if n <= n_groups)]


def cluster_interval(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interval of each row's mean over images, by drawing groups: sums [m, groups], counts [groups] -> low [m], high [m].

    The percentile bootstrap of few groups is too narrow; its levels are widened to what makes Student's t out of the normal
    quantile (the expanded percentile interval, Hesterberg 2015).
    """
    n_groups = len(counts)
    draws = resamples(n_groups).T.astype(float)  # [groups, RESAMPLES]
    images = counts @ draws
    scale = math.sqrt(n_groups / (n_groups - 1))
    tail = ndtr(scale * stdtrit(n_groups - 1, ALPHA / 2))

    def ends(rows: np.ndarray) -> np.ndarray:
        means = rows @ draws
        means /= images
        return np.quantile(means, [tail, 1 - tail], axis=-1, overwrite_input=True)

    parts = np.array_split(sums, math.ceil(len(sums) / _ROWS))
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # NumPy lets go of Python's lock
        low, high = np.concatenate(list(threads.map(ends, parts)), axis=1)
    return low, high


@dataclass(frozen=True)
class _Scores:
    """What every run of a table scored on every group of it."""

    sums: np.ndarray  # [runs, groups, metrics]
    counts: np.ndarray  # [runs, groups]
    position: dict[str, int]  # of a run id

    @classmethod
    def of(cls, groups: pd.DataFrame) -> "_Scores":
        run, run_ids = pd.factorize(groups["run_id"])
        group, names = pd.factorize(groups["group"])
        sums = np.zeros((len(run_ids), len(names), len(METRICS)))
        counts = np.zeros((len(run_ids), len(names)), dtype=int)
        sums[run, group] = groups[list(METRICS)]
        counts[run, group] = groups["n"]
        return cls(sums, counts, {run_id: number for number, run_id in enumerate(run_ids)})

    def mean(self, run_ids: Sequence[str]) -> Score:
        """The runs' mean; no score unless all of them were scored on the same images."""
        runs = [self.position.get(run_id, -1) for run_id in run_ids]
        if not runs or min(runs) < 0 or (self.counts[runs] != self.counts[runs[0]]).any():
            return np.zeros(self.sums.shape[1:]), np.zeros(self.sums.shape[1], dtype=int)
        return self.sums[runs].mean(0), self.counts[runs[0]]

    def difference(self, run_ids: Sequence[str], baseline_ids: Sequence[str]) -> Score:
        (sums, counts), (baseline_sums, baseline_counts) = self.mean(run_ids), self.mean(baseline_ids)
        return sums - baseline_sums, counts * (counts == baseline_counts).all()


def _intervals(scores: Sequence[Score]) -> tuple[np.ndarray, np.ndarray]:
    """low, high [scores, metrics]; those on the same images are drawn together."""
    ends = np.full((2, len(scores), len(METRICS)), np.nan)
    alike: dict[bytes, list[int]] = {}
    for number, (_, counts) in enumerate(scores):
        alike.setdefault(counts.tobytes(), []).append(number)
    for numbers in alike.values():
        counts = scores[numbers[0]][1]
        present = counts > 0
        if present.sum() >= FEWEST_GROUPS:
            sums = np.stack([scores[number][0][present].T for number in numbers])
            low, high = cluster_interval(sums.reshape(-1, present.sum()), counts[present])
            ends[:, numbers] = np.reshape([low, high], (2, len(numbers), len(METRICS)))
    return ends[0], ends[1]
