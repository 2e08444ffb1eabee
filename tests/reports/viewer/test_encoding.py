import numpy as np
import pytest

from reports.viewer.encoding import (
    DEPTH_ERROR,
    DPM_LEVELS,
    MAX_MAP_PIXELS,
    dequantize_depth,
    dpm_error,
    dpm_grid,
    dpm_grid_step,
    dpm_stride,
    map_stride,
    quantize_depth,
    quantize_dpm,
    subsample,
    subsample_sparse,
)
from tiekd.bins import DepthBins

SIZES = [(352, 1216), (480, 640), (64, 208), (16, 16)]


def test_a_kept_depth_is_off_by_at_most_the_stated_share_of_itself():
    depth = np.geomspace(1e-3, 100, 200_001)
    assert np.abs(dequantize_depth(quantize_depth(depth)) / depth - 1).max() <= DEPTH_ERROR * (1 + 1e-9)
    assert DEPTH_ERROR < 0.0021


def test_no_depth_stays_no_depth():
    assert dequantize_depth(quantize_depth(np.array([0.0, 5.0, 0.0], np.float32)))[[0, 2]].tolist() == [0, 0]


@pytest.mark.parametrize("spacing", ["uniform", "log", "inverse"])
@pytest.mark.parametrize("concentration", [0.01, 0.1, 10.0])
def test_a_kept_distribution_has_the_stated_expected_depth(spacing, concentration):
    centers = DepthBins(257, 1e-3, 80.0, spacing).centers.numpy().astype(np.float64)
    dpm = np.random.default_rng(0).dirichlet(np.full(257, concentration), 500)
    parts = quantize_dpm(dpm)
    assert (parts.sum(axis=1) == DPM_LEVELS).all()
    assert np.abs(parts / DPM_LEVELS @ centers - dpm @ centers).max() <= dpm_error(centers)
    assert dpm_error(centers) < 0.01
    assert np.abs(parts / DPM_LEVELS - dpm).max() <= 1 / DPM_LEVELS


@pytest.mark.parametrize("size", SIZES)
def test_every_kept_distribution_lies_on_a_kept_pixel_of_the_map(size):
    rows, columns = dpm_grid(size)
    numbered = np.arange(size[0] * size[1]).reshape(size)
    every = dpm_grid_step(size)
    on_map = subsample(numbered)[every // 2 :: every, every // 2 :: every]
    assert (on_map == numbered[np.ix_(rows, columns)]).all()
    assert on_map.size <= 1000


@pytest.mark.parametrize("size", SIZES)
def test_maps_are_small(size):
    kept = subsample(np.zeros(size))
    assert kept.size <= MAX_MAP_PIXELS * (1 + map_stride(size) / min(size)) ** 2
    assert dpm_stride(size) % map_stride(size) == 0


def test_of_lidar_a_hit_beside_a_kept_pixel_is_kept():
    depth = np.zeros((352, 1216), np.float32)
    depth[1, 1], depth[1, 3], depth[2, 3], depth[0, 4], depth[1, 5] = 7, 9, 8, 5, 2
    kept = subsample_sparse(depth)
    assert kept[0, :3].tolist() == [7, 9, 5]  # the pixel itself, where it was hit, before nearer ones
    assert kept[1, 1] == 8
    assert np.count_nonzero(kept) == 4


def test_the_nearest_hit_of_a_block_is_kept():
    depth = np.zeros((352, 1216), np.float32)
    depth[0, 1], depth[1, 0] = 30, 20
    assert subsample_sparse(depth)[0, 0] == 20
