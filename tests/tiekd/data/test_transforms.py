import numpy as np
import pytest
import torch
from support.torchvision_chain import TorchvisionChain

from tiekd.config import AugmentConfig
from tiekd.data.frame_source import Box
from tiekd.data.image_io import StoredDepth
from tiekd.data.transforms import IMAGE_MEAN, IMAGE_STD, Rotation, TrainTransform, normalize_image

STILL = {"rotate_p": 0.0, "flip_p": 0.0, "colour_p": 0.0}


def augmented(image: np.ndarray, depths: dict, crop: tuple, seed: int = 0, quirks: tuple = (), **settings):
    torch.manual_seed(seed)
    stored = {name: StoredDepth(depth) for name, depth in depths.items()}
    return TrainTransform(AugmentConfig(**STILL | settings), crop, quirks)(image, stored)


def raw(image: torch.Tensor) -> torch.Tensor:
    """Undo the normalization of an image."""
    return image * torch.tensor(IMAGE_STD).view(3, 1, 1) + torch.tensor(IMAGE_MEAN).view(3, 1, 1)


def smooth_frame(height: int = 60, width: int = 90) -> tuple[np.ndarray, dict]:
    """An image whose red is the column and whose green is twice the row, and depth maps with the same values."""
    rows, columns = np.indices((height, width))
    image = np.stack([columns, 2 * rows, np.full_like(rows, 50)], axis=-1).astype(np.uint8)
    return image, {"depth_gt": 1 + columns.astype(np.float32), "depth_teacher": 1 + 2 * rows.astype(np.float32)}


def test_normalize_image_maps_mean_to_0_and_std_to_1():
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 0], image[1, 2] = (124, 116, 104), (182, 173, 161)
    result = normalize_image(image)
    assert (result.dtype, result.shape) == (torch.float32, (3, 2, 3))
    torch.testing.assert_close(result[:, 0, 0], torch.zeros(3), atol=0.01, rtol=0)
    torch.testing.assert_close(result[:, 1, 2], torch.ones(3), atol=0.01, rtol=0)


def test_arrays_and_tensors_are_normalized_bit_identically():
    image = np.stack([np.arange(256, dtype=np.uint8)] * 3, axis=-1)[None]
    assert torch.equal(normalize_image(image), normalize_image(torch.from_numpy(image).permute(2, 0, 1)))


@pytest.mark.parametrize("seed", range(8))
def test_image_ground_truth_and_teacher_map_move_together(seed):
    image, depths = smooth_frame()
    image, depths = augmented(image, depths, (40, 60), seed, rotate_p=1.0, rotate_degrees=20.0, flip_p=0.5)
    assert image.shape == (3, 40, 60)
    assert depths["depth_gt"].shape == depths["depth_teacher"].shape == (1, 40, 60)
    red, green, blue = raw(image)
    inside = (blue > 49.5) & (depths["depth_gt"][0] > 0)
    assert inside.float().mean() > 0.6
    # Bilinear for the image and nearest for depths differ by half a pixel each way at most: 1 in red, 2 in green.
    assert (red - (depths["depth_gt"][0] - 1))[inside].abs().max() <= 1.5
    assert (green - (depths["depth_teacher"][0] - 1))[inside].abs().max() <= 3.0


def test_depths_are_not_interpolated_and_0_outside():
    image, _ = smooth_frame()
    two = np.where(np.indices((60, 90)).sum(0) % 2, 3.0, 70.0).astype(np.float32)
    _, depths = augmented(image, {"depth_gt": two}, (60, 90), rotate_p=1.0, rotate_degrees=30.0)
    assert set(depths["depth_gt"].unique().tolist()) == {0.0, 3.0, 70.0}


def test_rotations_stay_within_the_limit():
    image, _ = smooth_frame(61, 301)
    columns = np.broadcast_to(np.arange(1, 302, dtype=np.float32), (61, 301)).copy()
    lines = 1 + np.indices((61, 301))[0].astype(np.float32)
    shifts = []
    for seed in range(40):
        _, depths = augmented(image, {"depth_gt": columns, "row": lines}, (61, 301), seed, rotate_p=1.0, rotate_degrees=2.5)
        middle_row = depths["row"][0, 30]
        shifts.append(float(middle_row[250] - middle_row[50]) / 200)
    degrees = np.rad2deg(np.arctan(shifts))
    assert np.abs(degrees).max() <= 2.5 + 0.3  # the rows are whole numbers
    assert degrees.min() < -1.5
    assert degrees.max() > 1.5


