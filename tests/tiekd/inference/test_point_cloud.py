"""Points in space, read back by a reader of PLY that knows nothing of the writer."""

import numpy as np
import pytest

from tiekd.inference.point_cloud import Intrinsics, backproject, encode_ply

TYPES = {"float": "<f4", "uchar": "u1"}


def read_ply(content: bytes) -> np.ndarray:
    header, _, body = content.partition(b"end_header\n")
    lines = [line.split() for line in header.decode().splitlines()]
    assert lines[:2] == [["ply"], ["format", "binary_little_endian", "1.0"]]
    (count,) = (int(line[2]) for line in lines if line[:2] == ["element", "vertex"])
    fields = [(line[2], TYPES[line[1]]) for line in lines if line[0] == "property"]
    cloud = np.frombuffer(body, fields)
    assert len(cloud) == count
    return cloud


def test_the_middle_of_the_image_lies_ahead_and_a_pixel_a_focal_length_away_at_45_degrees():
    depth = np.full((3, 5), 4.0, np.float32)
    found = backproject(depth, Intrinsics.from_numbers((2.0,), depth))
    np.testing.assert_allclose(found[1, 2], [0, 0, 4])
    np.testing.assert_allclose(found[1, 4], [4, 0, 4])  # x to the right
    np.testing.assert_allclose(found[2, 2], [0, 2, 4])  # y down


def test_points_project_back_to_their_pixels():
    camera = Intrinsics(720.0, 700.0, 600.5, 180.25)
    depth = np.random.default_rng(0).uniform(1, 80, (7, 9)).astype(np.float32)
    x, y, z = np.moveaxis(backproject(depth, camera).astype(np.float64), -1, 0)
    rows, columns = np.indices(depth.shape)
    np.testing.assert_allclose(x / z * camera.fx + camera.cx, columns, atol=1e-3)
    np.testing.assert_allclose(y / z * camera.fy + camera.cy, rows, atol=1e-3)
    np.testing.assert_array_equal(z, depth)


def test_a_ply_file_holds_every_pixel_with_its_colour():
    depth = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    cloud = read_ply(encode_ply(depth, image, Intrinsics.from_numbers((10.0,), depth)))
    np.testing.assert_array_equal(cloud["z"], depth.ravel())
    assert cloud["x"][0] == pytest.approx(-0.1)
    np.testing.assert_array_equal(np.stack([cloud[c] for c in ("red", "green", "blue")], -1), image.reshape(-1, 3))
