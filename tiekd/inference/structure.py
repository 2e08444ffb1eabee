"""How well a prediction shows the structure of a scene: depth boundaries and surface normals, over valid pixels."""

import math
from dataclasses import dataclass

import numpy as np

from tiekd.inference.point_cloud import Intrinsics, backproject

THRESHOLDS = np.linspace(1.05, 1.25, 10)  # ratios of neighboring depths
_SPACING = 2  # px between the corners of a triangle
_DEGENERATE = 1e-5  # sine of the angle between the sides of a triangle that has no normal


@dataclass(frozen=True)
class Structure:
    """Which metrics of the structure are computed beside the others."""

    boundaries: bool = False
    camera: tuple[float, ...] | None = None  # of `Intrinsics.from_numbers`, px of the frame's view; for normals

    @property
    def names(self) -> list[str]:
        return ["boundary_f1"] * self.boundaries + ["normal_deg"] * (self.camera is not None)

    def metrics(self, depth_pred: np.ndarray, depth_gt: np.ndarray) -> dict[str, float]:
        """Compute the metrics of one image by name. Both [H, W] m, positive, NaN where a pixel is not valid."""
        found = {"boundary_f1": boundary_f1(depth_pred, depth_gt)} if self.boundaries else {}
        if self.camera is not None:
            camera = Intrinsics.from_numbers(self.camera, depth_gt)
            found["normal_deg"] = normal_error(depth_pred, depth_gt, camera)
        return found


def boundary_f1(depth_pred: np.ndarray, depth_gt: np.ndarray) -> float:
    """Compute the scale-invariant boundary F1 of Depth Pro (Bochkovskii et al. 2024), masked as in evalmde; 1 is best.

    There is a boundary between two neighbors where one is more than t times as deep as the other. Precision and recall are
    averaged over the four directions; their F1 over ten thresholds t from 1.05 to 1.25, weighted by t. A direction without a
    boundary has precision or recall 0. depth_pred, depth_gt [H, W] m, NaN where a pixel is not valid.
    """
    both, of_pred, of_gt = np.zeros((3, 4, len(THRESHOLDS)))
    steps = [
        step
        for near, far in (((slice(None), slice(-1)), (slice(None), slice(1, None))), ((slice(-1),), (slice(1, None),)))
        for step in ((near, far), (far, near))
    ]
    for direction, (first, second) in enumerate(steps):
        pred, gt = (_exceeded(depth[first], depth[second]) for depth in (depth_pred, depth_gt))
        for counts, passed in ((both, np.minimum(pred, gt)), (of_pred, pred), (of_gt, gt)):
            # How many pairs exceed each threshold, from how many pairs exceed a number of thresholds.
            counts[direction] = np.bincount(passed.ravel(), minlength=len(THRESHOLDS) + 1)[:0:-1].cumsum()[::-1]
    precision, recall = ((both / np.maximum(counts, 1)).mean(0) for counts in (of_pred, of_gt))
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return float(f1 @ THRESHOLDS / THRESHOLDS.sum())


def _exceeded(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How many of THRESHOLDS the ratio first / second exceeds; none where a pixel is not valid."""
    return np.searchsorted(THRESHOLDS, np.nan_to_num(first / second, nan=0.0), side="left")


def normal_error(depth_pred: np.ndarray, depth_gt: np.ndarray, camera: Intrinsics) -> float:
    """Compute the mean angle in degrees between predicted and true surface normals; NaN if no pixel has both.

    A pixel's normal is that of the triangle of the points at it, two pixels to the right and two pixels below, as in evalmde.
    depth_pred, depth_gt [H, W] m, NaN where a pixel is not valid.
    """
    cosine = (_normals(depth_pred, camera) * _normals(depth_gt, camera)).sum(-1)
    angles = np.degrees(np.arccos(cosine[np.isfinite(cosine)].clip(-1, 1)))
    return float(angles.mean()) if angles.size else math.nan


def _normals(depth: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """Unit normals [H - 2, W - 2, 3]; NaN where the triangle has none or a corner is not valid."""
    points = backproject(depth, camera).astype(float)
    corner, right, below = points[:-_SPACING, :-_SPACING], points[:-_SPACING, _SPACING:], points[_SPACING:, :-_SPACING]
    sides = (side / np.linalg.norm(side, axis=-1, keepdims=True) for side in (below - corner, right - corner))
    normals = np.cross(*sides)
    size = np.linalg.norm(normals, axis=-1, keepdims=True)
    return normals / np.where(size > _DEGENERATE, size, np.nan)
