import math
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from tiekd.bins import DENSITY_FLOOR, DepthBins, expected_depth, target_dpm
from tiekd.config.specs import DEFAULT_DPM, DPMS

SPACINGS = ["uniform", "log", "inverse"]
KITTI = DepthBins(257, 1e-3, 80.0)
NYU = DepthBins(49, 1e-3, 10.0)


def depth_map(*values: float, dtype=torch.float64) -> torch.Tensor:
    """[1, 1, 1, len(values)]"""
    return torch.tensor(values, dtype=dtype).view(1, 1, 1, -1)


def slow_dpm(depth: float, centers: list[float], sigma: float, temperature: float) -> list[float]:
    """The paper's formula, bin by bin, in Python's floats."""
    density = [math.exp(-((c - depth) ** 2) / (2 * sigma**2)) / math.sqrt(2 * math.pi * sigma**2) for c in centers]
    nearest = min(range(len(centers)), key=lambda k: abs(centers[k] - depth))
    inside = [k == nearest or phi >= DENSITY_FLOOR for k, phi in enumerate(density)]
    largest = max(density)
    share = [math.exp((phi - largest) / temperature) if here else 0.0 for phi, here in zip(density, inside, strict=True)]
    return [s / sum(share) for s in share]


# -- edges and centers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spacing", "edge"),
    [
        ("uniform", lambda t: 0.5 + t * (80 - 0.5)),
        ("log", lambda t: 0.5 * (80 / 0.5) ** t),
        ("inverse", lambda t: 1 / ((1 - t) / 0.5 + t / 80)),
    ],
)
@pytest.mark.parametrize("n_bins", [2, 10, 257])
def test_edges_and_centers_follow_their_closed_form(spacing, edge, n_bins):
    bins = DepthBins(n_bins, 0.5, 80.0, spacing)
    edges = edge(np.linspace(0, 1, n_bins + 1))
    np.testing.assert_allclose(bins.edges, edges, rtol=1e-6)  # float32
    np.testing.assert_allclose(bins.centers, (edges[1:] + edges[:-1]) / 2, rtol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_bins_tile_the_range_of_depth(spacing):
    bins = DepthBins(4096, 1e-3, 80.0, spacing)
    assert bins.edges.dtype == bins.centers.dtype == torch.float32
    assert (bins.edges.shape, bins.centers.shape) == ((4097,), (4096,))
    assert bins.edges[[0, -1]].tolist() == pytest.approx([1e-3, 80.0])
    assert (bins.edges.diff() > 0).all()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ((1, 1e-3, 80.0), "at least 2, got 1"),
        ((8, 0.0, 80.0), "0 < min_depth < max_depth, got 0.0"),
        ((8, 80.0, 80.0), "got 80.0 and 80.0"),
        ((8, 1e-3, 80.0, "linear"), "uniform, log, inverse, got 'linear'"),
    ],
)
def test_impossible_bins_are_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        DepthBins(*settings)


# -- target DPM -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("n_bins", [2, 49, 257])
@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("temperature", [0.01, 1.0, 50.0])
def test_the_dpm_is_the_papers_formula(spacing, n_bins, sigma, temperature):
    bins = DepthBins(n_bins, 1e-3, 80.0, spacing)
    depths = [0.0, 1e-3, 0.37, 4.2, 23.456, 79.9, 80.0, 95.0]
    dpm = target_dpm(depth_map(*depths), bins, sigma, temperature)
    slow = [slow_dpm(depth, bins.centers.tolist(), sigma, temperature) for depth in depths]
    np.testing.assert_allclose(dpm[0, :, 0].T, slow, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("bins", "sigma"), [(KITTI, 0.5), (KITTI, 0.8), (NYU, 0.15), (NYU, 0.5)])
