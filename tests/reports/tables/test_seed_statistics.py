"""Statistics over seeds against SciPy, hand-computed values and simulations."""

import math

import numpy as np
import pytest
from scipy import stats

from reports.tables.seed_statistics import (
    ALPHA,
    EXACT_UP_TO,
    holm,
    rows_not_worse,
    seeds_needed,
    sign_flip_p,
    smallest_p,
    summarize_seeds,
)


def binomial(draws: int, share: float) -> tuple[float, float]:
    """The range that contains 99.9 % of simulations."""
    return stats.binom(draws, share).interval(0.999)


def test_spread_of_hand_computed_values():
    result = summarize_seeds([1.0, 2.0, 6.0])
    assert (result.n, result.mean) == (3, 3.0)
    assert result.std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))


def test_one_seed_has_no_spread_and_no_seed_has_no_mean():
    assert math.isnan(summarize_seeds([0.1]).std)
    assert math.isnan(summarize_seeds([0.1]).ci_low)
    assert summarize_seeds([]).n == 0
    assert math.isnan(summarize_seeds([]).mean)


def test_missing_seeds_do_not_affect_others():
    values = np.random.default_rng(1).normal(size=(4, 3, 5))
    values[1, 2, [0, 3]] = values[2, 0] = np.nan
    together = summarize_seeds(values)
    assert together.n.tolist() == [[5, 5, 5], [5, 5, 3], [0, 5, 5], [5, 5, 5]]
    for place in np.ndindex(4, 3):
        alone = summarize_seeds(values[place][np.isfinite(values[place])])
        assert [field[place] for field in vars(together).values()] == pytest.approx(list(vars(alone).values()), nan_ok=True)
    p_values = sign_flip_p(values)
    assert p_values[1, 2] == sign_flip_p(values[1, 2, [1, 2, 4]])
    assert math.isnan(p_values[2, 0])


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_t_interval_equals_scipys(n):
    values = np.random.default_rng(n).normal(size=n)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    result = summarize_seeds(values)
    assert (result.ci_low, result.ci_high) == pytest.approx(tuple(expected))


def test_identical_values_have_intervals_of_width_zero():
    result = summarize_seeds([0.1, 0.1, 0.1])
    assert (result.ci_low, result.ci_high) == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize("n", [3, 5, 10, 20])
def test_intervals_of_normal_values_have_their_nominal_coverage(n):
    draws = 2000
    found = summarize_seeds(np.random.default_rng(n).normal(size=(draws, n)))
    least, most = binomial(draws, 1 - ALPHA)
    assert least <= ((found.ci_low <= 0) & (found.ci_high >= 0)).sum() <= most


@pytest.mark.parametrize("n", [2, 3, 6])
def test_differences_of_one_sign_reach_the_smallest_p(n):
    assert sign_flip_p(np.arange(1, n + 1)) == pytest.approx(smallest_p(n))
    assert sign_flip_p(-np.arange(1, n + 1)) == pytest.approx(smallest_p(n))


def test_sign_flip_of_hand_enumerated_patterns():
    # |sums| of the 8 patterns of (3, 1, -2): 2, 6, 4, 0, 0, 4, 6, 2; six are at least |2|
    assert sign_flip_p([3.0, 1.0, -2.0]) == pytest.approx(6 / 8)


@pytest.mark.parametrize("n", [2, 5, 11])
def test_sign_flip_p_equals_scipys_permutation_test(n):
    differences = np.random.default_rng(n).normal(0.4, 1, size=(20, n))
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", axis=-1, n_resamples=np.inf, vectorized=True
    )
    assert sign_flip_p(differences) == pytest.approx(expected.pvalue)


def test_sign_flip_without_and_with_one_pair_or_without_any_difference():
    assert math.isnan(sign_flip_p([]))
    assert sign_flip_p([0.3]) == smallest_p(1) == 1.0
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1.0


def test_sums_that_differ_only_by_rounding_are_ties():
    assert sign_flip_p([0.1 + 0.2, -0.3]) == 1.0
    assert sign_flip_p([0.1, 0.1, 0.1]) == smallest_p(3)


def test_sign_flip_with_many_seeds_samples_the_patterns():
    n = EXACT_UP_TO + 4
    assert sign_flip_p(np.ones(n)) == smallest_p(n)
    differences = np.random.default_rng(0).normal(0.3, 1, n)
    options = {"permutation_type": "samples", "vectorized": True, "n_resamples": 30_000, "rng": np.random.default_rng(1)}
    expected = stats.permutation_test((differences,), np.mean, **options)
    assert sign_flip_p(differences) == pytest.approx(expected.pvalue, abs=5 * math.sqrt(0.25 / 30_000))


