"""Each quirk switched on alone, beside the corrected run: where it acts, and where it does not."""

import pytest
import torch
from support.losses import total_loss

from tiekd.bins import DepthBins, kl_divergence, target_dpm
from tiekd.config import override
from tiekd.config.quirks import QUIRKS
from tiekd.losses import build_loss
from tiekd.losses.depth import ssim_map
from tiekd.losses.released import kl_with_epsilon, padded_ssim_map, uniform_outside_dpm
from tiekd.models.prediction import Prediction

ACTS = [
    ("fixed_sigma", "tie_kd", {"sigma": 0.8}),
    ("ignored_weights", "mse", {"mse_weight": 3.0}),
    ("ignored_weights", "ssim_mse", {"mse_weight": 3.0}),
    ("ignored_weights", "ssim_si", {"si_weight": 3.0}),
    ("kl_epsilon", "l_dpm", {}),
    ("kl_epsilon", "tie_kd", {}),
    ("uniform_outside", "l_dpm", {"sigma": 1e-3}),
    ("uniform_outside", "tie_kd", {"sigma": 1e-3}),
    *[(quirk, loss, {}) for quirk in ("ssim_unit_range", "ssim_padded") for loss in ("ssim", "ssim_mse", "l_depth", "tie_kd")],
]
RESTS = [
    ("fixed_sigma", "tie_kd", {"sigma": 0.5}),
    ("fixed_sigma", "l_dpm", {"sigma": 0.8}),
    ("ignored_weights", "ssim_mse", {"mse_weight": 1.0}),
    ("ignored_weights", "si", {"si_weight": 3.0}),
    ("unmasked", "tie_kd", {}),  # the fixture is valid everywhere
    ("rows_from_110", "tie_kd", {}),  # and no crop of its data set is 704 px wide
    ("kl_epsilon", "l_depth", {}),
    ("uniform_outside", "l_depth", {}),
    ("ssim_unit_range", "ssim", {"ssim_range": 1.0}),
    *[(quirk, loss, {}) for quirk in ("ssim_unit_range", "ssim_absolute", "ssim_padded") for loss in ("mse", "l_dpm")],
    *[(quirk, "tie_kd", {}) for quirk in ("alpha_unbounded", "baseline_on_teacher", "teacher_not_rotated", "gamma_on_255")],
]


@pytest.fixture
def switched(config, prediction, target):
    """The loss of a corrected run, and with one quirk alone."""

    def compute(quirk, name, settings=None, prediction=prediction, target=target) -> list[float]:
        runs = [config(name, fidelity, **settings or {}) for fidelity in ("corrected", [quirk])]
        return [total_loss(run, prediction, target).item() for run in runs]

    return compute


def test_the_lists_here_name_every_quirk():
    assert {quirk for quirk, _, _ in RESTS} == QUIRKS.keys()


@pytest.mark.parametrize(("quirk", "name", "settings"), ACTS, ids=str)
def test_a_quirk_changes_the_losses_that_it_is_about(switched, quirk, name, settings):
    corrected, released = switched(quirk, name, settings)
    assert released != pytest.approx(corrected, rel=1e-9)


@pytest.mark.parametrize(("quirk", "name", "settings"), RESTS, ids=str)
def test_a_quirk_changes_nothing_where_it_does_not_act(switched, quirk, name, settings):
    corrected, released = switched(quirk, name, settings)
    assert released == corrected


# -- what exactly each changes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mse", "ssim", "l_dpm", "tie_kd"])
def test_unmasked_invalid_pixels_take_part(config, switched, prediction, target, name):
    holes = target.masked_fill(target > 8, 0.0)
    corrected, released = switched("unmasked", name, target=holes)
    assert released != pytest.approx(corrected, rel=1e-6)
    loss = total_loss(config(name, ["unmasked"]), prediction, holes)
    (gradient,) = torch.autograd.grad(loss, prediction.dpm_logits if name == "l_dpm" else prediction.depth)
    assert gradient[(holes == 0).expand_as(gradient)].any()


def test_unmasked_the_scale_invariant_loss_takes_all_above_0(switched, target):
    assert len(set(switched("unmasked", "si", target=target.masked_fill(target > 8, 0.0)))) == 1
    assert len(set(switched("unmasked", "si", target=target.masked_fill(target > 8, 11.0)))) == 2  # beyond 10 m


def test_fixed_sigma_is_half_a_metre(config, prediction, target):
    fixed, half = config("tie_kd", ["fixed_sigma"], sigma=0.8), config("tie_kd", sigma=0.5)
    assert total_loss(fixed, prediction, target) == total_loss(half, prediction, target)


def test_ignored_weights_are_1(config, prediction, target):
    ignored, one = config("ssim_si", ["ignored_weights"], si_weight=3.0), config("ssim_si", si_weight=1.0)
    assert total_loss(ignored, prediction, target) == total_loss(one, prediction, target)


def test_an_unbounded_alpha_rewards_a_large_l_depth(config):
    terms = build_loss(config("tie_kd", ["alpha_unbounded"], alpha=1.5)).terms
    assert terms["dpm"].weight == pytest.approx(15)
    assert terms["depth"].weight == pytest.approx(-5)


