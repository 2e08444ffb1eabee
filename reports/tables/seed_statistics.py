"""Statistics over training seeds: means, intervals, paired tests. image_bootstrap.py has the intervals over test images.

The last axis of every array of values is the seeds, with NaN for a seed without a result; differences are paired by seed.
benchmarks/uncertainty.py measures the coverage of the intervals and the false positives of the tests.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from scipy.special import stdtrit

from reports.loading.schema import DIGITS
from tiekd.config.report_config import Bold

ALPHA = 0.05
EXACT_UP_TO = 16  # seeds; with more, that many random sign patterns replace all patterns
_TIE = 1e-12  # relative; sums that differ by less are equal up to rounding
_ROWS = 256  # per chunk, to bound memory


@dataclass(frozen=True)
class SeedSummary:
    """Number of seeds, mean, sample standard deviation (n - 1) and Student's 95 % interval of the mean; NaN where undefined."""

    n: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray


def summarize_seeds(values: np.ndarray) -> SeedSummary:
    """Summarize values [..., seeds]; every field of the result is [...]."""
    values = np.asarray(values, dtype=float)
    n = np.isfinite(values).sum(-1)
    found = {field.name: np.full(n.shape, np.nan) for field in fields(SeedSummary) if field.name != "n"}
    for where, rows in _complete(values):
        found["mean"][where] = rows.mean(-1)
        if rows.shape[-1] > 1:
            found["std"][where] = rows.std(-1, ddof=1)
            found["ci_low"][where], found["ci_high"][where] = t_interval(rows)
    return SeedSummary(n, **{name: values[()] for name, values in found.items()})


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Student's 95 % interval of the mean of each row of values [m, n], n >= 2, all finite: low [m], high [m]."""
    n = values.shape[-1]
    half = stdtrit(n - 1, 1 - ALPHA / 2) * values.std(-1, ddof=1) / math.sqrt(n)
    return values.mean(-1) - half, values.mean(-1) + half


def sign_flip_p(differences: np.ndarray) -> np.ndarray:
    """Two-sided sign-flip test that paired differences are symmetric about 0: differences [..., seeds] to p [...].

    Exact for up to EXACT_UP_TO pairs, with the p-values of scipy.stats.permutation_test(permutation_type="samples"). NaN
    without pairs; 1 for a single pair, whose signs are equally likely.
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
    """Sign patterns [k, n], and by how much the observed pattern raises the counts.

    A pattern and its opposite have the same |sum|, so the last sign is never flipped. Random patterns do not include the
    observed one, which adds 1.
    """
    if n > EXACT_UP_TO:
        return np.random.default_rng(0).choice([-1.0, 1.0], (2 ** (EXACT_UP_TO - 1) - 1, n)), 1
    return 1.0 - 2 * (np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1), 0


def _as_extreme(differences: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """For each row of differences [m, n], the number of patterns whose |sum| is at least that of the row."""
    least = np.abs(differences.sum(-1)) - _TIE * np.abs(differences).sum(-1)
    return (np.abs(differences @ signs.T) >= least[:, None]).sum(-1)


def smallest_p(n: int) -> float:
    """The smallest two-sided p that n paired seeds can give: 2 of 2^n patterns, of at most 2^EXACT_UP_TO."""
    return min(1.0, 2 / 2 ** min(n, EXACT_UP_TO))


def seeds_needed(alpha: float = ALPHA) -> int | None:
    """The smallest number of paired seeds with which p < alpha is possible; None if none suffices."""
    return next((n for n in range(1, EXACT_UP_TO + 1) if smallest_p(n) < alpha), None)


def holm(p_values: np.ndarray, tests: int | None = None) -> np.ndarray:
    """Holm's step-down correction of p_values [m]; NaN is not a test and stays NaN.

    tests: the number of tests, if p_values were selected from more.
    """
    p_values = np.asarray(p_values, dtype=float)
    corrected = np.full_like(p_values, np.nan)
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]
    factors = (tests or order.size) - np.arange(order.size)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return corrected


def bold_rows(values: np.ndarray, higher: bool, rule: Bold, digits: int = DIGITS) -> np.ndarray:
    """The rows of a block that are set in bold: values [rows, seeds] to bool [rows].

    best: the best mean, and means with the same digits. tested: see `rows_not_worse`. No row if less than two have a result.
    """
    if rule == "tested":
        return rows_not_worse(values, higher)
    means = np.round(summarize_seeds(values).mean, digits) * (-1 if higher else 1)
    compared = rule == "best" and np.isfinite(means).sum() > 1
    return means == np.nanmin(means) if compared else np.zeros(len(means), dtype=bool)


def rows_not_worse(values: np.ndarray, higher: bool) -> np.ndarray:
    """The best row of a block and all rows that are not significantly worse: values [rows, seeds] to bool [rows].

    Each row is tested against the row with the best mean, paired by seed. Since that row was selected by its mean, Holm's
    correction runs over all pairs of rows; a correction over the performed tests alone gives a false positive in one of eight
    blocks of 9 equal rows. All False if no row is significantly worse, or if a row has too few seeds for significance. Rows
    without a result are ignored.
    """
    costs = np.asarray(values, dtype=float) * (-1 if higher else 1)
    n, none = np.isfinite(costs).sum(-1), np.zeros(len(costs), dtype=bool)
    chosen = n > 0
    if chosen.sum() < 2:
        return none
    first = np.divide(np.nansum(costs, axis=-1), n, out=np.full(len(n), np.inf), where=chosen).argmin()
    others = chosen & (np.arange(len(n)) != first)
    differences = costs[others] - costs[first]
    pairs = math.comb(int(chosen.sum()), 2)
    if smallest_p(np.isfinite(differences).sum(-1).min()) * pairs >= ALPHA:
        return none
    worse = (holm(sign_flip_p(differences), pairs) < ALPHA) & (np.nansum(differences, axis=-1) > 0)
    chosen[others] = ~worse
    return chosen if worse.any() else none


def _complete(values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Group sets of seeds by their number n >= 1: their position, bool [...], and their values without gaps [m, n]."""
    finite = np.isfinite(values)
    n = finite.sum(-1)
    for count in np.unique(n[n > 0]):
        where = n == count
        yield where, values[where][finite[where]].reshape(-1, count)
