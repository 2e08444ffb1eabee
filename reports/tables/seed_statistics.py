"""What repeated training under several seeds says about a number; test images are never resampled here (resampling.py).

Arrays of values end in an axis of seeds, NaN where a seed has no number; differences pair two such arrays seed by seed. How
often the intervals hold the truth, and the tests a false alarm, is measured in benchmarks/uncertainty.py.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

ALPHA = 0.05
RESAMPLES = 1999  # the order that Efron & Tibshirani 1993 advise for BCa
EXACT_UP_TO = 16  # seeds; all sign patterns are tried up to here, as many random ones beyond
# What 95 % BCa intervals of the mean of n normal values hold, by n: resampling so few values shows too little of their spread.
BCA_COVERAGE = {3: 0.72, 4: 0.80, 5: 0.84, 6: 0.86, 7: 0.88, 8: 0.88, 9: 0.89, 10: 0.90, 11: 0.90}
BCA_COVERAGE |= {12: 0.91, 13: 0.92, 14: 0.91, 15: 0.92, 16: 0.92, 17: 0.92, 18: 0.92, 19: 0.92, 20: 0.93}
_TIE = 1e-12  # means nearer than this, relative to the values, differ by rounding only
_ROWS = 256  # at once: bounds the memory of resampled means


@dataclass(frozen=True)
class SeedSummary:
    """Of each set of n seeds: mean, sample standard deviation (n - 1), two 95 % intervals of the mean; NaN where undefined.

    ci_low, ci_high are Student's t (from 2 seeds): right for normal values at every n. bca_low, bca_high are the bias-corrected
    and accelerated bootstrap (from 3 seeds), which holds the truth as seldom as BCA_COVERAGE tells.
    """

    n: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    bca_low: np.ndarray
    bca_high: np.ndarray


def summarize_seeds(values: np.ndarray) -> SeedSummary:
    """values [..., seeds]; every field of the result is [...]."""
    values = np.asarray(values, dtype=float)
    n = np.isfinite(values).sum(-1)
    found = {field.name: np.full(n.shape, np.nan) for field in fields(SeedSummary) if field.name != "n"}
    for where, rows in _complete(values):
        found["mean"][where] = rows.mean(-1)
        if rows.shape[-1] > 1:
            found["std"][where] = rows.std(-1, ddof=1)
            found["ci_low"][where], found["ci_high"][where] = t_interval(rows)
        if rows.shape[-1] > 2:
            found["bca_low"][where], found["bca_high"][where] = bca_interval(rows)
    return SeedSummary(n, **{name: values[()] for name, values in found.items()})


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Student's 95 % interval of the mean of each row of values [m, n], n >= 2, all finite: low [m], high [m]."""
    n = values.shape[-1]
    half = stdtrit(n - 1, 1 - ALPHA / 2) * values.std(-1, ddof=1) / math.sqrt(n)
    return values.mean(-1) - half, values.mean(-1) + half


def bca_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bias-corrected and accelerated 95 % bootstrap interval of the mean of each row (Efron 1987): low [m], high [m].

    values [m, n], n >= 3, all finite. The same resamples serve every row, so that its interval depends on nothing but itself.
    """
    counts, repeats = np.unique(resamples(values.shape[-1]), axis=0, return_counts=True)  # of 3 values, 10 are distinct
    parts = [_bca(rows, counts, repeats) for rows in np.array_split(values, math.ceil(len(values) / _ROWS))]
    low, high = np.concatenate(parts, axis=1)
    return low, high


def resamples(n: int) -> np.ndarray:
    """How often each of n values occurs in each of the seeded resamples: [RESAMPLES, n], the draws of scipy.stats.bootstrap."""
    drawn = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    place = drawn + n * np.arange(RESAMPLES)[:, None]
    return np.bincount(place.ravel(), minlength=RESAMPLES * n).reshape(RESAMPLES, n)


def _bca(values: np.ndarray, counts: np.ndarray, repeats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, mean = values.shape[-1], values.mean(-1, keepdims=True)
    resampled = values @ counts.T / n
    tie = _TIE * np.abs(values).max(-1, keepdims=True)
    below = ((resampled < mean - tie) @ repeats + (resampled <= mean + tie) @ repeats) / (2 * RESAMPLES)
    order = resampled.argsort(-1)
    ranked, ranks = np.take_along_axis(resampled, order, -1), repeats[order].cumsum(-1)
    centred, bias = values - mean, ndtri(below)
    constant = np.ptp(values, axis=-1) == 0  # no acceleration to estimate: every resample is the sample
    variation = np.where(constant, 1.0, (centred**2).sum(-1))
    acceleration = (centred**3).sum(-1) / (6 * variation**1.5)

    def end(z: float) -> np.ndarray:
        share = ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))
        return np.where(constant, values[:, 0], _quantile(ranked, ranks, share))

    return end(ndtri(ALPHA / 2)), end(ndtri(1 - ALPHA / 2))


def _quantile(ranked: np.ndarray, ranks: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The quantile of each row, linear between neighbours; the last of value ranked[i, j]'s copies has rank ranks[i, j]."""
    place = share * (RESAMPLES - 1)
    lower = np.floor(place)

    def at(index: np.ndarray) -> np.ndarray:
        first = (ranks <= index[:, None]).sum(-1, keepdims=True)
        return np.take_along_axis(ranked, first, -1)[:, 0]

    return at(lower) + (place - lower) * (at(np.minimum(lower + 1, RESAMPLES - 1)) - at(lower))


