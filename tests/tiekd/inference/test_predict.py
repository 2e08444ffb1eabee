"""Prediction: flip averaging, the range, distributions, and images of any size."""

import numpy as np
import pytest
import torch
from torch import nn

from tiekd.bins import DepthBins
from tiekd.config import RunConfig, build, override
from tiekd.data import open_frames
from tiekd.data.transforms import normalize_image
from tiekd.errors import DivergedError, UserError
from tiekd.inference.inputs import InputImage
from tiekd.inference.predict import predict
from tiekd.inference.predict_images import fit_size, predict_images
from tiekd.models.prediction import Prediction
from tiekd.models.registry import build_network

CPU = torch.device("cpu")
GROUND_TRUTH = {"name": "si", "target": "ground_truth"}
DATA = {"dataset": "synthetic-indoor", "train_frames": 8, "test_frames": 4, "frame_size": [64, 96], "train_crop": [48, 64]}
CONFIG = build({"data": DATA, "student": {"name": "tiny", "head": "dpm"}, "bins": {"n_bins": 16}, "loss": GROUND_TRUTH})
REGRESSION = build({"data": {"dataset": "nyu"}, "student": {"name": "tiny", "head": "regression"}, "loss": GROUND_TRUTH})
LARGER = DATA | {"frame_size": [128, 192], "train_crop": [128, 192]}
ADABINS = build(
    {
        "data": LARGER,
        "student": {"name": "adabins", "encoder": "test_efficientnet", "decoder_channels": [32, 24, 16, 16, 16]},
    }
)
BTS = build({"data": LARGER, "student": {"name": "bts", "encoder": "test_resnet", "decoder_channels": [48, 32, 24, 16, 8]}})


def flips(config: RunConfig, flip_tta: bool) -> RunConfig:
    return override(config, {"evaluation.flip_tta": flip_tta})


def random_network(config: RunConfig) -> nn.Module:
    torch.manual_seed(1)
    return build_network(config).eval()


def random_image(*size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def of_photos(network: nn.Module, config: RunConfig, *images: np.ndarray, failed=None, batch_size: int = 1):
    photos = [InputImage(f"photo{number}", image) for number, image in enumerate(images)]
    return list(predict_images(network, photos, config, CPU, failed or pytest.fail, batch_size))


class Lopsided(nn.Module):
    """Depth of a pixel: its red value plus a tenth of its column."""

    def forward(self, image: torch.Tensor) -> Prediction:
        return Prediction(image[:, :1] + torch.arange(image.shape[-1]) / 10)


def test_flip_tta_is_the_mean_with_the_flipped_back_prediction_of_the_mirrored_image():
    image = torch.tensor([2.0, 4.0, 8.0]).expand(1, 3, 1, 3)
    straight = predict(Lopsided(), image, flips(REGRESSION, False)).depth
    torch.testing.assert_close(straight, torch.tensor([[[[2.0, 4.1, 8.2]]]]))
    both = predict(Lopsided(), image, flips(REGRESSION, True)).depth
    mirrored_back = torch.tensor([2.0 + 0.2, 4.0 + 0.1, 8.0 + 0.0])
    torch.testing.assert_close(both, (straight + mirrored_back) / 2)


@pytest.mark.parametrize("flip_tta", [False, True])
def test_a_prediction_is_kept_within_the_range_of_the_data(flip_tta):
    image = torch.tensor([-5.0, 4.0, 500.0]).expand(1, 3, 2, 3)
    depth = predict(Lopsided(), image, flips(REGRESSION, flip_tta)).depth
    assert depth.min() == pytest.approx(1e-3)
    assert depth.max() == 10.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_depth_that_is_not_finite_is_a_failure(value):
    """Clamping would hide an infinite depth."""

    class Broken(nn.Module):
        def forward(self, image: torch.Tensor) -> Prediction:
            return Prediction(image[:, :1].masked_fill(image[:, :1] == image[:, :1].max(), value))

    assert predict(Broken(), torch.arange(12.0).view(1, 3, 2, 2), REGRESSION).depth.isnan().any()
    with pytest.raises(DivergedError, match=r"the prediction for photo0 is not finite"):
        of_photos(Broken(), CONFIG, random_image(64, 96))


@pytest.mark.parametrize("flip_tta", [False, True])
def test_the_expectation_of_the_distributions_is_the_depth(flip_tta):
    config = flips(CONFIG, flip_tta)
    found = predict(random_network(config), torch.rand(2, 3, 64, 96), config)
    assert found.dpm.shape == (2, 16, 64, 96)
    torch.testing.assert_close(found.dpm.sum(dim=1), torch.ones(2, 64, 96))
    expected = torch.einsum(
        "bkhw,k->bhw", found.dpm, DepthBins(config.bins.n_bins, *config.data.depth_range, config.bins.spacing).centers
    )
    torch.testing.assert_close(expected, found.depth[:, 0])


@pytest.mark.parametrize("flip_tta", [False, True])
def test_distributions_and_entropy_are_made_where_they_are_asked_for(flip_tta):
    config = flips(CONFIG, flip_tta)
    found = predict(random_network(config), torch.rand(2, 3, 64, 96), config)
    rows, columns = torch.tensor([0, 17, 63]), torch.tensor([95, 4])
    torch.testing.assert_close(found.dpm_at(rows, columns), found.dpm[:, :, rows][..., columns])
    entropy = -torch.xlogy(found.dpm, found.dpm).sum(dim=1, keepdim=True) / np.log(16)
    torch.testing.assert_close(found.entropy, entropy)


def test_a_head_without_distributions_gives_none():
    assert predict(Lopsided(), torch.zeros(1, 3, 2, 3), REGRESSION).dpm is None


# -- images of any size -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((352, 1216), (352, 1216)),
        ((375, 1242), (375, 1242)),  # KITTI's frames before they are cut: 9 % more pixels
        ((704, 2432), (352, 1216)),
        ((176, 608), (352, 1216)),
        ((3000, 4000), (567, 755)),
        ((4000, 3000), (755, 567)),
    ],
)
def test_an_image_is_seen_with_as_many_pixels_as_the_frames_have(size, fitted):
    assert fit_size(size, (352, 1216)) == fitted


