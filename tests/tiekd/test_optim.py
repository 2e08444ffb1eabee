import pytest
import torch

from tiekd.config import OptimConfig
from tiekd.optim import build_optimizer, one_cycle, set_learning_rate


def schedule(steps: int, **settings) -> list[float]:
    return [one_cycle(step, steps, OptimConfig(**settings)) for step in range(steps)]


def torch_schedule(steps: int, config: OptimConfig) -> list[float]:
    """The same cycle by PyTorch, whose peak lies at step `pct_start * total_steps - 1`, counted from 0."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.lr,
        total_steps=steps,
        pct_start=(config.warmup * (steps - 1) + 1) / steps,
        div_factor=config.div_factor,
        final_div_factor=config.final_div_factor,
    )
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if len(rates) < steps else None
    return rates


@pytest.mark.parametrize("steps", [2, 3, 7, 100])
@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.9])
@pytest.mark.parametrize(("div_factor", "final_div_factor"), [(25.0, 100.0), (10.0, 1e4), (1.0, 1.0)])
def test_the_schedule_is_pytorchs_one_cycle(steps, warmup, div_factor, final_div_factor):
    config = OptimConfig(lr=3e-3, warmup=warmup, div_factor=div_factor, final_div_factor=final_div_factor)
    rates = [one_cycle(step, steps, config) for step in range(steps)]
    assert rates == pytest.approx(torch_schedule(steps, config), rel=1e-9)


def test_the_schedule_rises_to_the_peak_and_falls_to_the_last_rate():
    rates = schedule(101, lr=1.0, warmup=0.3, div_factor=25, final_div_factor=100)
    assert rates[0] == pytest.approx(1 / 25)
    assert rates.index(max(rates)) == 30
    assert rates[30] == 1.0
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 2500)


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
    forwards = [one_cycle(step, 50, config) for step in range(50)]
    backwards = [one_cycle(step, 50, config) for step in reversed(range(50))]
    assert forwards == backwards[::-1]


def test_every_parameter_is_updated_with_the_configs_settings_at_the_rate_that_was_set():
    layer = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(layer, OptimConfig(lr=0.1, betas=(0.8, 0.9), weight_decay=0.5))
    set_learning_rate(optimizer, 0.02)
    (group,) = optimizer.param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in layer.parameters()}
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.02, (0.8, 0.9), 0.5)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.02 * 0.5))  # without a gradient: decay alone