def sign_flip_p(differences: np.ndarray) -> np.ndarray:
    """Two-sided p of "paired differences are symmetric about 0", by flipping their signs: differences [..., seeds] -> [...].

    Exact up to EXACT_UP_TO pairs. NaN without pairs; with one pair both signs are equally likely, so p is 1.
    """
    differences = np.asarray(differences, dtype=float)
    p_values = np.full(differences.shape[:-1], np.nan)
    for where, rows in _complete(differences):
        signs, extra = _sign_patterns(rows.shape[-1])
        parts = np.array_split(rows, math.ceil(len(rows) / _ROWS))
        counts = np.concatenate([_as_extreme(part, signs) for part in parts])
        p_values[where] = (counts + extra) / (len(signs) + extra)
    return p_values[()]


def _sign_patterns(n: int) -> tuple[np.ndarray, int]:
    """Sign patterns [k, n], and how many the observed one adds to them.

    A pattern and its opposite have the same |sum|, so the last sign is never flipped. Random patterns lack the observed one.
    """
    if n > EXACT_UP_TO:
        return np.random.default_rng(0).choice([-1.0, 1.0], (2 ** (EXACT_UP_TO - 1) - 1, n)), 1
    return 1.0 - 2 * (np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1), 0


def _as_extreme(differences: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """How many patterns give each row of differences [m, n] a sum at least as far from 0 as its own."""
    least = np.abs(differences.sum(-1)) - _TIE * np.abs(differences).sum(-1)
    return (np.abs(differences @ signs.T) >= least[:, None]).sum(-1)


def smallest_p(n: int) -> float:
    """The smallest two-sided p that n paired seeds can give: 2 of 2^n equally likely patterns, of 2^EXACT_UP_TO at most."""
    return min(1.0, 2 / 2 ** min(n, EXACT_UP_TO))


def seeds_needed(alpha: float = ALPHA) -> int | None:
    """The fewest paired seeds with which p < alpha is possible; None where it is with no number of seeds."""
    return next((n for n in range(1, EXACT_UP_TO + 1) if smallest_p(n) < alpha), None)


def holm(p_values: np.ndarray, tests: int | None = None) -> np.ndarray:
    """Holm's step-down correction of p_values [m]; NaN are not tests and stay NaN.

    tests: of how many they are part, where they were picked out of more.
    """
    p_values = np.asarray(p_values, dtype=float)
    corrected = np.full_like(p_values, np.nan)
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]
    factors = (tests or order.size) - np.arange(order.size)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return corrected


def best_rows(values: np.ndarray, higher: bool) -> np.ndarray:
    """Which rows of a block are the best, or not shown to be worse than it: values [rows, seeds] -> bool [rows].

    Each row is tested against the row of the best mean, paired by seed. That row was picked for its mean, so Holm's correction
    runs over all pairs of rows; over the tests made alone, one block in eight of 9 rows of equal truth gives a false alarm.
    All False where no row is shown to be worse, or where some row has too few seeds to be shown so. Rows without a number take
    no part.
    """
    costs = np.asarray(values, dtype=float) * (-1 if higher else 1)
    n, nobody = np.isfinite(costs).sum(-1), np.zeros(len(costs), dtype=bool)
    chosen = n > 0
    if chosen.sum() < 2:
        return nobody
    first = np.divide(np.nansum(costs, axis=-1), n, out=np.full(len(n), np.inf), where=chosen).argmin()
    others = chosen & (np.arange(len(n)) != first)
    differences = costs[others] - costs[first]
    pairs = math.comb(int(chosen.sum()), 2)
    if smallest_p(np.isfinite(differences).sum(-1).min()) * pairs >= ALPHA:
        return nobody
    worse = (holm(sign_flip_p(differences), pairs) < ALPHA) & (np.nansum(differences, axis=-1) > 0)
    chosen[others] = ~worse
    return chosen if worse.any() else nobody


def _complete(values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The sets of seeds by their number n >= 1: where they are, bool [...], and their numbers without gaps [m, n]."""
    finite = np.isfinite(values)
    n = finite.sum(-1)
    for count in np.unique(n[n > 0]):
        where = n == count
        yield where, values[where][finite[where]].reshape(-1, count)