def test_an_image_that_is_too_long_is_told_and_left_out():
    config, lines = CONFIG, []
    found = of_photos(random_network(config), config, random_image(4, 4000), random_image(64, 96), failed=lines.append)
    assert [each.image.name for each in found] == ["photo1"]
    assert lines == ["photo0: 4x4000 px would be processed at 2x2479; the short side needs at least 32 px"]


def test_a_frame_of_the_data_set_gets_the_depth_that_is_evaluated():
    config = CONFIG
    network, frame = random_network(config), open_frames(config.data, "test").load(0)
    (found,) = of_photos(network, config, frame.image)
    assert found.network_size == frame.size
    np.testing.assert_array_equal(found.depth, predict(network, normalize_image(frame.image)[None], config).depth[0, 0])


def test_depth_and_entropy_have_the_size_of_the_image():
    config = CONFIG
    found = of_photos(random_network(config), config, random_image(130, 170), random_image(31, 40))
    assert [each.depth.shape for each in found] == [each.entropy.shape for each in found] == [(130, 170), (31, 40)]
    assert all(0 < each.entropy.min() <= each.entropy.max() <= 1 for each in found)


def test_batches_hold_images_of_one_size_and_change_nothing():
    config = CONFIG
    network = random_network(config)
    sizes = []
    network.register_forward_pre_hook(lambda module, args: sizes.append(tuple(args[0].shape[0:1] + args[0].shape[2:])))
    images = [random_image(64, 96), random_image(64, 96), random_image(64, 96), random_image(100, 100), random_image(64, 96)]
    alone = of_photos(network, flips(config, False), *images)
    assert sizes == [(1, 64, 96)] * 3 + [(1, 78, 78), (1, 64, 96)]
    sizes.clear()
    together = of_photos(network, flips(config, False), *images, batch_size=2)
    assert sizes == [(2, 64, 96), (1, 64, 96), (1, 78, 78), (1, 64, 96)]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.depth, other.depth, rtol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (127, 201), (20, 33)])
def test_the_distribution_at_a_pixel_has_the_depth_there_as_its_expectation(size):
    config = CONFIG
    (found,) = of_photos(random_network(config), config, random_image(*size))
    centers = DepthBins(config.bins.n_bins, *config.data.depth_range, config.bins.spacing).centers.numpy()
    for pixel in [(0, 0), (size[1] - 1, size[0] - 1), (7, 13)]:
        distribution = found.distribution(*pixel)
        assert distribution.sum() == pytest.approx(1, abs=1e-5)
        assert distribution @ centers == pytest.approx(found.depth[pixel[1], pixel[0]], rel=1e-4)


def test_a_pixel_outside_the_image_is_refused():
    config = CONFIG
    (found,) = of_photos(random_network(config), config, random_image(64, 96))
    with pytest.raises(UserError, match=r"pixel 96,0 lies outside the image of 96 x 64 px \(width x height\)"):
        found.distribution(96, 0)


@pytest.mark.parametrize("config", [ADABINS, BTS], ids=["adabins", "bts"])
def test_teachers_tell_the_depth_of_images_without_distributions(config):
    (found,) = of_photos(random_network(config), config, random_image(100, 150))
    assert found.network_size == (128, 192)
    assert found.depth.shape == (100, 150)
    assert found.entropy is None
    with pytest.raises(UserError, match="no distributions over depth bins"):
        found.distribution(0, 0)


def test_what_adabins_cannot_see_is_told_and_left_out():
    network, lines = random_network(ADABINS), []
    found = of_photos(network, ADABINS, random_image(200, 200), random_image(128, 192), failed=lines.append)
    assert [each.image.name for each in found] == ["photo1"]
    assert len(lines) == 1
    assert lines[0].startswith("photo0: adabins divides an image of 157x157 into 4 x 4 patches of 32 x 32 px; valid: 17 ")
