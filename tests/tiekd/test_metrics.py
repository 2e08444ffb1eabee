import math

import numpy as np
import pytest
import torch

from tiekd.metrics import AGREEMENT, AGREEMENT_METRICS, METRICS, agreement_metrics, depth_metrics, mean_metrics

NAMES = {"delta1": "a1", "delta2": "a2", "delta3": "a3", "log10": "log_10"}  # those that the released code calls otherwise


def metrics_of(pred, gt, mask=None) -> dict[str, float]:
    gt = torch.tensor(gt)
    return depth_metrics(torch.tensor(pred), gt, gt > 0 if mask is None else torch.tensor(mask))


def test_four_pixels_by_hand():
    metrics = metrics_of(pred=[1.0, 3.0, 2.0, 8.0], gt=[1.0, 2.0, 4.0, 5.0])
    logs = [0, math.log(1.5), math.log(0.5), math.log(1.6)]
    mean, square = sum(logs) / 4, sum(e * e for e in logs) / 4
    assert metrics == pytest.approx(
        {
            "abs_rel": (0 + 1 / 2 + 2 / 4 + 3 / 5) / 4,
            "sq_rel": (0 + 1 / 2 + 4 / 4 + 9 / 5) / 4,
            "rmse": math.sqrt((0 + 1 + 4 + 9) / 4),
            "rmse_log": math.sqrt(square),
            "log10": (math.log10(1.5) + math.log10(2) + math.log10(1.6)) / 4,
            "silog": 100 * math.sqrt(square - mean**2),
            "delta1": 1 / 4,  # ratios 1, 1.5, 2, 1.6 against 1.25, 1.5625, 1.953
            "delta2": 2 / 4,
            "delta3": 3 / 4,
        }
    )
    assert tuple(metrics) == METRICS


def test_a_ratio_at_the_threshold_is_not_below_it():
    assert metrics_of(pred=[5.0], gt=[4.0])["delta1"] == 0


def test_a_perfect_prediction():
    metrics = metrics_of(pred=[1.0, 20.0, 0.3], gt=[1.0, 20.0, 0.3])
    assert metrics == dict.fromkeys(METRICS, 0.0) | {"delta1": 1, "delta2": 1, "delta3": 1}


def test_pixels_outside_the_mask_change_nothing():
    masked = metrics_of(pred=[2.0, 999.0, 5.0], gt=[1.0, 7.0, 4.0], mask=[True, False, True])
    assert masked == metrics_of(pred=[2.0, 5.0], gt=[1.0, 4.0])


def test_silog_leaves_a_global_scale_out():
    gt = np.random.default_rng(0).uniform(1, 80, 100)
    pred = gt * np.random.default_rng(1).uniform(0.8, 1.2, 100)
    once, thrice = (depth_metrics(p, gt, gt > 0) for p in (pred, 3 * pred))
    assert thrice["silog"] == pytest.approx(once["silog"], rel=1e-9)
    assert thrice["rmse_log"] > 2 * once["rmse_log"]


def test_silog_of_a_constant_factor_is_zero_and_never_nan():
    gt = np.random.default_rng(0).uniform(1, 80, 1000)
    # The root of what float64 leaves of a difference of two squares near 2.6.
    assert depth_metrics(5 * gt, gt, gt > 0)["silog"] == pytest.approx(0, abs=1e-5)


def test_an_image_without_a_valid_pixel_has_no_metrics():
    metrics = metrics_of(pred=[1.0, 2.0], gt=[0.0, 0.0])
    assert tuple(metrics) == METRICS
    assert all(math.isnan(value) for value in metrics.values())


def test_the_mean_is_over_images_and_skips_those_without_valid_pixels():
    rows = [
        {"n_valid": 1, **dict.fromkeys(METRICS, 1.0)},
        {"n_valid": 999, **dict.fromkeys(METRICS, 4.0)},
        {"n_valid": 0, **dict.fromkeys(METRICS, math.nan)},
    ]
    assert mean_metrics(rows) == dict.fromkeys(METRICS, 2.5)


@pytest.mark.parametrize("rows", [[], [{"n_valid": 0, **dict.fromkeys(METRICS, math.nan)}]], ids=["none", "unlabelled"])
def test_the_mean_of_nothing_is_not_a_number(rows):
    assert all(math.isnan(value) for value in mean_metrics(rows).values())


# -- agreement with a teacher -------------------------------------------------------------------------------------------------


def test_agreement_starts_at_a_row_and_skips_pixels_without_a_teacher_depth():
    pred = np.array([[9.0, 9.0], [2.0, 6.0], [5.0, 3.0]])
    teacher = np.array([[1.0, 1.0], [4.0, 4.0], [0.0, 3.0]])
    metrics = agreement_metrics(pred, teacher, first_row=1)
    assert metrics["abs_rel_teacher"] == pytest.approx((2 / 4 + 2 / 4 + 0) / 3)
    assert metrics["rmse_teacher"] == pytest.approx(math.sqrt((4 + 4 + 0) / 3))
    assert metrics["delta2_teacher"] == pytest.approx(2 / 3)
    assert agreement_metrics(pred, teacher)["abs_rel_teacher"] == pytest.approx((8 + 8 + 2 / 4 + 2 / 4 + 0) / 5)


def test_agreement_leaves_no_depth_range_out():
    metrics = agreement_metrics(np.array([[200.0, 1e-4]]), np.array([[100.0, 2e-4]]))
    assert metrics["abs_rel_teacher"] == pytest.approx((1 + 0.5) / 2)


# -- the released code's numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "cap"), [("small_kitti", 80.0), ("small_nyu480", 10.0)])
def test_stored_images_score_as_released(oracle, parity, case, cap):
    released = oracle("metrics")["images"][case]["metrics"]
    arrays = np.load(oracle.folder / "metrics.npz")
    gt, pred, mask = (arrays[f"{case}/{name}"] for name in ("gt", "pred", "mask"))
    metrics = depth_metrics(pred, gt, mask & (gt > 1e-3) & (gt < cap))
    for name in METRICS:
        expected = released[NAMES.get(name, name)]
        parity(f"metrics: {name}", abs(metrics[name] - expected) / expected, 1e-6)


@pytest.mark.parametrize(
    ("case", "arrays", "first_row"),
    [
        ("small_kitti", "small_kitti", 110),
        ("small_kitti_teacher_as_uint16", "small_kitti", 110),
        ("small_nyu480", "small_nyu480", 0),
    ],
)
def test_agreement_with_a_teacher_is_as_released(oracle, parity, case, arrays, first_row):
    released = oracle("metrics")["images"][case]["metrics"]
    stored = np.load(oracle.folder / "metrics.npz")
    teacher = stored[f"{arrays}/teacher"]
    if "teacher_as_uint16" in case:  # the released code is given the values of a PNG and makes metres of them
        teacher = np.round(teacher / 80 * 65535).astype(np.float32) / 65535 * 80
    metrics = agreement_metrics(stored[f"{arrays}/pred"], teacher, first_row)
    assert tuple(metrics) == AGREEMENT_METRICS
    for name in AGREEMENT:
        expected = released[f"{NAMES.get(name, name)}_T"]
        parity(f"metrics: {name}_teacher", abs(metrics[f"{name}_teacher"] - expected) / expected, 1e-6)
