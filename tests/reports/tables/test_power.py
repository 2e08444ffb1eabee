"""`tiekd power`: seeds and device-hours that a difference needs."""

import json

import numpy as np
import pytest
from scipy import stats
from support.made_store import CELLS, GROUND_TRUTH, fill

from reports.tables.power import seeds_for
from reports.tables.seed_statistics import seeds_needed


@pytest.mark.parametrize(("difference", "alpha"), [(1.0, 0.05), (0.5, 0.05), (1.0, 0.05 / 8)])
def test_the_power_is_that_of_simulated_studies(difference, alpha):
    n = seeds_for(difference, 1.0, alpha, 0.8)

    def share(n: int) -> float:
        draws = np.random.default_rng(n).standard_normal((20_000, n)) + difference
        return float((stats.ttest_1samp(draws, 0, axis=1).pvalue < alpha).mean())

    assert share(n - 1) < 0.8 + 0.01  # of 20,000 studies
    assert share(n) > 0.8 - 0.01


def test_the_exact_test_needs_its_sign_patterns_however_large_the_difference():
    assert seeds_for(100.0, 1.0, 0.05, 0.8) == seeds_needed(0.05) == 6
    assert seeds_for(1.0, 0.0, 0.05 / 8, 0.8) == seeds_needed(0.05 / 8)
    assert seeds_for(0.001, 1.0, 0.05, 0.8) is None


def test_rows_have_their_spread_seeds_and_hours(tiekd, demo):
    outcome = tiekd("power", "demo", "--store", demo.uri, "--difference", "0.001", "--json")
    assert outcome.code == 0, outcome.err
    ((name, rows),) = json.loads(outcome.out).items()
    assert name == "demo, kitti, protocol adabins-kb-garg"
    by_row = {row["row"].split(", loss")[0]: row for row in rows}
    ssim_si = next(row for label, row in by_row.items() if "SSIM, SI" in label)
    # The made-up metrics of a row and its Baseline differ by the same for every seed.
    assert (ssim_si["pairs"], ssim_si["sd"]) == (2, pytest.approx(0, abs=1e-12))
    assert ssim_si["seeds"] == seeds_needed(0.05 / 7)
    assert ssim_si["device_hours"] == pytest.approx(ssim_si["seeds"] * 2 * 60 / 3600)
    assert "device-hours" in tiekd("power", "demo", "--store", demo.uri, "--difference", "0.001").out


def test_mistakes_are_one_line(tiekd, store):
    fill(store, [GROUND_TRUTH, *CELLS[1:2]], 1, {"name": "one"})
    for words, message in (
        (["one", "--difference", "0.1"], "no row and its Baseline have two seeds in common"),
        (["onne", "--difference", "0.1"], "did you mean one"),
        (["one", "--difference", "0"], "--difference: must be above 0, got 0"),
        (["one", "--difference", "0.1", "--metric", "rsme"], "did you mean rmse"),
        (["one", "--difference", "0.1", "--power", "80"], "--power: must be between 0 and 1, got 80"),
    ):
        outcome = tiekd("power", *words, "--store", store.uri)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert message in outcome.err
