"""Seeds until rows are decided: a test of each row against its baseline after every seed, with a bound on all errors together.

A look at n seeds has p_n, that of Student's paired t test, and a weight w_n. The smallest p_n / w_n of a row has a known
distribution if there is no difference, which turns it into a p value that holds for any number of looks. Holm's correction over
the rows keeps the probability of any wrong decision at alpha. A row also ends if its t promises no decision at the last look
(futility): that only spares seeds, since the p value does not rely on it.

The differences are taken as normal; benchmarks/sequential.py measures errors, power and seeds, also for other distributions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from ablations.planning.seeds import SeedsConfig

DRAWS = 200_000  # of studies without a difference
PROMISE, PROMISE_LOOKS, PROMISE_POWER = 2.7, 6, 0.7  # of t at the last look: at most, after so many looks, and how it rises

State = Literal["different", "hopeless", "undecided", "open", "no result"]


@dataclass(frozen=True)
class RowTest:
    """The test of one row. p: after Holm's correction; low, high: an interval that holds for all looks and rows together.

    state: different (p < alpha), hopeless (ended for futility), undecided (at the last look), open (needs more seeds), or no
    result (a seed failed, or there is no baseline).
    """

    n_seeds: int
    state: State
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan

    def to_dict(self) -> dict[str, Any]:
        return {key: None if value != value else value for key, value in asdict(self).items()}


def look_at_rows(differences: Mapping[str, Sequence[float]], config: SeedsConfig) -> dict[str, RowTest]:
    """Replay the looks at all rows. differences: row - baseline by seed, as far as computed; NaN for a seed without a result.

    All rows that are not decided are looked at together, so that the result does not depend on the order of computation.
    """
    smallest = dict.fromkeys(differences, math.inf)  # p / weight
    ended: dict[str, tuple[int, State]] = {}
    weights = look_weights(config.min, config.max)
    for n in range(config.min, config.max + 1):
        active = [row for row in differences if row not in ended]
        for row in active:
            if np.isnan(differences[row][:n]).any():
                ended[row] = n, "no result"
        active = [row for row in active if row not in ended]
        if any(len(differences[row]) < n for row in active):
            ended |= dict.fromkeys(active, (n, "open"))
            break
        ts = {row: _paired_t(differences[row][:n]) for row in active}
        for row, t in ts.items():
            smallest[row] = min(smallest[row], 2 * float(stdtr(n - 1, -abs(t))) / weights[n])
        p_values = _holm({row: adjusted_p(value, config.min, config.max) for row, value in smallest.items()})
        for row, t in ts.items():
            if p_values[row] < config.alpha:
                ended[row] = n, "different"
            elif n == config.max:
                ended[row] = n, "undecided"
            elif abs(t) * math.sqrt(config.max / n) < _promise(n - config.min):
                ended[row] = n, "hopeless"
    p_values = _holm({row: adjusted_p(value, config.min, config.max) for row, value in smallest.items()})
    for row, (n, state) in ended.items():  # since then, others have been decided, which Holm's method counts
        if state == "hopeless" and p_values[row] < config.alpha:
            ended[row] = n, "different"
    level = critical_value(config.alpha / max(len(differences), 1), config.min, config.max)
    return {row: _row_test(differences[row], *end, p_values[row], level, weights) for row, end in ended.items()}


def look_weights(first: int, last: int) -> dict[int, float]:
    """The weight of each look by its number of seeds: late looks get more, since few seeds rarely decide. The sum is 1."""
    raw = {n: float((n - first + 1) ** 2) for n in range(first, last + 1)}
    return {n: weight / sum(raw.values()) for n, weight in raw.items()}


def adjusted_p(smallest: float, first: int, last: int) -> float:
    """The probability of so small a p / weight at any look if there is no difference."""
    found = _without_difference(first, last)
    return min(1.0, float(1 + np.searchsorted(found, smallest, side="right")) / (len(found) + 1))


def critical_value(alpha: float, first: int, last: int) -> float:
    """The p / weight that is reached with probability alpha if there is no difference."""
    return float(np.quantile(_without_difference(first, last), alpha))


@lru_cache(maxsize=4)
def _without_difference(first: int, last: int) -> np.ndarray:
    """The smallest p / weight of simulated rows without a difference, sorted."""
    draws = np.random.default_rng(0)
    smallest, weights = np.full(DRAWS, np.inf), look_weights(first, last)
    total, squares = np.zeros(DRAWS), np.zeros(DRAWS)
    for n in range(1, last + 1):
        values = draws.standard_normal(DRAWS)
        total += values
        squares += values**2
        if n in weights:
            t = total / np.sqrt(n * (squares - total**2 / n) / (n - 1))
            smallest = np.minimum(smallest, 2 * stdtr(n - 1, -np.abs(t)) / weights[n])
    return np.sort(smallest)


def promises_gain(gains: Sequence[float], first: int, last: int) -> bool:
    """Whether a row goes on that only matters if it is better, by the rule of futility for its side.

    gains: of each seed so far, at least two; larger is better. first, last: seeds at the first and the last look.
    """
    return _paired_t(gains) * math.sqrt(last / len(gains)) >= _promise(len(gains) - first)


def _promise(looks_before: int) -> float:
    """The least t, projected to the last look, with which a row goes on."""
    return PROMISE * min(1.0, looks_before / PROMISE_LOOKS) ** PROMISE_POWER


def _paired_t(differences: Sequence[float]) -> float:
    values = np.asarray(differences)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    if error == 0:
        return math.copysign(math.inf, mean) if mean else 0.0
    return mean / error


def _holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction."""
    found, largest = {}, 0.0
    for number, (row, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - number)))
        found[row] = largest
    return found


def _row_test(
    differences: Sequence[float], n: int, state: State, p: float, level: float, weights: Mapping[int, float]
) -> RowTest:
    """The result of a row at n seeds; an open one is shown at the last look that it had."""
    shown = n - 1 if state == "open" else n
    if state == "no result" or shown not in weights:
        return RowTest(n, state)
    values = np.asarray(differences[:shown])
    half = float(stdtrit(shown - 1, 1 - level * weights[shown] / 2)) * values.std(ddof=1) / math.sqrt(shown)
    mean = float(values.mean())
    return RowTest(n, state, mean, mean - half, mean + half, p)
