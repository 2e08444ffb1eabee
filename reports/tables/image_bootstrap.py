"""Bootstrap intervals over test images, for fixed trained networks; seed_statistics.py has the intervals over seeds.

Images of one drive or scene are similar, so whole groups are resampled with replacement, never single images. Sums and counts
per group suffice. benchmarks/uncertainty.py measures the coverage of the intervals.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reports.loading.schema import METRICS
from reports.tables.seed_statistics import ALPHA
from tiekd.config.cpus import usable_cpus

RESAMPLES = 1999
FEWEST_GROUPS = 5  # with fewer, a resample often has a single group, and no standard error
# Coverage of 95 % intervals by number of groups, for log-normal and for normal groups (benchmarks/uncertainty.py).
COVERAGE = {5: (0.88, 0.94), 10: (0.91, 0.94), 30: (0.92, 0.95)}
_ROWS = 256  # per chunk, to bound memory
_ROUNDING = 1e-12  # relative; smaller differences between groups are not differences
_NO_SPREAD = 1e-300  # a number above 0

Score = tuple[np.ndarray, np.ndarray]  # metric sums [groups, metrics] and images [groups]; 0 images without a score
Pair = tuple[Sequence[str], Sequence[str]]  # run ids of a cell and of its baseline, for the seeds of both


@dataclass(frozen=True)
class ImageIntervals:
    """95 % intervals over test images of each cell's mean, and of its difference from the baseline: [cells, metrics].

    n_groups [cells]: the number of drives or scenes; 0 if the runs of a cell were not evaluated on the same images. Intervals
    are NaN below FEWEST_GROUPS; those of differences also without a baseline on the same images.
    """

    n_groups: np.ndarray
    low: np.ndarray
    high: np.ndarray
    baseline_low: np.ndarray
    baseline_high: np.ndarray


def image_intervals(groups: pd.DataFrame, cells: Sequence[Sequence[str]], pairs: Sequence[Pair | None]) -> ImageIntervals:
    """Compute the intervals of cells, given by their run ids, and of their differences from a baseline.

    groups: one row per run and group with `run_id`, `group`, `n` images, and the sum of each metric. The runs of a cell are
    averaged first, since its seeds are a fixed set of networks. Cell and baseline use the same resamples.
    """
    scores = _Scores.of(groups)
    means = [scores.mean(run_ids) for run_ids in cells]
    differences = [scores.difference(*pair) if pair else scores.mean(()) for pair in pairs]
    n_groups = np.array([(counts > 0).sum() for _, counts in means], dtype=int)
    return ImageIntervals(n_groups, *_intervals(means), *_intervals(differences))


def interval_coverage(n_groups: int) -> tuple[float, float]:
    """The coverage of an interval over n_groups >= FEWEST_GROUPS in simulation: for strongly skewed and for normal groups."""
    return COVERAGE[max(n for n in COVERAGE if n <= n_groups)]


def cluster_interval(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap interval of each row's mean over images: sums [m, groups], counts [groups] to low [m], high [m].

    The bootstrap-t interval (Efron and Tibshirani 1993, chapter 12) of a ratio of sums over groups: each resample's error is
    divided by its own standard error. Unlike percentiles, it follows the skewness of few groups.
    """
    draws = resamples(len(counts)).T.astype(float)  # [groups, RESAMPLES]
    images, squares = counts @ draws, counts**2 @ draws

    def ends(rows: np.ndarray) -> np.ndarray:
        means = rows.sum(1, keepdims=True) / counts.sum()
        residuals = rows - means * counts
        residuals[np.abs(residuals) <= _ROUNDING * np.abs(rows)] = 0
        error = residuals @ draws
        error /= images
        spread = error * squares
        spread -= (2 * residuals * counts) @ draws
        spread *= error
        spread += residuals**2 @ draws
        # Without a spread, as when one group is drawn alone, the ratio is 0 or beyond all others.
        error *= images / np.sqrt(np.maximum(spread, _NO_SPREAD))
        quantiles = np.quantile(error, [1 - ALPHA / 2, ALPHA / 2], axis=-1, overwrite_input=True)
        return means[:, 0] - quantiles * np.sqrt((residuals**2).sum(1)) / counts.sum()

    parts = np.array_split(sums, math.ceil(len(sums) / _ROWS))
    with ThreadPoolExecutor(usable_cpus()) as threads:  # NumPy releases the GIL
        low, high = np.concatenate(list(threads.map(ends, parts)), axis=1)
    return low, high


def resamples(n: int) -> np.ndarray:
    """How often each of n values occurs in each seeded resample: [RESAMPLES, n], as scipy.stats.bootstrap draws them."""
    drawn = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    place = drawn + n * np.arange(RESAMPLES)[:, None]
    return np.bincount(place.ravel(), minlength=RESAMPLES * n).reshape(RESAMPLES, n)


@dataclass(frozen=True)
class _Scores:
    """The scores of every run of a table on every group."""

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
    """Intervals low, high [scores, metrics]; scores on the same images share resamples."""
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
