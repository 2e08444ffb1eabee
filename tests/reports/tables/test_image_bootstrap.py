"""Intervals over test images against SciPy, hand-computed values and simulations."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports.loading.schema import METRICS
from reports.tables.image_bootstrap import (
    COVERAGE,
    FEWEST_GROUPS,
    RESAMPLES,
    cluster_interval,
    image_intervals,
    interval_coverage,
)


def made_groups(runs: dict[str, np.ndarray], counts: list[int]) -> pd.DataFrame:
    """One row per run and group, from each run's mean of every metric in each group."""
    rows = [
        {"run_id": run_id, "group": f"drive_{number}", "n": n, "n_blank": 0} | dict.fromkeys(METRICS, mean * n)
        for run_id, means in runs.items()
        for number, (mean, n) in enumerate(zip(means, counts, strict=True))
    ]
    return pd.DataFrame(rows)


COUNTS = [4, 9, 2, 7, 5, 3]
MEANS = np.array([0.1, 0.3, 0.2, 0.15, 0.4, 0.25])


def interval(means: np.ndarray, counts: list[int] = COUNTS) -> tuple[float, float]:
    low, high = cluster_interval((means * counts)[None], np.array(counts))
    return float(low[0]), float(high[0])


def ratio_and_error(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """A ratio of sums over groups, and its linearized standard error."""
    ratio = sums.sum() / counts.sum()
    return ratio, math.sqrt(sum((s - ratio * n) ** 2 for s, n in zip(sums, counts, strict=True))) / counts.sum()


def test_the_interval_is_the_textbooks_bootstrap_t():
    counts = np.array(COUNTS)
    sums = MEANS * counts
    mean, error = ratio_and_error(sums, counts)
    draw, studentized = np.random.default_rng(0), []
    for chosen in draw.integers(0, len(counts), (RESAMPLES, len(counts))):
        other, its_error = ratio_and_error(sums[chosen], counts[chosen])
        studentized.append((other - mean) / its_error if its_error > 1e-12 else math.copysign(math.inf, other - mean))
    low, high = np.quantile(studentized, [0.975, 0.025])
    assert interval(MEANS) == pytest.approx((mean - low * error, mean - high * error))


def test_groups_of_one_mean_have_an_interval_without_width():
    assert interval(np.full(6, 0.3)) == pytest.approx((0.3, 0.3))


def test_the_seeds_of_a_cell_are_averaged_before_images_are_drawn():
    groups = made_groups({"a": MEANS + 0.1, "b": MEANS - 0.1, "c": MEANS}, COUNTS)
    found = image_intervals(groups, [["a", "b"], ["c"]], [None, None])
    assert found.n_groups.tolist() == [6, 6]
    for number in range(2):
        assert (found.low[number, 0], found.high[number, 0]) == pytest.approx(interval(MEANS))
    assert found.low.shape == (2, len(METRICS))
    assert np.isnan(found.baseline_low).all()


def test_differences_use_the_same_resamples_for_both_cells():
    other = MEANS**2
    groups = made_groups({"cell": MEANS, "baseline": other, "level": MEANS + 0.5}, COUNTS)
    found = image_intervals(groups, [["cell"], ["level"]], [(["cell"], ["baseline"]), (["level"], ["cell"])])
    assert (found.baseline_low[0, 0], found.baseline_high[0, 0]) == pytest.approx(interval(MEANS - other))
    # worse by the same on every image: whichever images are drawn, the difference stays
    assert (found.baseline_low[1, 0], found.baseline_high[1, 0]) == pytest.approx((0.5, 0.5))


def test_every_metric_has_its_own_interval():
    groups = made_groups({"a": MEANS}, COUNTS)
    groups["rmse"] = (1 - MEANS) * COUNTS
    found = image_intervals(groups, [["a"]], [None])
    rmse = METRICS.index("rmse")
    assert (found.low[0, rmse], found.high[0, rmse]) == pytest.approx(interval(1 - MEANS))
    assert (found.low[0, 0], found.high[0, 0]) == pytest.approx(interval(MEANS))


def test_runs_evaluated_on_different_images_have_no_interval():
    fewer = made_groups({"b": MEANS}, [*COUNTS[:5], 1])
    groups = pd.concat([made_groups({"a": MEANS}, COUNTS), fewer])
    found = image_intervals(groups, [["a", "b"], ["a"], ["b"]], [None, (["a"], ["b"]), None])
    assert found.n_groups.tolist() == [0, 6, 6]
    assert np.isnan(found.low[0]).all()
    assert np.isnan(found.baseline_low[1]).all()
    assert (found.low[2, 0], found.high[2, 0]) == pytest.approx(interval(MEANS, [*COUNTS[:5], 1]))


def test_groups_without_valid_ground_truth_are_not_drawn():
    groups = made_groups({"a": np.array([*MEANS, 0.0])}, [*COUNTS, 0])
    found = image_intervals(groups, [["a"]], [None])
    assert found.n_groups.tolist() == [6]
    assert (found.low[0, 0], found.high[0, 0]) == pytest.approx(interval(MEANS))


def test_too_few_groups_have_no_interval_but_are_counted():
    groups = made_groups({"a": MEANS[: FEWEST_GROUPS - 1], "b": MEANS[:4]}, COUNTS[: FEWEST_GROUPS - 1])
    found = image_intervals(groups, [["a"]], [(["a"], ["b"])])
    assert found.n_groups.tolist() == [FEWEST_GROUPS - 1]
    assert np.isnan([found.low, found.high, found.baseline_low, found.baseline_high]).all()


def test_cells_without_runs_or_image_rows_have_no_interval():
    groups = made_groups({"a": MEANS}, COUNTS)
    found = image_intervals(groups, [[], ["unknown"], ["a", "unknown"]], [None] * 3)
    assert found.n_groups.tolist() == [0, 0, 0]
    assert np.isnan(found.low).all()
    assert np.isnan(image_intervals(groups.iloc[:0], [[]], [None]).low).all()


@pytest.mark.parametrize("n_groups", sorted(COVERAGE))
def test_resampling_groups_has_the_stated_coverage_and_resampling_images_has_not(n_groups):
    rng, draws, n_images = np.random.default_rng(n_groups), 1000, 20
    of_group = np.repeat(rng.normal(size=(draws, n_groups)), n_images, axis=1)
    values = of_group + rng.normal(size=of_group.shape)  # images of a group correlate by a half
    sums = values.reshape(draws, n_groups, n_images).sum(-1)

    def held(low: np.ndarray, high: np.ndarray) -> int:
        return int(((low <= 0) & (high >= 0)).sum())

    least, most = stats.binom(draws, COVERAGE[n_groups][1]).interval(0.999)
    assert least <= held(*cluster_interval(sums, np.full(n_groups, n_images))) <= most
    assert held(*cluster_interval(values, np.ones(values.shape[1], dtype=int))) < 0.6 * draws


def test_coverage_is_that_of_the_next_smaller_simulated_number_of_groups():
    assert [interval_coverage(n) for n in (FEWEST_GROUPS, 9, 10, 28, 215)] == [
        *[(0.88, 0.94)] * 2,
        *[(0.91, 0.94)] * 2,
        (0.92, 0.95),
    ]
