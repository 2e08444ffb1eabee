"""Surface normals and virtual normals against plain transcriptions, and what they mean."""

import math

import numpy as np
import pytest
import torch

from tiekd.losses.combine import single_process_sum
from tiekd.losses.geometry import NormalTerm, VirtualNormalTerm, rays, surface_normals
from tiekd.losses.sampling import random_numbers, sample_pixels
from tiekd.models.prediction import Prediction

FOCAL = 20.0  # px


def value(term, depth, target, valid=None) -> torch.Tensor:
    valid = torch.ones_like(target, dtype=torch.bool) if valid is None else valid
    return term(Prediction(depth), target, valid, single_process_sum)


def points(depth: np.ndarray) -> np.ndarray:
    """[H, W] m to [H, W, 3] m."""
    rows, columns = np.indices(depth.shape)
    height, width = depth.shape
    x, y = (columns - (width - 1) / 2) / FOCAL, (rows - (height - 1) / 2) / FOCAL
    return np.stack([x * depth, y * depth, depth], axis=-1)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def plane(a: float, b: float, c: float) -> torch.Tensor:
    """Depth [1, 1, 20, 24] m of the plane a x + b y + c z = 1."""
    blank = torch.zeros(1, 1, 20, 24, dtype=torch.float64)
    return 1 / (rays(blank, FOCAL) * torch.tensor([a, b, c], dtype=torch.float64).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


@pytest.mark.parametrize("share", [1.0, 0.7], ids=["dense", "sparse"])
def test_surface_normals_are_those_of_neighboring_points(prediction, target, share):
    valid = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < share
    costs = []
    for p, t, known in zip(*(maps.detach().numpy()[:, 0] for maps in (prediction.depth, target, valid)), strict=True):
        ours, theirs = points(p), points(t)
        for i, j in np.ndindex(19, 23):
            if known[i, j] and known[i, j + 1] and known[i + 1, j]:
                a, b = (unit(np.cross(q[i, j + 1] - q[i, j], q[i + 1, j] - q[i, j])) for q in (ours, theirs))
                costs.append(1 - a @ b)
    found = value(NormalTerm(FOCAL), prediction.depth, target.masked_fill(~valid, 0.0), valid)
    assert found.item() == pytest.approx(np.mean(costs), rel=1e-9)


def test_all_normals_of_a_plane_are_its_own():
    normals = surface_normals(plane(0.1, -0.2, 0.3), FOCAL)
    expected = unit(np.array([0.1, -0.2, 0.3]))
    np.testing.assert_allclose(normals[0].numpy(), np.broadcast_to(expected[:, None, None], (3, 19, 23)), atol=1e-12)


def test_the_loss_of_two_planes_is_their_angle():
    one, other = plane(0.0, 0.0, 0.3), plane(0.3 * math.tan(math.radians(20)), 0.0, 0.3)
    assert value(NormalTerm(FOCAL), one, other).item() == pytest.approx(1 - math.cos(math.radians(20)), rel=1e-9)


def test_normals_keep_their_precision_in_float32_far_from_the_camera():
    exact = plane(0.001, 0.002, 0.0125)  # about 80 m
    difference = surface_normals(exact.float(), 700.0).double() - surface_normals(exact, 700.0)
    assert difference.abs().max() < 2e-3  # the depths alone carry 4e-6 m of rounding beside steps of a tenth of a metre


def slow_virtual_normals(pred: np.ndarray, target: np.ndarray, triples: np.ndarray) -> tuple[float, int]:
    """Triple by triple over images [B, H, W]; triples [B, 3, N]."""
    costs = []
    for p, t, corners in zip(pred, target, triples, strict=True):
        ours, theirs = points(p).reshape(-1, 3), points(t).reshape(-1, 3)
        for a, b, c in corners.T:
            ab, ac, bc = theirs[b] - theirs[a], theirs[c] - theirs[a], theirs[c] - theirs[b]
            if min(map(np.linalg.norm, (ab, ac, bc))) <= 0.6:
                continue
            angles = [math.degrees(math.acos(unit(x) @ unit(y))) for x, y in ((ab, ac), (-ab, bc))]
            if all(30 <= angle <= 120 for angle in angles):
                normals = [unit(np.cross(q[b] - q[a], q[c] - q[a])) for q in (ours, theirs)]
                costs.append(np.abs(normals[0] - normals[1]).sum())
    return float(np.mean(costs)), len(costs)


@pytest.mark.parametrize("share", [1.0, 0.2], ids=["dense", "sparse"])
def test_virtual_normals_are_those_of_well_shaped_triples(prediction, target, share):
    valid = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < share
    sparse = target.masked_fill(~valid, 0.0)
    pixels = sample_pixels(random_numbers(sparse, 3 * 72), valid.flatten(1)).unflatten(1, (3, -1))  # 0.15 of 480 pixels
    expected, count = slow_virtual_normals(prediction.depth.detach().numpy()[:, 0], target.numpy()[:, 0], pixels.numpy())
    assert count > 20
    assert value(VirtualNormalTerm(FOCAL), prediction.depth, sparse, valid).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("term", [NormalTerm(FOCAL), VirtualNormalTerm(FOCAL)], ids=["surface", "virtual"])
def test_a_scale_costs_nothing(target, term):
    assert value(term, 1.7 * target, target).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("term", [NormalTerm(FOCAL), VirtualNormalTerm(FOCAL)], ids=["surface", "virtual"])
def test_the_gradient_is_the_slope(target, term):
    generator = torch.Generator().manual_seed(0)
    part = target[:, :, ::3, ::3].clone()
    depth = part + 0.3 * torch.rand(part.shape, generator=generator, dtype=torch.float64)
    valid = torch.rand(part.shape, generator=generator) < 0.9
    assert torch.autograd.gradcheck(lambda d: value(term, d, part.masked_fill(~valid, 0.0), valid), depth.requires_grad_())
