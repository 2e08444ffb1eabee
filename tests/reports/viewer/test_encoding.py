"""Encoded depth maps and distributions have the stated errors."""

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


def test_quantized_depth_has_the_stated_relative_error():
    depth = np.geomspace(1e-3, 100, 200_001)
    assert np.abs(dequantize_depth(quantize_depth(depth)) / depth - 1).max() <= DEPTH_ERROR * (1 + 1e-9)
    assert DEPTH_ERROR < 0.0021


def test_missing_depth_stays_missing():
    assert dequantize_depth(quantize_depth(np.array([0.0, 5.0, 0.0], np.float32)))[[0, 2]].tolist() == [0, 0]


@pytest.mark.parametrize("spacing", ["uniform", "log", "inverse"])
@pytest.mark.parametrize("concentration", [0.01, 0.1, 10.0])
def test_quantized_distribution_has_the_stated_error_of_expected_depth(spacing, concentration):
    centers = DepthBins(257, 1e-3, 80.0, spacing).centers.numpy().astype(np.float64)
    dpm = np.random.default_rng(0).dirichlet(np.full(257, concentration), 500)
    levels = quantize_dpm(dpm)
    assert (levels.sum(axis=1) == DPM_LEVELS).all()
    assert np.abs(levels / DPM_LEVELS @ centers - dpm @ centers).max() <= dpm_error(centers)
    assert dpm_error(centers) < 0.01
    assert np.abs(levels / DPM_LEVELS - dpm).max() <= 1 / DPM_LEVELS


@pytest.mark.parametrize("size", SIZES)
def test_every_distribution_is_at_a_stored_pixel_of_the_map(size):
    rows, columns = dpm_grid(size)
    numbered = np.arange(size[0] * size[1]).reshape(size)
    every = dpm_grid_step(size)
    on_map = subsample(numbered)[every // 2 :: every, every // 2 :: every]
    assert (on_map == numbered[np.ix_(rows, columns)]).all()
    assert on_map.size <= 1000


@pytest.mark.parametrize("size", SIZES)
def test_stored_maps_are_small(size):
    stored = subsample(np.zeros(size))
    assert stored.size <= MAX_MAP_PIXELS * (1 + map_stride(size) / min(size)) ** 2
    assert dpm_stride(size) % map_stride(size) == 0


def test_sparse_subsampling_keeps_measurements_beside_stored_pixels():
    depth = np.zeros((352, 1216), np.float32)
    depth[1, 1], depth[1, 3], depth[2, 3], depth[0, 4], depth[1, 5] = 7, 9, 8, 5, 2
    stored = subsample_sparse(depth)
    assert stored[0, :3].tolist() == [7, 9, 5]  # a measured pixel itself is preferred to smaller depths in its block
    assert stored[1, 1] == 8
    assert np.count_nonzero(stored) == 4


def test_sparse_subsampling_keeps_the_smallest_depth_of_a_block():
    depth = np.zeros((352, 1216), np.float32)
    depth[0, 1], depth[1, 0] = 30, 20
    assert subsample_sparse(depth)[0, 0] == 20
