import numpy as np
import pytest

from tiekd.data.synthetic.textures import Surface, noise, planks, rough, stripes, tiles

ACROSS = np.linspace(0, 12, 4001, dtype=np.float32)


def seen_from(texture, footprint: float) -> np.ndarray:
    surface = Surface(np.tile(np.float32([[0], [1], [0]]), len(ACROSS)), ACROSS, 0.37 * ACROSS)
    return texture(surface, np.full(len(ACROSS), footprint, np.float32))


@pytest.mark.parametrize(
    "texture",
    [rough((0.4, 0.3, 0.2)), planks((0.4, 0.3, 0.2), 0.2, seed=1.0), tiles((0.4, 0.3, 0.2), (0.1, 0.1, 0.1), 0.4, 2.0)],
)
def test_textures_are_visible_near_and_uniform_far_away(texture):
    near, far = seen_from(texture, 0.001), seen_from(texture, 5.0)
    assert near.shape == far.shape == (3, len(ACROSS))
    assert near.std(axis=1).min() > 0.01
    np.testing.assert_allclose(far, far[:, :1].repeat(len(ACROSS), axis=1), atol=1e-6)
    np.testing.assert_allclose(near.mean(axis=1), far.mean(axis=1), atol=0.04)


@pytest.mark.parametrize("footprint", [0.01, 0.05, 0.2, 3.0])
def test_stripes_cover_their_share_at_any_distance(footprint):
    coverage = stripes(ACROSS, period=1.0, width=0.2, footprint=np.float32(footprint))
    assert 0 <= coverage.min() <= coverage.max() <= 1
    assert coverage[:-1].mean() == pytest.approx(0.2, abs=0.03)


def test_noise_is_smooth_between_its_lattice_points():
    values = noise(ACROSS, np.zeros_like(ACROSS))
    assert 0 <= values.min() < values.max() <= 1
    assert np.abs(np.diff(values)).max() <= 12 / 4000 + 1e-6
