import copy

import pytest
import torch
from torch import nn

from tiekd.config import OptimConfig
from tiekd.distill.optim import apply_schedule, build_optimizer, learning_rate, momentum


def schedule(steps: int, **settings) -> list[float]:
    return [learning_rate(step, steps, OptimConfig(**settings)) for step in range(steps)]


def torch_cycle(steps: int, config: OptimConfig) -> tuple[list[float], list[float]]:
    """The learning rates and first betas of the same cycle by PyTorch."""
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1)
    ends, peak = config.momentum_cycle
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.lr,
        total_steps=steps,
        pct_start=config.warmup,
        div_factor=config.div_factor,
        final_div_factor=config.final_div_factor,
        base_momentum=peak,
        max_momentum=ends,
    )
    rates, betas = [], []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        betas.append(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        scheduler.step() if len(rates) < steps else None
    return rates, betas


@pytest.mark.parametrize("steps", [10, 11, 100])
@pytest.mark.parametrize("warmup", [0.2, 0.3, 0.9])
@pytest.mark.parametrize(("div_factor", "final_div_factor"), [(25.0, 100.0), (10.0, 1e4), (1.0, 1.0)])
def test_the_one_cycle_is_pytorchs(steps, warmup, div_factor, final_div_factor):
    config = OptimConfig(
        lr=3e-3, warmup=warmup, div_factor=div_factor, final_div_factor=final_div_factor, momentum_cycle=(0.95, 0.85)
    )
    rates, betas = torch_cycle(steps, config)
    assert [learning_rate(step, steps, config) for step in range(steps)] == pytest.approx(rates, rel=1e-9)
    assert [momentum(step, steps, config) for step in range(steps)] == pytest.approx(betas, rel=1e-9)


def test_the_schedule_rises_to_the_peak_and_falls_to_the_last_rate():
    rates = schedule(100, lr=1.0, warmup=0.3, div_factor=25, final_div_factor=100)
    assert rates[0] == pytest.approx(1 / 25)
    assert rates.index(max(rates)) == 29
    assert rates[29] == 1.0
    assert rates[:30] == sorted(rates[:30])
    assert rates[29:] == sorted(rates[29:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 2500)


DEPTHFORMER = {"lr": 1e-4, "schedule": "cosine", "warmup": 1 / 3, "div_factor": 1e3, "final_div_factor": 1e5}


@pytest.mark.parametrize(("step", "logged"), [(10_000, 6.578e-5), (38_399, 1.167e-12)])
def test_the_cosine_schedule_is_the_one_that_trained_depthformer(step, logged):
    assert learning_rate(step, 38_400, OptimConfig(**DEPTHFORMER)) == pytest.approx(logged, rel=1e-3)


def test_the_cosine_schedule_falls_along_one_cosine_beneath_a_linear_warmup():
    rates, cosine = (schedule(30, **DEPTHFORMER | {"warmup": warmup}) for warmup in (1 / 3, 0.0))
    assert rates[10:] == cosine[10:]
    assert rates[0] == pytest.approx(1e-7)
    assert rates[5] == pytest.approx(cosine[5] * (0.5 + 0.5e-3))


@pytest.mark.parametrize("warmup", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("steps", [2, 3, 10])
def test_the_last_step_has_the_last_rate_however_few_steps_remain_after_the_peak(warmup, steps):
    assert schedule(steps, lr=1.0, warmup=warmup)[-1] == pytest.approx(1 / 2500)


@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
def test_a_single_step_has_the_peak_rate(warmup):
    assert schedule(1, lr=2.0, warmup=warmup) == [2.0]


def test_without_warmup_the_first_step_has_the_peak_rate():
    assert schedule(5, lr=2.0, warmup=0.0)[0] == 2.0


def test_with_nothing_but_warmup_the_last_step_has_the_peak_rate():
    rates = schedule(5, lr=2.0, warmup=1.0, div_factor=20.0)
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (pytest.approx(0.1), 2.0)


def test_a_step_has_its_rate_whatever_was_asked_before():
    config = OptimConfig()
    forwards = [learning_rate(step, 50, config) for step in range(50)]
    backwards = [learning_rate(step, 50, config) for step in reversed(range(50))]
    assert forwards == backwards[::-1]


class Network(nn.Module):
    """A pretrained encoder and what is trained with it."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(3, 2)
        self.decoder = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.BatchNorm1d(2))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(3))


def settings_of(optimizer: torch.optim.Optimizer, network: nn.Module, setting: str) -> dict[str, float]:
    by_id = {id(p): group[setting] for group in optimizer.param_groups for p in group["params"]}
    return {name: by_id[id(p)] for name, p in network.named_parameters()}


def test_every_parameter_is_updated_with_the_configs_settings_at_the_rate_that_was_set():
    layer, config = nn.Linear(3, 2), OptimConfig(lr=0.1, betas=(0.8, 0.9), weight_decay=0.5, warmup=0.0)
    optimizer = build_optimizer(layer, config)
    assert apply_schedule(optimizer, 0, 10, config) == 0.1
    (group,) = optimizer.param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in layer.parameters()}
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.1, (0.8, 0.9), 0.5)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.1 * 0.5))  # without a gradient: decay alone


def test_all_but_the_encoder_learns_faster_by_the_factor():
    network, config = Network(), OptimConfig(lr=0.01, lr_factor=10.0, warmup=0.0)
    optimizer = build_optimizer(network, config)
    assert apply_schedule(optimizer, 0, 10, config) == 0.01
    rates = settings_of(optimizer, network, "lr")
    assert rates == {name: pytest.approx(0.01 if name.startswith("encoder.") else 0.1) for name in rates}


def test_layer_norms_and_position_biases_are_not_decayed_when_asked():
    network = Network()
    decays = settings_of(build_optimizer(network, OptimConfig(weight_decay=0.5, decay_norms=False)), network, "weight_decay")
    assert {name for name, decay in decays.items() if decay == 0} == {
        *("decoder.1.weight", "decoder.1.bias", "relative_position_bias_table")
    }
    assert set(settings_of(build_optimizer(network, OptimConfig()), network, "weight_decay").values()) == {0.01}


def test_what_is_frozen_is_not_optimised():
    network = Network()
    network.encoder.requires_grad_(False)
    optimizer = build_optimizer(network, OptimConfig())
    assert {id(p) for group in optimizer.param_groups for p in group["params"]}.isdisjoint(
        map(id, network.encoder.parameters())
    )


# -- a fused optimizer ---------------------------------------------------------------------------------------------------


def moved(make, states: list[dict], steps: int = 3) -> dict:
    """The state of a convolution and its optimizer some steps after the last of `states`; its images lie channels last."""
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 4, 3)
    optimizer = make(layer)
    for state in states[-1:]:
        layer.load_state_dict(state["layer"])
        optimizer.load_state_dict(state["optimizer"])
    torch.manual_seed(1 + len(states))
    for _ in range(steps):
        image = torch.randn(2, 5, 6, 7).to(memory_format=torch.channels_last)
        optimizer.zero_grad()
        layer(image).square().mean().backward()
        optimizer.step()
    return {"layer": copy.deepcopy(layer.state_dict()), "optimizer": copy.deepcopy(optimizer.state_dict())}


def plain(layer: nn.Module) -> torch.optim.AdamW:
    config = OptimConfig()
    settings = {"lr": config.lr, "betas": config.betas, "weight_decay": config.weight_decay}
    return torch.optim.AdamW([{"params": list(layer.parameters()), "lr_factor": 1.0}], **settings, foreach=False)


def ours(layer: nn.Module) -> torch.optim.AdamW:
    return build_optimizer(layer, OptimConfig())


@pytest.mark.parametrize("makers", [(ours, ours), (plain, ours), (ours, plain)], ids=["ours", "from plain", "to plain"])
def test_it_updates_as_the_plain_loop_and_either_goes_on_from_the_others_state(makers):
    expected, found = [], []
    for make in makers:
        expected.append(moved(plain, expected))
        found.append(moved(make, found))
    torch.testing.assert_close(found[-1]["layer"], expected[-1]["layer"], rtol=1e-6, atol=1e-7)
    for index, state in expected[-1]["optimizer"]["state"].items():
        torch.testing.assert_close(found[-1]["optimizer"]["state"][index], state, rtol=1e-5, atol=1e-9)
