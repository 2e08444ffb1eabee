"""Under `fidelity: released`, the numbers of the released code, and those of its formulas where none were stored."""

import math

import numpy as np
import pytest
import torch
from support.losses import total_loss

from tiekd.bins import DepthBins
from tiekd.config import RunConfig, build
from tiekd.models.dpm_head import DPMHead
from tiekd.models.prediction import Prediction

SINGLE, DOUBLE = 1e-5, 1e-6  # relative; the float64 run kept some constants in float32
# Weights of 7 are those that the released code ignores.
BY_DEPTH = {
    "SI": ("SI", {"name": "si"}),
    "SI_w10": ("SI", {"name": "si", "si_weight": 10}),
    "MSE": ("MSE", {"name": "mse", "mse_weight": 7}),
    "SSIM_w1.5": ("SSIM", {"name": "ssim"}),
    "SSIM_MSE_w1.5": ("SSIM, MSE", {"name": "ssim_mse", "mse_weight": 7}),
    "SSIM_SI_w1.5": ("SSIM, SI", {"name": "ssim_si", "si_weight": 7}),
    "L_DEPTH": ("L_DEPTH", {"name": "l_depth"}),
}
every_case = pytest.mark.parametrize("name", ["nyu_noise", "nyu_smooth", "kitti_small", "kitti_w704_small"])


def released(n_bins: int, max_depth: float, **loss) -> RunConfig:
    data = {"dataset": "kitti" if max_depth == 80 else "nyu", "min_depth": 1e-3, "max_depth": max_depth}
    teacher = {"name": "made", "maps": "maps"}
    return build({"data": data, "teacher": teacher, "bins": {"n_bins": n_bins}, "loss": loss, "fidelity": "released"})


