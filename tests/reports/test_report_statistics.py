"""Statistics over seeds against scipy, hand-computed values and simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports.statistics import holm, mean_interval, paired_differences, seeds_needed, sign_flip_p, smallest_p, spread


def test_spread_of_hand_computed_values():
    result = spread([1.0, 2.0, 6.0])
    assert (result.n, result.mean) == (3, 3.0)
    assert result.std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert result.ci_low < 3.0 < result.ci_high


def test_one_value_has_no_spread_and_none_has_no_mean():
    assert math.isnan(spread([0.1]).std)
    assert math.isnan(spread([0.1, 0.2]).ci_low)
    assert spread([]).n == 0
    assert math.isnan(spread([]).mean)


def test_interval_is_the_bca_bootstrap_of_scipy():
    values = np.random.default_rng(3).normal(size=8)
    expected = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=9999, rng=np.random.default_rng(0))
    assert mean_interval(values) == pytest.approx(tuple(expected.confidence_interval))


def test_identical_values_have_an_interval_of_no_width():
    assert mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_differences_pair_by_seed_and_leave_out_the_unpaired():
    ours = pd.Series({0: 1.0, 1: 2.0, 3: 9.0})
    baseline = pd.Series({1: 0.5, 0: 0.25, 2: 7.0})
    assert paired_differences(ours, baseline).tolist() == [0.75, 1.5]


def test_a_repeated_seed_is_refused():
    with pytest.raises(ValueError, match="distinct"):
        paired_differences(pd.Series([1.0, 2.0], index=[0, 0]), pd.Series({0: 1.0}))


@pytest.mark.parametrize("n", [2, 3, 6])
def test_differences_of_one_sign_reach_the_smallest_p(n):
    assert sign_flip_p(np.arange(1, n + 1)) == pytest.approx(smallest_p(n))
    assert sign_flip_p(-np.arange(1, n + 1)) == pytest.approx(smallest_p(n))


def test_sign_flip_of_hand_enumerated_patterns():
    # |sums| of the 8 patterns of (3, 1, -2): 2, 6, 4, 0, 0, 4, 6, 2; six are at least |2|
    assert sign_flip_p([3.0, 1.0, -2.0]) == pytest.approx(6 / 8)


def test_sign_flip_without_and_with_one_pair_or_without_any_difference():
    assert math.isnan(sign_flip_p([]))
    assert sign_flip_p([0.3]) == smallest_p(1) == 1.0
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1.0


def test_sign_flip_with_many_seeds_samples_the_patterns():
    assert sign_flip_p(np.ones(20)) < 1e-3


def test_sign_flip_keeps_its_false_positive_rate():
    rng = np.random.default_rng(0)
    p_values = np.array([sign_flip_p(rng.standard_t(3, size=7)) for _ in range(1000)])
    rejected = int((p_values < 0.05).sum())
    # P(p <= 6/128) = 6/128 exactly when the null holds; 1000 draws stay within the binomial's 99.9 % range
    low, high = stats.binom(1000, 6 / 128).interval(0.999)
    assert low <= rejected <= high


def test_seeds_needed_is_where_p_below_alpha_becomes_possible():
    assert seeds_needed(0.05) == 6
    assert smallest_p(6) < 0.05 <= smallest_p(5)


def test_holm_of_hand_computed_values():
    corrected = holm([0.01, 0.04, math.nan, 0.03])
    assert corrected[[0, 1, 3]].tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(corrected[2])
    assert holm([0.9, 0.8]).tolist() == pytest.approx([1.0, 1.0])
