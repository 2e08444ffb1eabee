"""Random pixels of each image, chosen by the content of its target.

The choice is a hash of the target, not a draw from a generator: it is the same on every device and for every number of ranks, a
resumed training repeats it, and the host does not wait for the device. Random augmentation changes the target, and with it the
choice, from epoch to epoch.

B: images; N: samples; M: pixels.
"""

import torch
from torch import Tensor

_BITS = 2**32 - 1


def random_numbers(target: Tensor, n_samples: int) -> Tensor:
    """Draw whole numbers below 2^32, int64 [B, N], that depend on the depths of each image of target [B, 1, H, W] alone."""
    bits = target.float().flatten(1).view(torch.int32).to(torch.int64) & _BITS
    pixels, samples = (torch.arange(n, device=target.device) for n in (bits.shape[1], n_samples))
    image = _hash(bits ^ _hash(pixels)).sum(dim=1, keepdim=True) & _BITS
    return _hash(_hash(samples) ^ image)


def sample_pixels(numbers: Tensor, valid: Tensor) -> Tensor:
    """Turn `random_numbers` [B, N] into indices of valid pixels, [B, N]; of any pixel where none of valid [B, M] is."""
    counted = valid.cumsum(dim=1)
    places = numbers % counted[:, -1:].clamp_min(1) + 1
    return torch.searchsorted(counted, places).clamp_max(valid.shape[1] - 1)


def _hash(values: Tensor) -> Tensor:
    """Mix the bits of whole numbers below 2^32, int64, into others, each the image of one."""
    for _ in range(2):
        values = ((values ^ (values >> 16)) * 0x45D9F3B) & _BITS
    return values ^ (values >> 16)
