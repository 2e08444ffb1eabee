"""Alignments against NumPy transcriptions of the formulas of MoGe, Marigold, evalmde, Monodepth2 and Eigen et al."""

import re

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from tiekd.config import DataConfig
from tiekd.config.specs import ALIGNMENTS, protocol_of
from tiekd.inference.alignment import ENOUGH, UnalignedError, align, align_map
from tiekd.inference.evaluate import score_protocols
from tiekd.metrics import METRICS

CAP = 80.0  # m, of the data
SIZE = (40, 60)
rng = np.random.default_rng(0)
GT = rng.uniform(2, 79, SIZE).astype(np.float32)
VALID = rng.random(SIZE) < 0.3
NOISY = np.exp(0.3 * rng.standard_normal(SIZE))
PREDICTIONS = {
    "too small": (0.3 * GT * NOISY).astype(np.float32),
    "shifted": (0.5 * GT + 9 * NOISY).astype(np.float32),
    "reversed": (90 - GT * NOISY).clip(1e-3, 200).astype(np.float32),  # its fits are negative somewhere
    "relative": (GT * NOISY / 300).astype(np.float32),
}


def rows_of(frame_of, pred: np.ndarray, names=tuple(f"none+{name}" for name in ALIGNMENTS)) -> dict[str, dict]:
    frame = frame_of(np.where(VALID, GT, 0).astype(np.float32), SIZE)
    specs = [protocol_of(name, "protocol") for name in names]
    rows = score_protocols(pred, frame, DataConfig(dataset="kitti", max_depth=CAP), specs)
    return dict(zip(names, rows, strict=True))


def least_squares(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    (scale, shift), *_ = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)
    return scale, shift


def monodepth2(p, g):
    return np.clip(p * np.median(g) / np.median(p), 1e-3, CAP)


def eigen(p, g):
    return np.clip(p * np.exp(np.mean(np.log(g) - np.log(p))), 1e-3, CAP)


def marigold(p, g):
    scale, shift = least_squares(p, g)
    return np.clip(scale * p + shift, 1e-3, CAP)


def moge(p, g):
    scale, shift = least_squares(1 / p, 1 / g)
    return 1 / np.maximum(scale / p + shift, 1 / g.max())


