"""Random pixels that depend on the target alone."""

import torch

from tiekd.losses.sampling import random_numbers, sample_pixels


def maps(count: int = 3) -> torch.Tensor:
    return 1 + 8 * torch.rand(count, 1, 30, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_numbers_depend_on_the_image_alone_and_not_on_its_batch_or_type():
    numbers = random_numbers(maps(), 500)
    assert torch.equal(random_numbers(maps()[1:2], 500), numbers[1:2])
    assert torch.equal(random_numbers(maps().float(), 500), numbers)
    assert torch.equal(random_numbers(maps(), 100), numbers[:, :100])
    moved = maps()
    moved[1, 0, 7, 9] += 1e-3
    assert [torch.equal(*pair) for pair in zip(random_numbers(moved, 500), numbers, strict=True)] == [True, False, True]


def test_numbers_are_spread_evenly_and_images_do_not_share_them():
    numbers = random_numbers(maps(), 20_000)
    assert numbers.min() >= 0
    assert numbers.max() < 2**32
    counts = torch.stack([(row * 16 // 2**32).bincount(minlength=16) for row in numbers]).double()
    assert ((counts - 1250).square() / 1250).sum(dim=1).max() < 40  # chi-squared of 15 degrees of freedom: p = 0.0005
    correlation = torch.corrcoef(torch.cat([numbers.double(), numbers[:1].roll(1, dims=1).double()]))
    assert (correlation - torch.eye(4)).abs().max() < 0.03
    mirrored = random_numbers(maps().flip(3), 500)
    assert not (mirrored == numbers[:, :500]).any()


def test_every_valid_pixel_is_chosen_and_no_other():
    valid = torch.rand(3, 1200, generator=torch.Generator().manual_seed(1)) < 0.05
    valid[2] = False
    chosen = sample_pixels(random_numbers(maps(), 5000), valid)
    for image in (0, 1):
        assert set(chosen[image].tolist()) == set(valid[image].nonzero().flatten().tolist())
    assert chosen[2].unique().tolist() == [1199]
