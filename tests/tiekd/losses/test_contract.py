"""What every loss keeps to."""

import pytest
import torch
from support.losses import total_loss
from torch.nn.functional import one_hot

from tiekd.bins import DepthBins, target_dpm
from tiekd.config import LossConfig, override
from tiekd.config.specs import LOSSES
from tiekd.distill.loop import evaluate_loss
from tiekd.losses import build_loss
from tiekd.models.prediction import Prediction

WEIGHTS = {  # of the published losses
    "si": {"si": 1.0},
    "si_chamfer": {"si": 10.0, "chamfer": 0.1},  # as AdaBins weighs them
    "mse": {"mse": 1.0},
    "ssim": {"ssim": 1.5},
    "ssim_si": {"ssim": 1.5, "si": 1.0},
    "ssim_mse": {"ssim": 1.5, "mse": 1.0},
    "l_dpm": {"dpm": 1.0},
    "l_depth": {"depth": 1.0},
    "tie_kd": {"dpm": 10 * 0.1, "depth": 10 * (1 - 0.1)},
}
CHANGED = {
    "alpha": 0.5,
    "scale": 2.0,
    "dpm": "two_hot",
    "sigma": 1.5,
    "temperature": 0.2,
    "si_weight": 3.0,
    "si_mean_weight": 0.9,
    "mse_weight": 3.0,
    "ssim_weight": 3.0,
    "ssim_range": 2.0,
    "chamfer_weight": 3.0,
    "fov": 90.0,
}
# Of `prediction` against `target`, before there were quirks: a corrected run keeps its numbers.
VALUES = {
    "si": 0.08660816254252586,
    "mse": 0.08925917097161372,
    "ssim": 0.30453509966082604,
    "ssim_si": 0.3911432622033519,
    "ssim_mse": 0.39379427063243977,
    "l_dpm": 0.835231971432501,
    "l_depth": 0.203023399773884,
    "tie_kd": 2.662442569397457,
}
SI_FLOOR = 1e-6  # the scale-invariant root stays this far from 0, where its slope would be infinite

OF_BINS = {"l_dpm", "cross_entropy", "ordinal"}  # read the distribution alone
ONE_BIN = {"cross_entropy", "ordinal"}  # whose target is the nearest bin
NAMES = [name for name, spec in LOSSES.items() if not spec.of_image]  # others are tested with parts
WITH_OPTIMUM = [name for name in NAMES if name != "ranking"]  # its cost falls as the order grows clearer

every_loss = pytest.mark.parametrize("name", NAMES)
with_optimum = pytest.mark.parametrize("name", WITH_OPTIMUM)


def perfect(config, target) -> Prediction:
    bins = DepthBins(config.bins.n_bins, *config.data.depth_range, config.bins.spacing)
    if config.loss.name in ONE_BIN:
        nearest = (target - bins.centers.view(1, -1, 1, 1)).abs().argmin(dim=1)
        dpm = one_hot(nearest, bins.n_bins).movedim(3, 1).double()
    else:
        dpm = target_dpm(target, bins, config.loss.sigma, config.loss.temperature)
    logits = dpm.clamp_min(1e-300).log()
    centers = target.flatten(1).clone()  # a bin for each depth
    return Prediction(target.clone().requires_grad_(), logits.requires_grad_(), centers.requires_grad_())


def _trains(name: str, head: str) -> bool:
    return LOSSES[name].needs_head and LOSSES[name].head == head


def gradients(loss: torch.Tensor, prediction: Prediction) -> list[torch.Tensor]:
    """d loss / d depth, d logits and d bin centers; zeros where the loss does not read one."""
    found = torch.autograd.grad(loss, prediction, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, prediction, strict=True)]


@every_loss
def test_a_loss_is_a_positive_finite_scalar(config, prediction, target, name):
    loss = total_loss(config(name), prediction, target)
    assert loss.shape == ()
    assert loss.isfinite()
    assert loss > 0


@pytest.mark.parametrize("name", VALUES)
def test_a_corrected_run_has_the_numbers_it_always_had(config, prediction, target, name):
    assert total_loss(config(name), prediction, target).item() == pytest.approx(VALUES[name], rel=1e-12)


@every_loss
def test_terms_are_named_and_their_weighted_sum_is_the_loss(config, prediction, target, name):
    values = evaluate_loss(build_loss(config(name)), prediction, {"depth_teacher": target})
    weights = {term: weighted.weight for term, weighted in build_loss(config(name)).terms.items()}
    assert weights == pytest.approx(WEIGHTS.get(name, weights))
    assert values.keys() == weights.keys() | {"loss"}
    total = sum(weight * values[term] for term, weight in weights.items())
    torch.testing.assert_close(values["loss"], total)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_BINS])