@pytest.mark.parametrize("n", [6, 7, 10])
def test_sign_flip_keeps_its_false_positive_rate(n):
    draws = 2000
    p_values = sign_flip_p(np.random.default_rng(n).standard_t(3, size=(draws, n)))
    attainable = math.floor(ALPHA * 2**n / 2) * 2 / 2**n  # p is a multiple of 2 / 2^n
    low, high = binomial(draws, attainable)
    assert low <= (p_values < ALPHA).sum() <= high


def test_seeds_needed_is_the_first_number_with_p_below_alpha():
    assert seeds_needed(0.05) == 6
    assert smallest_p(6) < 0.05 <= smallest_p(5)
    assert seeds_needed(smallest_p(EXACT_UP_TO)) is None


def test_holm_of_hand_computed_values():
    corrected = holm([0.01, 0.04, math.nan, 0.03])
    assert corrected[[0, 1, 3]].tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(corrected[2])
    assert holm([0.9, 0.8]).tolist() == pytest.approx([1.0, 1.0])
    assert holm([0.01, 0.04], tests=6).tolist() == pytest.approx([0.06, 0.2])


def test_holm_keeps_the_false_alarm_rate_of_a_table_below_five_percent():
    draws, rows = 1000, 9
    values = np.random.default_rng(2).normal(size=(draws, rows + 1, 10))
    p_values = sign_flip_p(values[:, 1:] - values[:, :1])
    alarms = sum((holm(p) < ALPHA).any() for p in p_values)
    assert 0 < alarms <= binomial(draws, ALPHA)[1]
    assert (p_values < ALPHA).any(-1).sum() > binomial(draws, ALPHA)[1]  # without the correction


def separate(gaps: list[float], seeds: int) -> np.ndarray:
    """Rows with `gaps` between their means, in standard deviations over seeds."""
    return np.random.default_rng(4).normal(size=(len(gaps), seeds)) + np.array(gaps)[:, None]


def test_the_best_row_and_rows_not_significantly_worse_are_best():
    values = separate([0.0, 0.0, 9.0], seeds=9)
    assert rows_not_worse(values, higher=False).tolist() == [True, True, False]
    assert rows_not_worse(-values, higher=True).tolist() == [True, True, False]
    assert rows_not_worse(values, higher=True).tolist() == [False, False, True]


def test_no_row_is_best_if_none_is_significantly_worse():
    assert not rows_not_worse(separate([0.0, 0.0, 0.0], seeds=9), higher=False).any()
    assert not rows_not_worse(np.ones((3, 9)), higher=False).any()


def test_no_row_is_best_with_too_few_seeds_for_all_pairs():
    # five rows make ten pairs: 2 / 2^n < 0.05 / 10 takes 9 seeds; the four tests made alone would take 8
    gaps = [0.0, 9.0, 9.0, 9.0, 9.0]
    assert not rows_not_worse(separate(gaps, seeds=8), higher=False).any()
    assert rows_not_worse(separate(gaps, seeds=9), higher=False).tolist() == [True, False, False, False, False]


def test_no_row_is_best_if_one_has_too_few_seeds():
    values = separate([0.0, 9.0, 9.0], seeds=9)
    values[2, 4:] = np.nan
    assert not rows_not_worse(values, higher=False).any()


def test_a_row_that_is_better_on_shared_seeds_is_not_worse():
    values = np.array([[1.0] * 8 + [-100.0], [0.0] * 8 + [math.nan]])  # one seed alone makes the first row's mean the best
    assert not rows_not_worse(values, higher=False).any()


def test_rows_without_values_are_ignored():
    values = separate([0.0, 0.0, 9.0], seeds=6)
    values[1] = np.nan
    assert rows_not_worse(values, higher=False).tolist() == [True, False, False]
    assert not rows_not_worse(values[:2], higher=False).any()
    assert not rows_not_worse(values[1:2], higher=False).any()


def test_equal_rows_are_best_in_at_most_five_percent_of_blocks():
    draws = 500
    blocks = np.random.default_rng(3).normal(size=(draws, 5, 9))
    assert 0 < sum(rows_not_worse(block, higher=False).any() for block in blocks) <= binomial(draws, ALPHA)[1]