def test_a_flip_mirrors_everything():
    image, depths = smooth_frame()
    mirrored, moved = augmented(image, depths, (60, 90), flip_p=1.0)
    torch.testing.assert_close(mirrored, normalize_image(image).flip(-1))
    for name, depth in depths.items():
        torch.testing.assert_close(moved[name][0], torch.tensor(depth).flip(-1))


def test_crops_cover_the_whole_frame():
    image, depths = smooth_frame()
    corners = set()
    for seed in range(300):
        _, moved = augmented(image, depths, (56, 86), seed)
        corners.add((int(moved["depth_teacher"][0, 0, 0] - 1) // 2, int(moved["depth_gt"][0, 0, 0]) - 1))
    assert corners == {(top, left) for top in range(5) for left in range(5)}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gamma": (2.0, 2.0)}, lambda image: image**2 / 255),
        ({"brightness": (1.5, 1.5)}, lambda image: image * 1.5),
        ({"colour": (0.5, 0.5)}, lambda image: image * 0.5),
    ],
)
def test_color_jitter_changes_only_the_image(settings, expected):
    image, depths = smooth_frame(120, 200)
    same = {"gamma": (1.0, 1.0), "brightness": (1.0, 1.0), "colour": (1.0, 1.0)}
    result, moved = augmented(image, depths, (120, 200), colour_p=1.0, **same | settings)
    wanted = expected(torch.tensor(image).permute(2, 0, 1).double()).clamp(0, 255)
    torch.testing.assert_close(raw(result).double(), wanted, atol=1e-3, rtol=1e-4)
    for name, depth in depths.items():
        torch.testing.assert_close(moved[name][0], torch.tensor(depth))


def test_channels_get_different_factors():
    image = np.full((20, 20, 3), 100, np.uint8)
    result, _ = augmented(image, {}, (20, 20), colour_p=1.0, gamma=(1.0, 1.0), brightness=(1.0, 1.0), colour=(0.8, 1.2))
    channels = raw(result).mean(dim=(1, 2))
    assert len(set(channels.round(decimals=2).tolist())) == 3
    assert ((channels >= 80) & (channels <= 120)).all()


@pytest.mark.parametrize("name", ["rotate_p", "flip_p", "colour_p"])
def test_probabilities_are_kept(name):
    image, depths = smooth_frame()
    still, _ = augmented(image, depths, (60, 90))
    changed = [not torch.equal(augmented(image, depths, (60, 90), seed, **{name: 0.3})[0], still) for seed in range(200)]
    assert 0.2 < np.mean(changed) < 0.4