def test_a_factor_on_the_depth_costs_nothing_where_the_entry_says_so(config, prediction, target, name):
    once, scaled = (
        total_loss(config(name), prediction._replace(depth=factor * prediction.depth), target).item() for factor in (1.0, 1.5)
    )
    assert (scaled == pytest.approx(once, rel=2e-3)) == LOSSES[name].frees_scale


@with_optimum
def test_a_perfect_prediction_costs_nothing(config, target, name):
    loss = total_loss(config(name), perfect(config(name), target), target)
    weighted = build_loss(config(name)).terms.get("si")
    assert loss.item() == pytest.approx(0, abs=SI_FLOOR * (weighted.weight if weighted else 1))


@with_optimum
def test_a_perfect_prediction_does_not_move(config, target, name):
    prediction = perfect(config(name), target)
    for gradient in gradients(total_loss(config(name), prediction, target), prediction):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)


@every_loss
def test_a_step_down_the_gradient_lowers_the_loss(config, prediction, target, name):
    before = total_loss(config(name), prediction, target)
    moved = [p - 0.1 * gradient for p, gradient in zip(prediction, gradients(before, prediction), strict=True)]
    assert total_loss(config(name), Prediction(*moved), target) < before


@every_loss
def test_the_gradient_reaches_what_the_loss_is_about(config, prediction, target, name):
    depth, logits, centers = gradients(total_loss(config(name), prediction, target), prediction)
    assert (depth != 0).any() == (name not in OF_BINS)
    assert (logits != 0).any() == _trains(name, "dpm")
    assert (centers != 0).any() == _trains(name, "adaptive_bins")


@every_loss
def test_no_gradient_reaches_the_teacher(config, prediction, target, name):
    teacher = target.clone().requires_grad_()
    total_loss(config(name), prediction, teacher).backward()
    assert teacher.grad is None


@every_loss
@pytest.mark.parametrize("invalid", [0.0, 1e-3, 10.1, 1e4], ids=["unmeasured", "at the minimum", "too far", "much too far"])
def test_an_invalid_pixel_changes_neither_value_nor_gradient(config, prediction, target, name, invalid):
    where = torch.zeros_like(target, dtype=torch.bool)
    where[0, 0, 2, 3] = where[1, 0, 15:, 20:] = True
    plain = total_loss(config(name), prediction, target.masked_fill(where, 0.0))
    depth, logits, centers = prediction
    other = Prediction(depth.masked_fill(where, 7.0), logits.masked_fill(where, 3.0), centers)
    changed = total_loss(config(name), other, target.masked_fill(where, invalid))
    torch.testing.assert_close(changed, plain, rtol=1e-10, atol=0)
    for before, after in zip(gradients(plain, prediction), gradients(changed, prediction), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-8, atol=1e-12)
        if before.dim() == 4:  # of pixels
            assert not before.masked_select(where.expand_as(before)).any()


@every_loss
def test_the_largest_depth_is_valid_and_the_smallest_is_not(config, prediction, target, name):
    only = {depth: total_loss(config(name), prediction, torch.full_like(target, depth)).item() for depth in (10.0, 1e-3)}
    assert only[10.0] > 0.01
    assert only[1e-3] == 0


@every_loss
def test_a_batch_without_a_valid_pixel_costs_and_moves_nothing(config, prediction, target, name):
    loss = total_loss(config(name), prediction, torch.zeros_like(target))
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in gradients(loss, prediction))


@every_loss
@pytest.mark.parametrize("setting", sorted(LossConfig.model_fields.keys() - {"name", "target", "parts"}))
def test_a_loss_depends_on_exactly_the_settings_that_it_declares_to_read(config, prediction, target, name, setting):
    default = config(name)
    changed = override(default, {f"loss.{setting}": CHANGED[setting]})
    differs = total_loss(default, prediction, target) != total_loss(changed, prediction, target)
    assert differs == (setting in LOSSES[name].reads)


@every_loss
def test_float32_agrees_with_float64(config, prediction, target, name):
    single = Prediction(*(p.float() for p in prediction))
    exact, rough = (total_loss(config(name), *inputs) for inputs in ((prediction, target), (single, target.float())))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.double(), exact, rtol=1e-4, atol=0)  # SSIM is a difference of near-equal moments
