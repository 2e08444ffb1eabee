"""Boundary F1 and surface normals against transcriptions of the formulas of Depth Pro and evalmde."""

import math

import numpy as np
import pytest

from tiekd.config import DataConfig
from tiekd.config.specs import protocol_of
from tiekd.inference.evaluate import score_protocols
from tiekd.inference.point_cloud import Intrinsics
from tiekd.inference.structure import Structure, boundary_f1, normal_error

SIZE = (12, 17)
CAMERA = Intrinsics(20.0, 22.0, 8.0, 5.0)


def made(seed: int) -> np.ndarray:
    """Depths in steps of a few percent, with pixels that are not valid."""
    rng = np.random.default_rng(seed)
    depth = np.exp(rng.normal(1, 0.12, SIZE))
    return np.where(rng.random(SIZE) < 0.15, np.nan, depth)


def published_f1(pred: np.ndarray, gt: np.ndarray) -> float:
    """Depth Pro's SI_boundary_F1 of inverse depths, pair by pair."""
    pred, gt = 1 / pred, 1 / gt
    thresholds = [1.05 + 0.2 * i / 9 for i in range(10)]
    total = 0.0
    for t in thresholds:
        precision = recall = 0.0
        for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            n_pred = n_gt = n_both = 0
            for row, column in np.ndindex(*SIZE):
                other = row + down, column + right
                if 0 <= other[0] < SIZE[0] and 0 <= other[1] < SIZE[1]:
                    in_pred, in_gt = (bool(d[other] / d[row, column] > t) for d in (pred, gt))
                    n_pred, n_gt, n_both = n_pred + in_pred, n_gt + in_gt, n_both + (in_pred and in_gt)
            precision += n_both / max(n_pred, 1) / 4
            recall += n_both / max(n_gt, 1) / 4
        total += t * (2 * precision * recall / (precision + recall) if precision + recall else 0)
    return total / sum(thresholds)


@pytest.mark.parametrize("seed", [1, 2])
def test_boundaries_score_as_published(seed):
    gt = made(seed)
    pred = np.where(np.isfinite(gt), 1.3 * gt * np.exp(np.random.default_rng(9).normal(0, 0.05, SIZE)), np.nan)
    assert boundary_f1(pred, gt) == pytest.approx(published_f1(pred, gt))
    assert 0.2 < boundary_f1(pred, gt) < 0.9


def test_boundaries_know_no_scale_and_a_flat_prediction_has_none():
    gt = made(0)
    assert boundary_f1(3 * gt, gt) == pytest.approx(1)
    assert boundary_f1(np.where(np.isfinite(gt), 2.0, np.nan), gt) == 0


def published_normal_error(pred: np.ndarray, gt: np.ndarray) -> float:
    angles = []
    for row, column in np.ndindex(SIZE[0] - 2, SIZE[1] - 2):
        normals = []
        for depth in (pred, gt):

            def point(r: int, c: int, depth: np.ndarray = depth) -> np.ndarray:
                return np.array([(c - CAMERA.cx) / CAMERA.fx, (r - CAMERA.cy) / CAMERA.fy, 1]) * depth[r, c]

            down, right = point(row + 2, column) - point(row, column), point(row, column + 2) - point(row, column)
            normal = np.cross(down / np.linalg.norm(down), right / np.linalg.norm(right))
            normals.append(normal / np.linalg.norm(normal))
        angles.append(np.degrees(np.arccos(np.clip(normals[0] @ normals[1], -1, 1))))
    return float(np.nanmean(angles))


def test_normals_score_as_published():
    gt = made(3)
    pred = np.where(np.isfinite(gt), made(4), np.nan)
    assert normal_error(pred, gt, CAMERA) == pytest.approx(published_normal_error(pred, gt), rel=1e-4)  # points in float32


def test_a_turned_plane_is_off_by_its_angle():
    x = (np.indices(SIZE)[1] - CAMERA.cx) / CAMERA.fx
    turned = 4 / (1 + x * math.tan(math.radians(30)))  # z + tan(30 degrees) x = 4
    assert normal_error(turned, np.full(SIZE, 4.0), CAMERA) == pytest.approx(30, abs=0.01)
    assert normal_error(np.full(SIZE, 9.0), np.full(SIZE, 4.0), CAMERA) == pytest.approx(0, abs=0.1)
    assert math.isnan(normal_error(turned, np.full(SIZE, np.nan), CAMERA))


def test_the_pixels_of_the_protocol_are_aligned_first(frame_of):
    gt = np.where(np.isfinite(made(5)), made(5), 0).astype(np.float32)
    pred = (1 / (2 / np.maximum(gt, 0.5) + 0.3)).astype(np.float32)
    specs = [protocol_of(name, "protocol") for name in ("none", "none+affine_disparity")]
    structure = Structure(boundaries=True, camera=(20.0,))
    plain, aligned = score_protocols(pred, frame_of(gt, SIZE), DataConfig(dataset="kitti"), specs, structure=structure)
    assert structure.names == ["boundary_f1", "normal_deg"]
    assert plain["boundary_f1"] < 0.9
    assert aligned["boundary_f1"] == pytest.approx(1, abs=0.01)
    assert aligned["normal_deg"] < 0.1 < plain["normal_deg"]
