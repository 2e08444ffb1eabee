import pytest
import torch

from tiekd.losses.chamfer import ChamferTerm, chamfer_distance
from tiekd.losses.combine import single_process_sum
from tiekd.models.prediction import Prediction


def every_pair(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The definition: a matrix of all squared distances."""
    squares = (a[:, None] - b[None, :]) ** 2
    return squares.amin(dim=1).mean() + squares.amin(dim=0).mean()


def distance(centers: torch.Tensor, depths: torch.Tensor) -> torch.Tensor:
    """Of one image whose depths are all known."""
    (found,) = chamfer_distance(centers[None], depths[None], torch.ones(1, len(depths), dtype=torch.bool))
    return found


def points(n: int, seed: int) -> torch.Tensor:
    return 10 * torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (7, 1), (16, 300), (300, 16)])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_its_definition_whatever_the_order(n, m, seed):
    a, b = points(n, seed), points(m, seed + 10)
    torch.testing.assert_close(distance(a, b), every_pair(a, b), rtol=1e-12, atol=0)


def test_repeated_depths_count_as_often_as_they_occur():
    centers, depths = torch.tensor([1.0, 5.0]), torch.tensor([1.0, 1.0, 1.0, 3.5])
    assert distance(centers, depths).item() == pytest.approx((0 + 1.5**2) / 2 + (3 * 0 + 1.5**2) / 4)


def test_the_gradient_is_the_slope():
    depths = points(40, 1)
    assert torch.autograd.gradcheck(lambda centers: distance(centers, depths), points(9, 0).requires_grad_())


def test_a_whole_image_needs_no_matrix_of_all_pairs():
    centers = points(256, 0).float().requires_grad_()
    distance(centers, points(352 * 704, 1).float()).backward()  # all pairs would be 250 MB
    assert centers.grad.isfinite().all()


def test_images_count_alike_and_those_without_depth_not_at_all():
    centers = torch.stack([points(8, seed) for seed in range(3)]).requires_grad_()
    target = points(3 * 30, 5).view(3, 1, 5, 6)
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[0, 0, 1:], valid[1] = False, False
    prediction = Prediction(target, bin_centers=centers)
    found = ChamferTerm()(prediction, target, valid, single_process_sum)
    expected = (every_pair(centers[0], target[0, 0, 0]) + every_pair(centers[2], target[2].flatten())) / 2
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, centers)
    assert not gradient[1].any()
    assert gradient[0].any()


def test_a_target_of_0_is_no_depth_even_where_nothing_is_masked():
    target = torch.tensor([[[[0.0, 2.0]]]])
    prediction = Prediction(target, bin_centers=torch.tensor([[2.0]]))
    assert ChamferTerm()(prediction, target, torch.ones_like(target, dtype=torch.bool), single_process_sum) == 0
