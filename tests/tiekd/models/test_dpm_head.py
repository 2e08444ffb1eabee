"""Passes over chunks of pixels, against the formulas that keep every map whole."""

from itertools import product

import pytest
import torch
from support.fused_reference import CHANNELS, KITTI, error, leaves, plain, teacher_of, with_gradients
from support.losses import total_loss
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from tiekd.bins import DepthBins, DPMTarget
from tiekd.config import RunConfig, build
from tiekd.config.specs import DEFAULT_DPM, DPMS
from tiekd.models import dpm_head
from tiekd.models.dpm_head import DPMHead, depth_and_divergence, depth_of_features

SPACINGS = ["uniform", "log", "inverse"]
NYU = DepthBins(257, 1e-3, 10.0)


@pytest.fixture
def chunks_of_7(monkeypatch) -> None:
    """No image of the tests is a multiple of it."""
    monkeypatch.setattr(dpm_head, "chunk_size", lambda features, n_bins: 7)


def ours(head: list[Tensor], bins: DepthBins, teacher: DPMTarget) -> tuple[Tensor, Tensor]:
    return depth_and_divergence(*head, bins.centers.to(head[1]), teacher)


def config_of(loss: str, n_bins: int) -> RunConfig:
    data, teacher = {"dataset": "synthetic-outdoor"}, {"name": "made", "maps": "maps"}
    document = {"data": data, "teacher": teacher, "bins": {"n_bins": n_bins}, "loss": {"name": loss}}
    return build(document | {"student": {"name": "tiny", "head": "dpm"}})


# -- numbers ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("bins", "sigma"), [(DepthBins(12, 1e-3, 10.0), 0.2), (DepthBins(9, 0.5, 10.0, "log"), 3.0)])
def test_the_gradients_are_the_slopes(chunks_of_7, bins, sigma, layout):
    head, depth = leaves(bins, (1, 3, 4), torch.float64)
    head[0] = head[0].detach().to(memory_format=layout).requires_grad_()
    teacher = teacher_of(depth, bins, sigma, 0.7)
    assert torch.autograd.gradcheck(lambda *head: ours(head, bins, teacher), head)
    assert torch.autograd.gradcheck(lambda *head: depth_of_features(*head, bins.centers.double()), head)


@pytest.mark.parametrize("dpm", [name for name in DPMS if name != DEFAULT_DPM])
def test_the_gradients_of_every_dpm_are_the_slopes_and_its_numbers_the_plain_ones(chunks_of_7, dpm):
    """A target has the same gradient whatever its spacing; its numbers are compared with all."""
    bins = DepthBins(9, 0.5, 10.0, "log")
    head, depth = leaves(bins, (1, 3, 4), torch.float64)
    teacher = teacher_of(depth, bins, 0.3, dpm=dpm)
    assert torch.autograd.gradcheck(lambda *head: ours(head, bins, teacher), head)
    for spacing, sigma in product(SPACINGS, [1e-6, 0.05, 0.5, 100.0]):
        bins = DepthBins(65, 0.5, 80.0, spacing)
        head, depth = leaves(bins)
        teacher, exact = teacher_of(depth, bins, sigma, dpm=dpm), [leaf.detach().double().requires_grad_() for leaf in head]
        expected = with_gradients(plain(exact, bins, teacher), exact)
        for found, value in zip(with_gradients(ours(head, bins, teacher), head), expected, strict=True):
            assert error(found, value) < 1e-5, (spacing, sigma)


@pytest.mark.parametrize(("n_bins", "spacing"), [*product([8, 65, 257, 512], SPACINGS)])
def test_they_agree_with_the_plain_formulas_within_1e_5(chunks_of_7, n_bins, spacing):
    """In float32, against float64; both with the teacher's DPM of float32, in which a bin at the floor is in or out."""
    bins = DepthBins(n_bins, 1e-3, 80.0, spacing)
    head, depth = leaves(bins)
    for sigma, temperature in product([1e-4, 0.05, 0.5, 5.0, 1e16], [1e-3, 1.0, 100.0]):
        teacher, exact = teacher_of(depth, bins, sigma, temperature), [leaf.detach().double().requires_grad_() for leaf in head]
        expected = with_gradients(plain(exact, bins, teacher), exact)
        for found, value in zip(with_gradients(ours(head, bins, teacher), head), expected, strict=True):
            assert error(found, value) < 1e-5, (sigma, temperature)