@pytest.mark.parametrize("quirks", [(), ("teacher_not_rotated",), ("gamma_on_255",)])
@pytest.mark.parametrize(
    ("size", "crop", "degrees"),
    [
        ((61, 90), (40, 64), 10.0),
        ((64, 95), (64, 95), 2.5),
        ((48, 300), (16, 16), 45.0),
    ],  # the last crop may be outside the rotated frame
)
def test_augmentation_is_bit_identical_to_torchvision(size, crop, degrees, quirks):
    """For crops whose number of values is a multiple of 32; see docs/data.md on others."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    stored = {
        "depth_gt": StoredDepth(rng.integers(0, 2**16, size, dtype=np.uint16), 1 / 256),
        "depth_teacher": StoredDepth(rng.integers(0, 2**16, size, dtype=np.uint16), 80 / 65535),
    }
    depths = {"depth_gt": stored["depth_gt"].values / np.float32(256), "depth_teacher": stored["depth_teacher"].to_meters()}
    augment = AugmentConfig(rotate_degrees=degrees)
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        found, moved = TrainTransform(augment, crop, quirks)(image, stored, generator)
        torch.manual_seed(seed)
        expected, expected_depths = TorchvisionChain(augment, crop, quirks)(image, depths)
        assert torch.equal(found, expected)
        assert all(torch.equal(moved[name], depth) for name, depth in expected_depths.items())
        assert torch.equal(generator.get_state(), torch.get_rng_state())


@pytest.mark.parametrize("degrees", [-45.0, -2.5, 0.1, 2.5, 45.0])
def test_uninitialized_memory_is_never_sampled(monkeypatch, degrees):
    rng = np.random.default_rng(0)
    image, depth = rng.integers(0, 256, (48, 120, 3), np.uint8), rng.integers(0, 2**16, (48, 120), np.uint16)
    boxes = [Box(top, left, 16, 16) for top in (0, 16, 32) for left in (0, 52, 104)]
    expected = [turned(degrees, box, image, depth) for box in boxes]
    monkeypatch.setattr(np, "empty", lambda shape, kind: np.full(shape, np.nan, kind))
    for box, arrays in zip(boxes, expected, strict=True):
        for found, array in zip(turned(degrees, box, image, depth), arrays, strict=True):
            np.testing.assert_array_equal(found, array)


def turned(degrees: float, box: Box, image: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    turn = Rotation(degrees, depth.shape, box)
    return turn.bilinear(image), turn.nearest({"depth": depth})["depth"]


# -- quirks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_teacher_not_rotated_changes_only_the_rotation_of_the_teacher(seed):
    frame, crop = smooth_frame(), (40, 60)
    settings = {"flip_p": 0.5, "colour_p": 0.5, "rotate_degrees": 20.0}
    image, depths = augmented(*frame, crop, seed, rotate_p=1.0, **settings)
    quirky_image, quirky = augmented(*frame, crop, seed, ("teacher_not_rotated",), rotate_p=1.0, **settings)
    assert list(quirky) == list(depths)
    assert torch.equal(quirky_image, image)
    assert torch.equal(quirky["depth_gt"], depths["depth_gt"])
    assert not torch.equal(quirky["depth_teacher"], depths["depth_teacher"])
    teacher = quirky["depth_teacher"][0]
    rows = (teacher[0, 0] - 1) / 2 + torch.arange(40)
    assert torch.equal(teacher, (1 + 2 * rows)[:, None].expand(40, 60))  # still one depth per row, so it is not rotated


@pytest.mark.parametrize("seed", range(6))
def test_teacher_not_rotated_has_no_effect_without_rotation(seed):
    frame, crop, settings = smooth_frame(), (40, 60), {"flip_p": 0.5, "colour_p": 0.5}
    image, depths = augmented(*frame, crop, seed, **settings)
    quirky_image, quirky = augmented(*frame, crop, seed, ("teacher_not_rotated",), **settings)
    assert torch.equal(quirky_image, image)
    assert all(torch.equal(quirky[name], depths[name]) for name in depths)


@pytest.mark.parametrize("gamma", [0.9, 1.1])
def test_gamma_on_255_scales_brightness_and_clips(gamma):
    image, _ = smooth_frame(120, 200)
    settings = {"gamma": (gamma, gamma), "brightness": (1.2, 1.2), "colour": (0.9, 0.9)}
    result, _ = augmented(image, {}, (120, 200), 0, ("gamma_on_255",), colour_p=1.0, **settings)
    wanted = (torch.tensor(image).permute(2, 0, 1).double() ** gamma * 1.2 * 0.9).clamp(0, 255)
    torch.testing.assert_close(raw(result).double(), wanted, atol=1e-3, rtol=1e-4)


def test_gamma_on_255_differs_by_a_power_of_255_from_the_same_draws():
    image = np.full((20, 20, 3), 40, np.uint8)
    draws = {"colour_p": 1.0, "gamma": (0.9, 1.1), "brightness": (1.0, 1.0), "colour": (0.9, 1.1)}
    plain, quirky = (raw(augmented(image, {}, (20, 20), 3, quirks, **draws)[0]) for quirks in ((), ("gamma_on_255",)))
    factor = (quirky / plain).mean(dim=(1, 2))
    torch.testing.assert_close(factor, factor[:1].expand(3), rtol=1e-4, atol=0)  # one gamma for all channels
    assert 255**-0.1 <= factor[0] <= 255**0.1
    assert abs(factor[0] - 1) > 0.01


@pytest.mark.parametrize("quirks", [("teacher_not_rotated",), ("gamma_on_255",)])
def test_data_quirks_do_not_change_the_random_numbers(quirks):
    image, depths = smooth_frame()
    everything = {"rotate_p": 0.5, "flip_p": 0.5, "colour_p": 0.5}
    for seed in range(6):
        augmented(image, depths, (40, 60), seed, **everything)
        state = torch.get_rng_state()
        augmented(image, depths, (40, 60), seed, quirks, **everything)
        assert torch.equal(torch.get_rng_state(), state)
