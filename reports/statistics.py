"""What repeated training under several seeds says about one number; test images are never resampled here.

With n paired seeds the sign-flip test has 2^n equally likely outcomes, so its smallest two-sided p is 2 / 2^n.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

ALPHA = 0.05
RESAMPLES = 9999
EXACT_UP_TO = 13  # 2^13 sign patterns are enumerated; more seeds draw RESAMPLES of them


@dataclass(frozen=True)
class Spread:
    """Mean over seeds with its sample standard deviation (n - 1) and the interval of the mean; NaN where undefined."""

    n: int
    mean: float
    std: float
    ci_low: float
    ci_high: float


def spread(values: np.ndarray) -> Spread:
    """values [n], one per seed, finite."""
    values = np.asarray(values, dtype=float)
    mean = float(values.mean()) if values.size else math.nan
    std = float(values.std(ddof=1)) if values.size > 1 else math.nan
    return Spread(values.size, mean, std, *mean_interval(values))


def mean_interval(values: np.ndarray, level: float = 1 - ALPHA) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of the mean of values [n]; NaN below 3 values."""
    values = np.asarray(values, dtype=float)
    if values.size < 3:
        return math.nan, math.nan
    if np.ptp(values) == 0:  # every resample is the sample: the bootstrap has no acceleration to estimate
        return float(values[0]), float(values[0])
    interval = stats.bootstrap(
        (values,),
        np.mean,
        vectorized=True,
        confidence_level=level,
        n_resamples=RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def paired_differences(values: pd.Series, baseline: pd.Series) -> np.ndarray:
    """values - baseline at the seeds that both have; both are indexed by seed.

    A seed that occurs twice has no one partner, so it is refused rather than crossed.
    """
    for series in (values, baseline):
        if not series.index.is_unique:
            raise ValueError(f"seeds must be distinct to be paired, got {series.index.tolist()}")
    return (values - baseline).dropna().to_numpy(dtype=float)


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of "the paired differences [n] are symmetric about 0", by flipping their signs.

    Exact up to EXACT_UP_TO pairs. NaN without pairs; with one pair both signs are equally likely, so p is 1.
    """
    differences = np.asarray(differences, dtype=float)
    if differences.size < 2:
        return 1.0 if differences.size else math.nan
    return float(
        stats.permutation_test(
            (differences,),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf if differences.size <= EXACT_UP_TO else RESAMPLES,
            rng=np.random.default_rng(0),
        ).pvalue
    )


def smallest_p(n: int) -> float:
    """The smallest two-sided p that n paired seeds can give."""
    return min(1.0, 2 / 2**n)


def seeds_needed(alpha: float = ALPHA) -> int:
    """The fewest paired seeds with which p < alpha is possible."""
    return math.floor(math.log2(2 / alpha)) + 1


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of p_values [m]; NaN are not tests and stay NaN."""
    p_values = np.asarray(p_values, dtype=float)
    corrected = np.full_like(p_values, np.nan)
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]
    factors = np.arange(order.size, 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return corrected