@pytest.mark.parametrize("loss", ["tie_kd", "l_dpm", "l_depth"])
def test_a_loss_and_its_gradient_are_those_of_the_plain_formulas(chunks_of_7, loss):
    torch.manual_seed(0)
    bins, target = DepthBins(16, 1e-3, 80.0), 80 * torch.rand(2, 1, 12, 13, dtype=torch.float64)
    student, features = DPMHead(CHANNELS, bins).double(), torch.randn(2, CHANNELS, 12, 13, dtype=torch.float64)
    found = []
    for prediction in (student(features), student(features).materialize()):
        value = total_loss(config_of(loss, bins.n_bins), prediction, target)
        found.append([value.detach(), *torch.autograd.grad(value, list(student.parameters()))])
    for fast, slow in zip(*found, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)


def test_depth_alone_is_the_depth_that_comes_with_the_divergence():
    head, depth = leaves(NYU)
    together, _ = ours(head, NYU, teacher_of(depth, NYU))
    alone = depth_of_features(*head, NYU.centers)
    torch.testing.assert_close(alone, together, rtol=0, atol=0)
    for one, other in zip(torch.autograd.grad(alone.sum(), head), torch.autograd.grad(together.sum(), head), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_in_bf16_the_products_alone_are_rounded():
    """Each logit loses 2^-9 of itself, to which the bounds are multiples; the sums over bins and pixels lose nothing."""
    head, depth = leaves(KITTI, (2, 12, 20))
    head[0] = head[0].detach().bfloat16().requires_grad_()
    teacher, exact = teacher_of(depth, KITTI), [leaf.detach().double().requires_grad_() for leaf in head]
    found = with_gradients(ours(head, KITTI, teacher), head)
    assert [value.dtype for value in found] == [torch.float32, torch.float32, torch.bfloat16, torch.float32, torch.float32]
    expected = with_gradients(plain(exact, KITTI, teacher), exact)
    names = ["depth", "divergence", "features", "weight", "bias"]
    errors = {name: error(*pair) for name, pair in zip(names, zip(found, expected, strict=True), strict=True)}
    assert max(errors.values()) < 0.02, errors


def test_logits_of_any_size_have_a_finite_divergence():
    head, depth = leaves(KITTI)
    scaled = [leaf.detach().mul(100).requires_grad_() for leaf in head]
    for value in with_gradients(ours(scaled, KITTI, teacher_of(depth, KITTI)), scaled):
        assert value.isfinite().all()


def test_autocast_sets_the_precision_of_what_is_asked_for_after_it():
    torch.manual_seed(0)
    student, features = DPMHead(CHANNELS, KITTI), torch.randn(1, CHANNELS, 6, 10)
    with torch.autocast("cpu", torch.bfloat16):
        later = student(features)
        during = student(features).depth
    rounded = depth_of_features(features.bfloat16(), student.logits.weight, student.logits.bias, KITTI.centers)
    assert later.depth.dtype == torch.float32
    torch.testing.assert_close(later.depth, rounded, rtol=0, atol=0)
    torch.testing.assert_close(during, rounded, rtol=0, atol=0)


# -- work and memory ----------------------------------------------------------------------------------------------------------


class Written(TorchDispatchMode):
    """What operators write: elements in all, and in the largest tensor."""

    def __init__(self):
        super().__init__()
        self.total = self.largest = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        found = operator(*args, **(kwargs or {}))
        if not operator.is_view and operator not in (torch.ops.aten.empty.memory_format, torch.ops.aten.empty_like.default):
            sizes = [leaf.numel() for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
            self.total, self.largest = self.total + sum(sizes), max(self.largest, *sizes, 0)
        return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("loss", "products", "passes"), [("tie_kd", 4, 30), ("l_dpm", 4, 30), ("l_depth", 4, 12), (None, 1, 5)]
)
def test_a_step_makes_its_logits_once_each_way_and_never_all(monkeypatch, layout, loss, products, passes):
    """Forwards a product for logits; backwards one again, and those for features and weight. Without a loss, depth alone.

    A pass writes as many numbers as there are pixels and bins. Lost would be a factor of two if a part computed its own.
    """
    monkeypatch.setattr(dpm_head, "chunk_size", lambda features, n_bins: 64)
    bins, channels, pixels = DepthBins(256, 1e-3, 80.0), 8, 2 * 32 * 48
    student = DPMHead(channels, bins)
    features = torch.randn(2, channels, 32, 48).to(memory_format=layout).requires_grad_(loss is not None)
    target = 80 * torch.rand(2, 1, 32, 48)
    with Written() as written, FlopCounterMode(display=False) as counter:
        if loss is None:
            with torch.inference_mode():
                assert student(features).depth.shape == target.shape
        else:
            total_loss(config_of(loss, bins.n_bins), student(features), target).backward()
    assert counter.get_flop_counts()["Global"][torch.ops.aten.mm] == products * 2 * pixels * channels * bins.n_bins
    assert written.largest <= features.numel()
    assert written.total < passes * pixels * bins.n_bins
    if loss:
        assert features.grad.is_contiguous(memory_format=layout)