def test_float32_suffices_for_the_published_settings(bins, sigma):
    depth = torch.rand(2, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * bins.max_depth
    exact = target_dpm(depth.float().double(), bins, sigma)
    # A density's relative error is its exponent's, at most ln 1e16 = 37 times float32's unit; the softmax adds its own few.
    torch.testing.assert_close(target_dpm(depth.float(), bins, sigma).double(), exact, rtol=5e-4, atol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_dpm_sums_to_one_at_every_pixel(spacing):
    depth = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(0)) * 80
    dpm = target_dpm(depth, DepthBins(33, 1e-3, 80.0, spacing), 0.5)
    assert dpm.shape == (2, 33, 5, 7)
    torch.testing.assert_close(dpm.sum(1), torch.ones(2, 5, 7))


@pytest.mark.parametrize("sigma", [0.15, 0.5, 0.8])
def test_bins_beyond_the_density_floor_get_nothing_and_those_within_something(sigma):
    depth = 40.0
    reach = sigma * math.sqrt(-2 * math.log(DENSITY_FLOOR * sigma * math.sqrt(2 * math.pi)))  # where the density is 1e-16
    dpm = target_dpm(depth_map(depth), KITTI, sigma)[0, :, 0, 0]
    within = (KITTI.centers.double() - depth).abs() <= reach
    assert 3 < within.sum() < 257
    assert ((dpm > 0) == within).all()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sigma", [1e-4, 0.01, 0.15, 0.5, 2.0, 1e3, 1e16])
def test_exactly_the_bins_within_reach_and_the_nearest_take_part_in_float32(spacing, sigma):
    for bins in (DepthBins(257, 1e-3, 80.0, spacing), DepthBins(8, 1e-3, 10.0, spacing)):
        edges = torch.cat([bins.centers, bins.edges])  # at an edge two bins are nearest
        depth = torch.cat([torch.linspace(-1, 1.2 * bins.max_depth, 500), edges, edges.nextafter(torch.tensor(100.0))])
        distance = (bins.centers.double() - depth.double().unsqueeze(1)).abs()
        excess = -((distance / sigma) ** 2) / 2 - math.log(sigma * math.sqrt(2 * math.pi) * DENSITY_FLOOR)
        # A temperature at which no probability is too small for float32.
        found = target_dpm(depth.view(-1, 1, 1, 1), bins, sigma, temperature=1e4).flatten(1) > 0
        nearest = distance <= distance.amin(dim=1, keepdim=True) + 1e-5
        decided = (excess.abs() > 1e-4) & ~nearest
        assert torch.equal(found[decided], (excess >= 0)[decided])
        assert (found & nearest).any(dim=1).all()


@pytest.mark.parametrize(("depth", "nearest"), [(0.0, 0), (-5.0, 0), (80.0, 256), (500.0, 256), (1e6, 256)])
def test_a_depth_outside_the_bins_belongs_to_the_nearest(depth, nearest):
    dpm = target_dpm(depth_map(depth), KITTI, 0.5)[0, :, 0, 0]
    assert dpm.argmax() == nearest
    assert dpm.sum() == pytest.approx(1)


def test_a_low_temperature_picks_the_nearest_bin():
    dpm = target_dpm(depth_map(23.4), KITTI, 0.5, temperature=1e-3)[0, :, 0, 0]
    nearest = (KITTI.centers - 23.4).abs().argmin()
    assert dpm[nearest] == pytest.approx(1)


def test_a_high_temperature_spreads_evenly_over_the_bins_within_reach():
    dpm = target_dpm(depth_map(23.4), KITTI, 0.5, temperature=1e9)[0, :, 0, 0]
    within = dpm > 0
    assert 1 < within.sum() < 257
    np.testing.assert_allclose(dpm[within], 1 / within.sum().item(), rtol=1e-6)


@pytest.mark.parametrize("sigma", [1e-6, 1e-3, 100.0])
@pytest.mark.parametrize("temperature", [1e-3, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_lost_at_the_ends_of_the_settings(sigma, temperature, dtype):
    depths = depth_map(0.0, 1e-3, float(KITTI.centers[100]), 40.0, 80.0, 1e4, dtype=dtype)
    dpm = target_dpm(depths, KITTI, sigma, temperature)
    assert dpm.isfinite().all()
    torch.testing.assert_close(dpm.sum(1), torch.ones_like(dpm[:, 0]))


# -- the family of DPMs ---------------------------------------------------------------------------------------------------


def slow_share(dpm: str, depth: float, edges: list[float], sigma: float, k: int) -> float:
    """What bin k has before normalization, in Python's floats."""
    centers = [(low + high) / 2 for low, high in pairwise(edges)]
    nearest = min(abs(c - depth) for c in centers)
    if dpm == "density":
        return math.exp((nearest**2 - (centers[k] - depth) ** 2) / (2 * sigma**2))
    if dpm == "laplace":
        return math.exp((nearest - abs(centers[k] - depth)) * math.sqrt(2) / sigma)
    if dpm == "integral":
        low, high = ((edge - depth) / (sigma * math.sqrt(2)) for edge in edges[k : k + 2])
        low, high = (-high, -low) if low > 0 else (low, high)  # the lower tail keeps its digits
        return (math.erfc(-high) - math.erfc(-low)) / 2
    return float(np.interp(depth, centers, [float(k == other) for other in range(len(centers))]))


@pytest.mark.parametrize("dpm", [name for name in DPMS if name != DEFAULT_DPM])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_dpm_is_its_formula(dpm, spacing):
    for bins, sigma in product([DepthBins(49, 1e-3, 10.0, spacing), DepthBins(7, 0.5, 10.0, spacing)], [0.05, 0.5, 100.0]):
        edges = bins.edges.double().tolist()
        depths = [0.5, 0.62, 3.456, *edges[2:4], float(bins.centers[-1]), 9.99, 10.0]
        found = target_dpm(depth_map(*depths), bins, sigma, dpm=dpm)[0, :, 0].T
        slow = np.array([[slow_share(dpm, depth, edges, sigma, k) for k in range(bins.n_bins)] for depth in depths])
        # Centers are rounded to float32 once more, and a narrow density is steep.
        np.testing.assert_allclose(found, slow / slow.sum(axis=1, keepdims=True), rtol=0, atol=3e-4 if sigma < 0.1 else 3e-6)


@pytest.mark.parametrize("dpm", DPMS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_depth_has_a_distribution(dpm, spacing, dtype):
    """Outside the bins, at their edges, and with a sigma far below their width; the bin beside the depth always takes part."""
    bins = DepthBins(33, 0.5, 80.0, spacing)
    depth = torch.cat([torch.tensor([-5.0, 0.0, 0.49, 80.1, 500.0, 1e6]), bins.edges, bins.centers]).to(dtype)
    for sigma in (1e-6, 1e-3, 0.5, 100.0):
        found = target_dpm(depth.view(1, 1, 1, -1), bins, sigma, dpm=dpm)[0, :, 0]
        assert found.isfinite().all()
        torch.testing.assert_close(found.sum(0), torch.ones_like(depth))
        if dpm != DEFAULT_DPM and sigma < 0.1:
            mean = expected_depth(found[None, :, None], bins).flatten()
            assert (mean - depth.clamp(0.5, 80)).abs().max() <= bins.edges.diff().max()


@pytest.mark.parametrize("dpm", DPMS)
def test_float32_suffices_for_every_dpm(dpm):
    depth = torch.rand(2, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 10
    exact = target_dpm(depth.float().double(), NYU, 0.15, dpm=dpm)
    torch.testing.assert_close(target_dpm(depth.float(), NYU, 0.15, dpm=dpm).double(), exact, rtol=5e-4, atol=1e-6)


@pytest.mark.parametrize(("dpm", "read"), [(name, spec.reads) for name, spec in DPMS.items()])
def test_a_dpm_reads_what_its_entry_says(dpm, read):
    depth = depth_map(1.234, 5.678)
    base = target_dpm(depth, NYU, 0.3, dpm=dpm)
    assert torch.equal(target_dpm(depth, NYU, 0.4, dpm=dpm), base) == ("sigma" not in read)
    assert torch.equal(target_dpm(depth, NYU, 0.3, 0.5, dpm=dpm), base) == ("temperature" not in read)


def test_a_two_hot_target_has_the_teachers_depth_as_its_mean():
    depth = torch.linspace(float(NYU.centers[0]), float(NYU.centers[-1]), 500, dtype=torch.float64)
    dpm = target_dpm(depth.view(1, 1, 1, -1), NYU, 0.5, dpm="two_hot")
    torch.testing.assert_close(expected_depth(dpm, NYU).flatten(), depth, rtol=0, atol=1e-12)
    assert ((dpm > 0).sum(1) <= 2).all()


# -- expected depth -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 7, 48])
def test_all_mass_in_one_bin_is_that_bins_depth(k):
    one_hot = torch.zeros(1, 49, 2, 3)
    one_hot[:, k] = 1
    torch.testing.assert_close(expected_depth(one_hot, NYU), NYU.centers[k].expand(1, 1, 2, 3))


def test_expected_depth_is_the_mean_of_the_centers_under_the_dpm():
    dpm = torch.softmax(torch.randn(2, 49, 3, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    mean = (dpm.double() * NYU.centers.double().view(1, -1, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(expected_depth(dpm, NYU).double(), mean, rtol=1e-5, atol=0)


def test_expected_depth_of_a_narrow_dpm_is_the_teachers_depth():
    depth = depth_map(3.0, 5.5, 8.1)
    # The softmax of densities is nearly symmetric about the depth, to within a share of the bin's width of 0.2 m.
    torch.testing.assert_close(expected_depth(target_dpm(depth, NYU, 0.15, 0.1), NYU), depth, rtol=0, atol=0.1)