def test_the_absolute_covariance_forgives_opposite_structure_and_nothing_else(switched, target):
    mean = target.mean(dim=(2, 3), keepdim=True)
    mirrored, stretched = Prediction(2 * mean - target), Prediction(mean + 1.1 * (target - mean))
    corrected, released = switched("ssim_absolute", "l_depth", prediction=mirrored)
    assert released < corrected - 0.1
    corrected, released = switched("ssim_absolute", "l_depth", prediction=stretched)
    assert released == pytest.approx(corrected, rel=1e-12)


def test_the_unit_range_is_a_range_of_1_m(config, prediction, target):
    unit, one = config("ssim", ["ssim_unit_range"]), config("ssim", ssim_range=1.0)
    assert total_loss(unit, prediction, target) == total_loss(one, prediction, target)


def test_padded_windows_are_the_others_but_at_the_border(prediction, target):
    depth = prediction.depth.detach()
    padded, inside = padded_ssim_map(depth, target, 10.0), ssim_map(depth, target, 10.0)
    assert padded.shape == target.shape
    # Its window is one of float32: it sums to 1 within 1e-7, times the square of 9 m beside constants of 0.09 m^2.
    torch.testing.assert_close(padded[..., 5:-5, 5:-5], inside, rtol=0, atol=1e-4)
    assert padded[..., :5, :].max() > inside.max()  # both maps fall to 0 together


def test_padded_windows_on_an_invalid_pixel_do_not_count(config, prediction, target):
    holes = target.clone()
    holes[:, :, 2, 3] = 0.0
    padded = config("l_depth", ["ssim_padded"])
    changed = prediction._replace(depth=prediction.depth.masked_fill(holes == 0, 7.0))
    assert total_loss(padded, prediction, holes) == total_loss(padded, changed, holes)


def test_a_depth_far_from_every_bin_gets_the_uniform_dpm_and_others_their_own():
    bins = DepthBins(16, 1e-3, 10.0)
    depth = torch.tensor([0.0, 0.4, 5.0, 9.9, 60.0], dtype=torch.float64).view(1, 1, 1, 5)
    released, corrected = uniform_outside_dpm(depth, bins, 0.5, 0.7), target_dpm(depth, bins, 0.5, 0.7)
    torch.testing.assert_close(released[..., :4], corrected[..., :4], rtol=0, atol=1e-6)  # centers of float32
    assert corrected[0, -1, 0, 4] == 1  # the nearest bin
    assert torch.equal(released[0, :, 0, 4], torch.full((16,), 1 / 16, dtype=torch.float64))


@pytest.mark.parametrize("spacing", ["log", "inverse"])
def test_other_spacings_keep_their_centers(spacing):
    bins = DepthBins(16, 0.5, 10.0, spacing)
    depth = torch.full((1, 1, 1, 1), 5.0)
    torch.testing.assert_close(uniform_outside_dpm(depth, bins, 0.5), target_dpm(depth, bins, 0.5))


def test_the_epsilons_are_small_until_a_probability_is(target):
    q = target_dpm(target, DepthBins(16, 1e-3, 10.0), 0.5)
    near = torch.randn(q.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(kl_with_epsilon(q, near), kl_divergence(q, near), rtol=1e-3, atol=1e-4)
    assert kl_with_epsilon(q, 100 * near).max() < 20  # about -log 1e-7
    assert kl_divergence(q, 100 * near).max() > 100


def test_a_term_whose_probability_underflows_is_dropped():
    q = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1)
    logits = torch.tensor([0.0, -200.0]).view(1, 2, 1, 1)
    found = kl_with_epsilon(q, logits).item()
    assert found == pytest.approx(-0.5 * torch.tensor(2.0).log().item(), rel=1e-5)


@pytest.fixture
def wide(config):
    """A prediction, a target of 136 x 704 px whose left is invalid, and the config of a loss on KITTI."""
    generator = torch.Generator().manual_seed(0)
    target = 1 + 70 * torch.rand(1, 1, 136, 704, generator=generator, dtype=torch.float64)
    target[..., :300] = 0.0
    depth = target + torch.rand(target.shape, generator=generator, dtype=torch.float64)
    logits = torch.randn(1, 16, 136, 704, generator=generator, dtype=torch.float64)
    kitti = {"data.dataset": "kitti"}
    return (
        Prediction(depth.requires_grad_(), logits.requires_grad_()),
        target,
        lambda name, fidelity: override(config(name, fidelity), kitti),
    )


@pytest.mark.parametrize(("name", "leaf"), [("l_dpm", "dpm_logits"), ("l_depth", "depth")])
@pytest.mark.parametrize("others", [[], ["unmasked"]], ids=["masked", "unmasked"])
def test_the_first_110_rows_do_nothing_and_rows_of_zeros_count(wide, name, leaf, others):
    prediction, target, config = wide
    loss = total_loss(config(name, ["rows_from_110", *others]), prediction, target)
    (gradient,) = torch.autograd.grad(loss, getattr(prediction, leaf))
    assert not gradient[:, :, :110].any()
    assert gradient[:, :, 110:].any()
    below = Prediction(*(maps[:, :, 110:] for maps in prediction[:2]))
    undiluted = total_loss(config(name, others), below, target[:, :, 110:])
    assert 0 < loss < undiluted
    if name == "l_dpm":
        columns = 704 if others else 404
        share = 26 * columns / (26 * columns + 110 * 704)
        assert loss.item() == pytest.approx(share * undiluted.item(), rel=1e-12)
