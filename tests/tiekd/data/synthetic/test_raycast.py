import numpy as np
import pytest

from tiekd.data.synthetic.raycast import Camera, cast, in_shadow
from tiekd.data.synthetic.solids import Cuboid, Cylinder, GroundPlane, Sphere, column
from tiekd.data.synthetic.textures import plain

PAINT = plain((0.5, 0.5, 0.5))
SIZE = (41, 61)


def camera(position=(0.0, 1.5, 0.0), yaw=0.0, pitch=0.0) -> Camera:
    return Camera(position, yaw, pitch, focal=50.0, size=SIZE)


def depth_of(*solids, **pose) -> np.ndarray:
    return cast(camera(**pose), list(solids))[0]


@pytest.mark.parametrize("pitch", [0.0, -0.1, 0.05])
def test_depth_of_the_ground_plane_has_a_closed_form(pitch):
    depth = depth_of(GroundPlane(PAINT), pitch=pitch)
    rows = np.arange(SIZE[0])[:, None]
    below = (rows - 20) / 50  # slope of a pixel's ray below the optical axis
    drop = below * np.cos(pitch) - np.sin(pitch)
    with np.errstate(divide="ignore"):
        expected = np.broadcast_to(np.where(drop > 1e-6, 1.5 / drop, np.inf), SIZE)
    np.testing.assert_allclose(depth, expected, rtol=1e-4)


def test_depth_of_a_frontal_wall_is_constant():
    depth = depth_of(Cuboid((0, 0, 11), (100, 100, 1), PAINT))
    np.testing.assert_allclose(depth, 10, rtol=1e-5)  # not the length of the ray


def test_depth_of_a_wall_for_a_rotated_camera():
    yaw = 0.3
    depth = depth_of(Cuboid((0, 0, 11), (100, 100, 1), PAINT), yaw=yaw)
    across = (np.arange(SIZE[1]) - 30) / 50
    np.testing.assert_allclose(depth, np.broadcast_to(10 / (np.cos(yaw) - across * np.sin(yaw)), SIZE), rtol=1e-5)


def test_a_rotated_cuboid_shows_its_edge():
    half = 1.0
    depth = depth_of(Cuboid((0, 1.5, 10), (half, 5, half), PAINT, yaw=np.pi / 4))
    assert depth[20, 30] == pytest.approx(10 - np.sqrt(2), rel=1e-4)
    visible = np.isfinite(depth[20])
    assert visible.sum() == pytest.approx(2 * np.sqrt(2) / 10 * 50, abs=2)


def test_depth_and_silhouette_of_a_sphere():
    depth = depth_of(Sphere((0, 1.5, 8), 1.5, PAINT))
    assert depth[20, 30] == pytest.approx(6.5, rel=1e-5)
    rows, columns = np.nonzero(np.isfinite(depth))
    silhouette = 50 * 1.5 / np.sqrt(8**2 - 1.5**2)
    assert rows.max() - rows.min() == pytest.approx(2 * silhouette, abs=2)
    assert columns.max() - columns.min() == pytest.approx(2 * silhouette, abs=2)


def test_a_cylinder_ends_at_its_top_and_bottom():
    depth = depth_of(Cylinder(0, 10, 0.5, 1.0, 3.0, PAINT))
    rows = np.flatnonzero(np.isfinite(depth[:, 30]))
    assert depth[20, 30] == pytest.approx(9.5, rel=1e-5)
    assert rows.min() == pytest.approx(20 - 1.5 * 50 / 9.5, abs=1)
    assert rows.max() == pytest.approx(20 + 0.5 * 50 / 9.5, abs=1)


def test_the_nearer_solid_occludes_the_farther_in_any_order():
    near, far = Cuboid((0, 1.5, 5), (0.5, 0.5, 0.5), PAINT), Cuboid((0, 1.5, 9), (2, 2, 0.5), PAINT)
    for solids, first in (([near, far], 0), ([far, near], 1)):
        depth, owner = cast(camera(), solids)
        assert owner[20, 30] == first
        assert depth[20, 30] == pytest.approx(4.5)
        assert depth[20, 40] == pytest.approx(8.5)
        assert owner[20, 40] == 1 - first


def test_a_room_is_seen_from_inside():
    room = Cuboid((0, 1.5, 4), (3, 1.5, 4), PAINT, inside_out=True)
    depth, owner = cast(camera(position=(0.0, 1.5, 1.0)), [room])
    assert (owner == 0).all()
    assert depth[20, 30] == pytest.approx(7)
    assert depth[40, 30] == pytest.approx(1.5 / (20 / 50), rel=1e-4)


def test_solids_behind_the_camera_are_invisible():
    behind = [Cuboid((0, 1.5, -5), (1, 1, 1), PAINT), Sphere((0, 1.5, -5), 1, PAINT), Cylinder(0, -5, 1, 0, 3, PAINT)]
    depth, owner = cast(camera(), behind)
    assert np.isinf(depth).all()
    assert (owner == -1).all()


@pytest.mark.parametrize(
    "solid",
    [
        Cuboid((3, 1, 12), (2, 1, 0.5), PAINT, yaw=0.4),
        Sphere((-2, 2, 6), 1.2, PAINT),
        Cylinder(-3, 9, 0.4, 0.0, 4.0, PAINT),
        Cuboid((0.2, 1.5, 0.5), (0.1, 0.1, 3), PAINT),  # reaches past the camera
    ],
)
def test_the_window_of_a_solid_contains_all_its_pixels(solid):
    view = camera(yaw=0.1, pitch=-0.05)
    with np.errstate(divide="ignore", invalid="ignore"):
        everywhere = solid.intersect(column(view.position, 3), view.rays)
    assert np.isfinite(everywhere).any()
    np.testing.assert_array_equal(cast(view, [solid])[0], everywhere)


@pytest.mark.parametrize(
    "solid", [Cuboid((1, 1, 8), (1, 1, 1), PAINT, yaw=0.5), Sphere((0, 1.5, 6), 1, PAINT), Cylinder(0, 7, 1, 0, 3, PAINT)]
)
def test_normals_are_unit_vectors_towards_the_camera(solid):
    view = camera()
    depth, owner = cast(view, [solid])
    rays = view.rays[:, owner == 0]
    normal = solid.surface(column(view.position) + depth[owner == 0] * rays).normal
    np.testing.assert_allclose((normal**2).sum(0), 1, rtol=1e-3)
    assert ((normal * rays).sum(0) < 1e-3).all()


def test_shadows_are_opposite_the_light():
    block = Cuboid((0, 1, 0), (0.5, 1, 0.5), PAINT)  # 2 m high; the sun is at 45 degrees on the right
    points = np.array([[-1.0, 0, 0], [-2.4, 0, 0], [-2.6, 0, 0], [1, 0, 0], [-1, 0, 1]], np.float32).T
    assert in_shadow(points, (1e4, 1e4, 0.0), [block]).tolist() == [True, True, False, False, False]


def test_solids_behind_a_lamp_cast_no_shadow():
    ball = Sphere((0, 3, 0), 0.5, PAINT)
    below = np.array([[0.0], [0.0], [0.0]], np.float32)
    assert in_shadow(below, (0, 5, 0), [ball]).tolist() == [True]
    assert in_shadow(below, (0, 2, 0), [ball]).tolist() == [False]