class Case:
    """One case of the oracle: what went in, what came out, and the run that should give it again."""

    def __init__(self, page: dict, arrays: dict, name: str):
        self.page, self.recipe, self.second_sigma = page, page["recipe"], page["sigmas"][1]
        self.stored = lambda key: arrays[f"{name}/{key}"]
        shape = [self.recipe[side] for side in "BCHW"]
        logits = np.random.default_rng(self.recipe["seed"]).standard_normal(shape) * self.recipe["scale"]
        self.inputs = [
            torch.from_numpy(array) for array in (self.stored("depth"), logits.astype(np.float32), self.stored("kd"))
        ]

    def config(self, **loss) -> RunConfig:
        return released(self.recipe["C"], self.recipe["mx"], **loss)

    def compute(self, config: RunConfig, dtype: torch.dtype, joint: bool = False) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The loss, and the depth and logits that are free; with `joint`, depth is the expectation under the logits."""
        depth, logits, target = (tensor.to(dtype) for tensor in self.inputs)
        leaves = [depth.requires_grad_(), logits.requires_grad_()]
        if joint:
            # Summed as the oracle did: where the covariance is about 0, a last digit of depth decides the slope of its size.
            edges = torch.linspace(self.recipe["mn"], self.recipe["mx"], self.recipe["C"] + 1)
            centers = 0.5 * (edges[:-1] + edges[1:]).view(1, -1, 1, 1)
            depth = (torch.softmax(logits, dim=1) * centers).sum(dim=1, keepdim=True)
        return total_loss(config, Prediction(depth, logits), target), leaves


@pytest.fixture
def case(oracle):
    pages = oracle("losses")["cases"]
    with np.load(oracle.folder / "losses.npz") as arrays:
        yield lambda name: Case(pages[name], arrays, name)


def relative(value: torch.Tensor, expected: float) -> float:
    return abs(value.item() - expected) / abs(expected)


def of_largest(gradient: torch.Tensor, stored: np.ndarray, stride: int) -> float:
    """The largest error over the largest entry; arrays that were too large are stored as each `stride`-th element."""
    gradient = gradient.numpy()
    gradient = gradient if gradient.shape == stored.shape else gradient.ravel()[::stride]
    return np.abs(gradient - stored).max() / np.abs(stored).max()


@every_case
@pytest.mark.parametrize("key", BY_DEPTH)
def test_losses_between_two_depths(case, parity, name, key):
    (label, loss), one = BY_DEPTH[key], case(name)
    value, (depth, _) = one.compute(one.config(**loss), torch.float32)
    (gradient,) = torch.autograd.grad(value, depth)
    parity(f"losses, float32: {label}", relative(value, one.page["values"][key]), SINGLE)
    parity(f"loss gradients, float32: {label}", of_largest(gradient, one.stored(f"grad_depth/{key}"), 37), SINGLE)
    value, _ = one.compute(one.config(**loss), torch.float64)
    parity(f"losses, float64: {label}", relative(value, one.page["values_float64_run"][key]), DOUBLE)


@every_case
@pytest.mark.parametrize("which", [0, 1], ids=["first sigma", "second sigma"])
def test_l_dpm(case, parity, name, which):
    one = case(name)
    sigma = one.page["sigmas"][which]
    config, key = one.config(name="l_dpm", sigma=sigma), f"L_DPM_s{sigma}"
    value, (_, logits) = one.compute(config, torch.float32)
    (gradient,) = torch.autograd.grad(value, logits)
    stride = one.page["stride_saved"]
    parity("losses, float32: L_DPM", relative(value, one.page["values"][f"{key}_mean"]), SINGLE)
    parity("loss gradients, float32: L_DPM", of_largest(gradient, one.stored(f"{key}/grad_logits"), stride), SINGLE)
    value, (_, logits) = one.compute(config, torch.float64)
    expected = one.page["values_float64_run"]
    parity("losses, float64: L_DPM", relative(value, expected[f"{key}_mean"]), DOUBLE)
    total = torch.autograd.grad(value, logits)[0].abs().sum()
    parity("loss gradients, float64: L_DPM", relative(total, expected[f"{key}_grad_logits_abs_sum"]), DOUBLE)


@every_case
def test_tie_kd_whose_sigma_is_not_what_the_config_says(case, parity, name):
    one = case(name)
    config, key = one.config(name="tie_kd", sigma=one.second_sigma), f"TIE_KD_w0.1_sigma_cfg{one.second_sigma}"
    value, leaves = one.compute(config, torch.float32)
    by_depth, by_logits = torch.autograd.grad(value, leaves)
    stride = one.page["stride_saved"]
    parity("losses, float32: TIE-KD", relative(value, one.page["values"][key]), SINGLE)
    parity("loss gradients, float32: TIE-KD", of_largest(by_depth, one.stored("TIE_KD/grad_depth"), 37), SINGLE)
    parity("loss gradients, float32: TIE-KD", of_largest(by_logits, one.stored("TIE_KD/grad_logits_via_out"), stride), SINGLE)
    value, (_, logits) = one.compute(config, torch.float64)
    expected = one.page["values_float64_run"]
    parity("losses, float64: TIE-KD", relative(value, expected[key]), DOUBLE)
    total = torch.autograd.grad(value, logits)[0].abs().sum()
    parity("loss gradients, float64: TIE-KD", relative(total, expected["TIE_KD_grad_logits_abs_sum"]), DOUBLE)


@every_case
def test_tie_kd_of_a_dpm_and_its_expected_depth_as_in_training(case, parity, name):
    one = case(name)
    label = "TIE-KD as in training"
    value, (_, logits) = one.compute(one.config(name="tie_kd"), torch.float32, joint=True)
    (gradient,) = torch.autograd.grad(value, logits)
    stored, stride = one.stored("TIE_KD_joint/grad_logits"), one.page["stride_saved"]
    parity(f"losses, float32: {label}", relative(value, one.page["values"]["TIE_KD_joint_w0.1"]), SINGLE)
    parity(f"loss gradients, float32: {label}", of_largest(gradient, stored, stride), SINGLE)
    value, _ = one.compute(one.config(name="tie_kd"), torch.float64, joint=True)
    parity(f"losses, float64: {label}", relative(value, one.page["values_float64_run"]["TIE_KD_joint_w0.1"]), DOUBLE)


# -- beyond what was stored: the formulas, in plain float64 ---------------------------------------------------------------


def rows_from_110(maps: np.ndarray) -> np.ndarray:
    out = np.zeros_like(maps)
    out[..., : max(maps.shape[-2] - 110, 0), :] = maps[..., 110:, :]
    return out


def blur(maps: np.ndarray) -> np.ndarray:
    line = np.exp(-((np.arange(11) - 5) ** 2) / 4.5)
    padded = np.pad(maps, ((0, 0), (0, 0), (5, 5), (5, 5)))
    across = np.lib.stride_tricks.sliding_window_view(padded, 11, axis=3) @ (line / line.sum())
    return np.lib.stride_tricks.sliding_window_view(across, 11, axis=2) @ (line / line.sum())


def formula_ssim(a: np.ndarray, b: np.ndarray) -> float:
    mu_a, mu_b = blur(a), blur(b)
    var_a, var_b, covariance = np.abs(blur(a * a) - mu_a**2), np.abs(blur(b * b) - mu_b**2), np.abs(blur(a * b) - mu_a * mu_b)
    top = (2 * mu_a * mu_b + 1e-4) * (2 * covariance + 9e-4)
    return (top / ((mu_a**2 + mu_b**2 + 1e-4) * (var_a + var_b + 9e-4))).mean()


def formula_l_dpm(p: np.ndarray, kd: np.ndarray, max_depth: float, sigma: float) -> float:
    edges = np.linspace(1e-3, max_depth, p.shape[1] + 1)
    centers = (edges[:-1] + edges[1:]).reshape(1, -1, 1, 1) / 2
    density = np.exp(-((centers - kd) ** 2) / (2 * sigma**2)) / math.sqrt(2 * math.pi * sigma**2)
    weights = np.where(density < 1e-16, 0.0, np.exp(density))
    weights[np.broadcast_to((weights == 0).all(1, keepdims=True), weights.shape)] = 1.0
    q = weights / weights.sum(1, keepdims=True)
    return np.where(p != 0, q * np.log(q / (p + 1e-7) + 1e-7), 0).sum(1).mean()


@pytest.mark.parametrize(
    ("size", "max_depth"),
    [((24, 32), 10.0), ((24, 32), 80.0), ((130, 704), 10.0), ((130, 704), 80.0), ((60, 704), 80.0)],
    ids=["nyu", "kitti", "nyu, 704 wide", "kitti, 704 wide", "kitti, 704 wide, low"],
)
def test_the_formulas_hold_on_invalid_and_far_depths_and_lowered_rows(size, max_depth):
    rng = np.random.default_rng(5)
    kd = 0.05 * max_depth + 0.9 * max_depth * rng.random((1, 1, *size))
    depth = np.clip(kd * (1 + 0.1 * rng.standard_normal(kd.shape)), 1e-3, max_depth)
    kind = rng.random(kd.shape)
    kd = np.where(kind < 0.2, 0, np.where(kind < 0.3, 1.3 * max_depth, kd))
    p = torch.softmax(2 * torch.from_numpy(rng.standard_normal((1, 13, *size))), dim=1)
    wide = size[1] == 704 and max_depth == 80  # only such runs have crops 704 px wide
    lower = rows_from_110 if wide else np.asarray
    log_error = (np.log(depth + 1e-3) - np.log(kd + 1e-3))[kd > 0]
    si = math.sqrt(log_error.var(ddof=1) + 0.15 * log_error.mean() ** 2)
    expected = {
        "si": si,
        "mse": ((depth - kd) ** 2).mean(),
        "ssim_si": 1.5 * (1 - formula_ssim(depth, kd)) + si,
        "l_depth": 1 - formula_ssim(lower(depth), lower(kd)),
        "l_dpm": formula_l_dpm(lower(p.numpy()), lower(kd), max_depth, 0.3),
    }
    prediction = Prediction(torch.from_numpy(depth), p.log())
    for name, value in expected.items():
        config = released(13, max_depth, name=name, sigma=0.3)
        found = total_loss(config, prediction, torch.from_numpy(kd)).item()
        assert found == pytest.approx(value, rel=DOUBLE, abs=1e-12), name


def test_crops_704_wide_and_not_above_110_high_cost_and_move_nothing():
    generator = torch.Generator().manual_seed(0)
    depth = (80 * torch.rand(1, 1, 100, 704, generator=generator)).requires_grad_()
    logits = torch.randn(1, 9, 100, 704, generator=generator, requires_grad=True)
    loss = total_loss(released(9, 80.0, name="tie_kd"), Prediction(depth, logits), 80 * torch.rand_like(depth))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert not depth.grad.any()
    assert not logits.grad.any()


def test_the_released_loss_of_a_704_px_crop_trains_a_dpm_student():
    """SSIM and L_DPM from row 110 on, on a prediction that is evaluated from features."""
    config, bins = released(9, 80.0, name="tie_kd"), DepthBins(9, 1e-3, 80.0)
    head = DPMHead(2, bins)
    features = torch.randn(1, 2, 130, 704, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = 5 + 60 * torch.linspace(0, 1, 130).view(1, 1, 130, 1).expand(1, 1, 130, 704)
    loss, expected = (total_loss(config, prediction, target) for prediction in (head(features), head(features).materialize()))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(loss, features)
    assert not gradient[:, :, :110].any()
    assert gradient[:, :, 110:].any()