PUBLISHED = {"median": monodepth2, "log_lsq": eigen, "affine_depth": marigold, "affine_disparity": moge}


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("alignment", PUBLISHED)
def test_an_aligned_image_scores_as_published(frame_of, alignment, prediction):
    pred, gt = (values[VALID].astype(np.float64) for values in (PREDICTIONS[prediction], GT))
    aligned = PUBLISHED[alignment](pred, gt)
    row = rows_of(frame_of, PREDICTIONS[prediction])[f"none+{alignment}"]
    error = np.log(aligned) - np.log(gt)
    expected = {
        "abs_rel": np.mean(np.abs(aligned - gt) / (gt + 1e-6)),  # MoGe's eps in m, which moves it by less than 1e-6 here
        "delta1": np.mean(np.maximum(gt / aligned, aligned / gt) < 1.25),
        "rmse": np.sqrt(np.mean((gt - aligned) ** 2)),
        "log10": np.mean(np.abs(np.log10(aligned + 1e-10) - np.log10(gt + 1e-10))),  # evalmde's
        "silog": 100 * np.sqrt(np.mean(error**2) - np.mean(error) ** 2),  # evalmde's rmse_log_si
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert row["n_valid"] == VALID.sum()
    assert row["median_ratio"] == pytest.approx(np.median(pred) / np.median(gt), rel=1e-6)


@pytest.mark.parametrize(
    ("pred", "perfect"),
    [
        (0.2 * GT, {"median", "log_lsq", "affine_depth", "affine_disparity"}),
        (0.2 * GT + 3, {"affine_depth"}),
        (1 / (3 / GT + 0.1), {"affine_disparity"}),
    ],
    ids=["a scale", "a scale and a shift", "a scale and a shift of 1 / depth"],
)
def test_an_alignment_takes_away_exactly_what_it_fits(frame_of, pred, perfect):
    rows = rows_of(frame_of, pred.astype(np.float32))
    assert {name for name in ALIGNMENTS if rows[f"none+{name}"]["abs_rel"] < 1e-5} == perfect


@pytest.mark.parametrize("alignment", sorted(PUBLISHED))
def test_one_depth_all_over_is_aligned_to_one_depth(alignment):
    gt = torch.tensor([2.0, 3.0, 7.0], dtype=torch.float64)
    expected = {"median": 3.0, "log_lsq": 42 ** (1 / 3), "affine_depth": 4.0, "affine_disparity": 3 / (1 / 2 + 1 / 3 + 1 / 7)}
    aligned = align(alignment, torch.full_like(gt, 5.0), gt, gt.log(), 5 / 3)
    assert aligned.tolist() == pytest.approx([expected[alignment]] * 3)


def test_many_protocols_score_as_each_alone(frame_of):
    names = [f"none{cap}+{name}" for cap in ("", "@50m", "@20.5m") for name in ALIGNMENTS]
    pred = PREDICTIONS["shifted"]
    together = rows_of(frame_of, pred, names)
    assert together == {name: rows_of(frame_of, pred, [name])[name] for name in names}
    assert len({tuple(row[name] for name in METRICS) for row in together.values()}) == len(names)
    assert together["none@20.5m+median"]["n_valid"] == ((GT < 20.5) & VALID).sum()


def test_what_was_not_clamped_is_aligned(frame_of):
    """A relative map below the data's range, which clamping would make constant."""
    pred = (GT / 1e6).astype(np.float32)
    frame = frame_of(GT, SIZE)
    specs = [protocol_of(name, "protocol") for name in ("none", "none+median")]
    data = DataConfig(dataset="kitti", max_depth=CAP)
    plain, aligned = score_protocols(pred.clip(*data.depth_range), frame, data, specs, pred)
    assert plain["abs_rel"] > 0.99
    assert aligned["abs_rel"] < 1e-6
    assert aligned["median_ratio"] == pytest.approx(1e-6)


def test_an_image_without_a_valid_pixel_has_no_metrics(frame_of):
    (row,) = score_protocols(GT, frame_of(0 * GT, SIZE), DataConfig(dataset="kitti"), [protocol_of("none+median", "protocol")])
    assert row["n_valid"] == 0
    assert all(np.isnan(row[name]) for name in METRICS)


# -- maps of a relative teacher -------------------------------------------------------------------------------------------


def least_absolute(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Scale and shift of the least absolute deviations, as a linear program."""
    n = len(x)
    line, slack = np.stack([x, np.ones(n)], 1), np.eye(n)
    bounds = [(None, None)] * 2 + [(0, None)] * n
    found = linprog(
        np.r_[0, 0, np.ones(n)],
        A_ub=np.block([[line, -slack], [-line, -slack]]),
        b_ub=np.r_[y, -y],
        bounds=bounds,
    )
    return found.x[0], found.x[1]


RELATIVE = {
    "median": (0.02 * GT * NOISY).astype(np.float32),
    "affine_depth": (0.01 * GT * NOISY + 0.3).astype(np.float32),
    "affine_disparity": (3 / (GT * NOISY) + 0.1).astype(np.float32),
}


def fitted(alignment: str, r: np.ndarray) -> np.ndarray:
    """The formulas of tiekd/inference/alignment.py, in NumPy and by a solver for linear programs."""
    x, g = r[VALID].astype(float), GT[VALID].astype(float)
    if alignment == "median":
        return r * (np.median(g) / np.median(x))
    if alignment == "affine_depth":
        scale, shift = least_absolute(x, g)
        return scale * r + shift
    scale, shift = least_absolute(x, 1 / g)
    return 1 / np.maximum(scale * r + shift, 1 / CAP)


@pytest.mark.parametrize("alignment", RELATIVE)
def test_a_relative_map_is_fitted_as_another_solver_fits_it(alignment):
    aligned = align_map(alignment, RELATIVE[alignment], np.where(VALID, GT, 0), CAP)
    assert aligned.dtype == np.float32
    assert aligned.shape == SIZE
    np.testing.assert_allclose(aligned, fitted(alignment, RELATIVE[alignment]).clip(0, CAP), rtol=1e-4)


EXACT = {"median": 0.02 * GT, "affine_depth": 0.01 * GT + 0.3, "affine_disparity": 3 / GT - 0.02}


@pytest.mark.parametrize("alignment", EXACT)
def test_a_third_of_wrong_ground_truth_does_not_move_the_fit(alignment):
    wrong = np.where(VALID, GT, 0)
    rows, columns = np.nonzero(VALID)
    wrong[rows[::3], columns[::3]] = np.where(np.arange(len(rows[::3])) % 2, 0.5, 78)
    aligned = align_map(alignment, EXACT[alignment], wrong, CAP)
    bound = 0.1 if alignment == "median" else 1e-4  # a median moves with its neighbors
    assert np.abs(aligned / GT - 1).max() < bound
    if alignment == "affine_depth":  # least squares, as evaluation fits, does not have this property
        squares = align("affine_depth", *(torch.from_numpy(a[VALID]).double() for a in (EXACT[alignment], wrong, wrong)), 1.0)
        assert np.abs(squares.numpy() / GT[VALID] - 1).max() > 0.1


def test_depths_beyond_the_fit_end_at_the_cap_and_those_below_it_are_none():
    disparity = EXACT["affine_disparity"].copy()
    disparity[0] = -1.0  # behind infinity
    known = np.where(VALID, GT, 0)
    known[0] = 0
    assert (align_map("affine_disparity", disparity, known, CAP)[0] == CAP).all()
    depth = EXACT["affine_depth"].copy()
    depth[0] = 0.0  # 30 m behind the camera
    assert (align_map("affine_depth", depth, known, CAP)[0] == 0).all()


def test_more_pixels_than_a_fit_reads_give_the_same_line():
    gt = np.random.default_rng(1).uniform(1, 70, (400, 300))
    np.testing.assert_allclose(align_map("affine_disparity", 5 / gt + 1, gt, CAP), gt, rtol=1e-5)


@pytest.mark.parametrize(
    ("alignment", "relative", "known", "reason"),
    [
        (
            "median",
            GT,
            np.arange(GT.size).reshape(SIZE) < ENOUGH - 1,
            f"{ENOUGH - 1} pixels have ground truth, needed {ENOUGH}",
        ),
        ("affine_depth", 1 / GT, VALID, "the fitted scale is -"),
        ("affine_disparity", GT, VALID, "the fitted scale is -"),
        ("affine_depth", np.ones_like(GT), VALID, "the fitted scale is 0,"),
        ("median", np.zeros_like(GT), VALID, "the fitted scale is inf,"),
    ],
)
def test_a_map_that_does_not_fit_says_why(alignment, relative, known, reason):
    with pytest.raises(UnalignedError, match=f"^{re.escape(reason)}"):
        align_map(alignment, relative, np.where(known, GT, 0), CAP)
