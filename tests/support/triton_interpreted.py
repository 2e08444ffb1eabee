"""The kernels of `tiekd/models/fused_triton.py` on the CPU, by Triton's interpreter, against the plain formulas.

Run by `test_fused_triton.py` in a process of its own, since TRITON_INTERPRET must be set before Triton is imported. Prints the
errors of each case as JSON: of depth, divergence, and the gradients of features, weight and bias.
"""

import json
from itertools import product

import numpy as np
import torch
import triton.language as tl
from support.fused_reference import KITTI, error, leaves, plain, teacher_of, with_gradients
from torch import Tensor
from triton.runtime import interpreter

from tiekd.bins import DepthBins, DPMTarget
from tiekd.config.specs import DEFAULT_DPM, DPMS
from tiekd.models import fused_triton
from tiekd.models.fused_triton import TritonDepthAndDivergence

# Bins, spacing, sigma in m, temperature: the ends of the temperature, targets of one bin and of all.
CASES = [(8, "log", 0.5, 1e-3), (80, "inverse", 5.0, 100.0), (257, "uniform", 0.5, 1.0), (512, "uniform", 1e-4, 1.0)]
interpreted_dot = interpreter.InterpreterBuilder.create_dot


def dot(builder, a, b, *rest):
    """The interpreter keeps bf16 as 16 bits and would multiply those as whole numbers."""

    def widened(block):
        if block.dtype.scalar != tl.bfloat16:
            return block
        return interpreter.TensorHandle((block.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    return interpreted_dot(builder, widened(a), widened(b), *rest)


def ours(head: list[Tensor], bins: DepthBins, teacher: DPMTarget | None) -> tuple[Tensor, Tensor | None]:
    return TritonDepthAndDivergence.apply(*head, bins.centers, teacher)


def errors(
    bins: DepthBins,
    sigma: float,
    temperature: float,
    dtype: torch.dtype,
    layout: torch.memory_format,
    flat: bool = False,
    dpm: str = DEFAULT_DPM,
) -> list[float]:
    """`flat`: the teacher sees two walls. Each has its targets in two blocks of bins, one of which their tails alone reach."""
    head, depth = leaves(bins, (2 if flat else 1, 6, 10))  # two tiles, that share an image, or one
    if flat:
        depth.view(-1)[:64], depth.view(-1)[64:] = 23.0, 37.0
    head[0] = head[0].detach().to(dtype, memory_format=layout).requires_grad_()
    teacher, exact = (
        teacher_of(depth, bins, sigma, temperature, dpm),
        [leaf.detach().double().requires_grad_() for leaf in head],
    )
    found = with_gradients(ours(head, bins, teacher), head)
    assert found[2].is_contiguous(memory_format=layout)
    return [error(*pair) for pair in zip(found, with_gradients(plain(exact, bins, teacher), exact), strict=True)]


def errors_of_one(which: int) -> list[float]:
    """Gradients where only depth or only divergence is read, then those of depth where there is no teacher."""
    bins = DepthBins(80, 1e-3, 80.0)
    head, depth = leaves(bins, (1, 6, 10))
    teacher, exact = teacher_of(depth, bins), [leaf.detach().double().requires_grad_() for leaf in head]
    expected = torch.autograd.grad(plain(exact, bins, teacher)[which].sum(), exact)
    found = [torch.autograd.grad(ours(head, bins, teacher)[which].sum(), head)]
    if which == 0:
        found.append(torch.autograd.grad(ours(head, bins, None)[0].sum(), head))
    return [error(*pair) for gradients in found for pair in zip(gradients, expected, strict=True)]


def main() -> None:
    interpreter.InterpreterBuilder.create_dot = dot
    torch.set_num_threads(1)
    found = {
        f"{case}": errors(DepthBins(case[0], 1e-3, 80.0, case[1]), *case[2:], torch.float32, torch.contiguous_format)
        for case in CASES
    }
    for dpm, (bins, sigma) in product(DPMS, ((DepthBins(80, 0.5, 80.0, "inverse"), 0.5), (KITTI, 3.0), (KITTI, 1e-3))):
        if dpm != DEFAULT_DPM:
            case = errors(bins, sigma, 1.0, torch.float32, torch.contiguous_format, dpm=dpm)
            found[f"{dpm}, {bins.spacing}, sigma {sigma}"] = case
    found["depth"], found["divergence"] = errors_of_one(0), errors_of_one(1)
    found["bf16"] = errors(KITTI, 0.5, 1.0, torch.bfloat16, torch.channels_last)
    fused_triton.PROGRAMS = 1  # which then goes over all tiles
    found["one program, two walls"] = errors(KITTI, 0.5, 1.0, torch.float32, torch.channels_last, flat=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
