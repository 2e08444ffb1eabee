"""The GPU kernels: what they compute by Triton's interpreter, and that they compile. `test_gpu.py` runs them on a GPU."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.paths import ROOT

triton = pytest.importorskip("triton", reason="Triton comes with PyTorch for CUDA, on Linux")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from tiekd.config.specs import DEFAULT_DPM, DPMS  # noqa: E402
from tiekd.models import fused_triton  # noqa: E402

SHARED = 99 * 1024  # bytes that a program may have on the smallest GPU of compute capability 8 or 9
KERNELS = ["forward_kernel", "features_kernel", "projection_kernel"]
POINTER = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, list[float]]:
    script = ROOT / "tests" / "support" / "triton_interpreted.py"
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    told = subprocess.run([sys.executable, script], env=environment, check=True, capture_output=True, text=True)
    return json.loads(told.stdout)


def test_the_kernels_agree_with_the_plain_formulas_within_1e_5(interpreted):
    exact = {name: max(errors) for name, errors in interpreted.items() if name != "bf16"}
    assert len(exact) == 7 + 3 * (len(DPMS) - 1)
    assert max(exact.values()) < 1e-5, exact


def test_in_bf16_the_products_alone_are_rounded(interpreted):
    """The bound that `test_dpm_head.py` has."""
    assert max(interpreted["bf16"]) < 0.02


def compiled(kernel, capability: int, dtype: torch.dtype, dpm: str = DEFAULT_DPM):
    """A kernel for 128 channels, channels last, and 257 bins."""
    features, number, tile = POINTER[dtype], "*fp32", fused_triton.tile_of(128, 257, dtype, tf32=False) | {"DPM": dpm}
    options = {name: tile[name] for name in fused_triton.OPTIONS}
    types = {"features": features, "d_features": features, "d_weight": number, "d_bias": number, "n_pixels": "i32"}
    types |= {"head": (features, *(number,) * 3), "target": (number, "*i32"), "target_parameters": ("fp32",) * 4}
    types |= {"outputs": (number,) * 4, "saved": (number,) * 5}
    types |= dict.fromkeys(("strides", "d_strides"), ("i32", "i32", "i32", "constexpr"))
    types = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    places = {name: (place,) for place, name in enumerate(types)}
    constants = {places[name]: tile[name] for name in types if name in tile}
    constants |= {(*places[name], 3): 1 for name in types if name.endswith("strides")}
    aligned = {(*places[name], part): [["tt.divisibility", 16]] for name in types if "strides" in name for part in range(3)}
    aligned |= {places[name]: [["tt.divisibility", 16]] for name in types if types[name] in (features, number)}
    aligned |= {(*places["head"], part): [["tt.divisibility", 16]] for part in range(4)}
    return triton.compile(ASTSource(kernel, types, constants, aligned), GPUTarget("cuda", capability, 32), options)


def stack_of(binary: bytes, path: Path) -> int:
    """Bytes that a thread has outside registers."""
    path.write_bytes(binary)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    told = subprocess.run([tool, "-res-usage", path], check=True, capture_output=True, text=True).stdout
    return int(re.search(r"STACK:(\d+)", told)[1])


@pytest.mark.parametrize(
    ("name", "dpm"),
    [(name, DEFAULT_DPM) for name in KERNELS] + [("projection_kernel", dpm) for dpm in DPMS if dpm != DEFAULT_DPM],
)
def test_a_kernel_compiles_without_spilling(name, dpm, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = compiled(getattr(fused_triton, name), 90, torch.bfloat16, dpm)
    assert "wgmma" in kernel.asm["ptx"]  # its products run on tensor cores
    assert stack_of(kernel.asm["cubin"], tmp_path / "kernel.cubin") == 0
    assert kernel.metadata.shared <= SHARED
