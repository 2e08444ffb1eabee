"""What is computed on a GPU against the CPU: every loss, student, teacher, and the Triton kernels. `pytest -m gpu` runs these.

It uses no conftest.py, so that it also runs on a machine with little more than PyTorch (`benchmarks/gpu.py`).
"""

import pytest
import torch
from support.fused_reference import KITTI, error, leaves, plain, teacher_of, with_gradients
from torch import Tensor

from tiekd.config import RunConfig, build
from tiekd.config.specs import DPMS, LOSSES, STUDENTS, TEACHERS
from tiekd.distill.loop import evaluate_loss, train_step
from tiekd.distill.optim import build_optimizer
from tiekd.distill.runtime import LocalRuntime
from tiekd.losses import build_loss
from tiekd.models.dpm_head import depth_and_divergence
from tiekd.models.prediction import Prediction
from tiekd.models.registry import build_network

if not torch.cuda.is_available():
    pytest.skip("there is no GPU here", allow_module_level=True)
pytestmark = pytest.mark.gpu

GPU = torch.device("cuda")
SIZE = (96, 128)
EXACT = 1e-6  # in float64, whose rounding grows with the depth of a network


def config_of(student: str, loss: str = "tie_kd", **sections) -> RunConfig:
    encoder = {"encoder": "mobilenetv3_small_050", "levels": [0, 1, 2, 3, 4]} if student == "timm" else {}
    document = {"data": {"dataset": "nyu", "train_crop": SIZE}, "teacher": {"name": "made", "maps": "maps"}}
    document |= {"student": {"name": student, **encoder}, "loss": {"name": loss, "target": "teacher"}}
    return build({**document, **sections})


def smooth_depth(size: tuple[int, int] = SIZE) -> Tensor:
    """[2, 1, H, W] from 1 to 9 m, float64."""
    rows, columns = torch.meshgrid(*(torch.linspace(0, 1, n, dtype=torch.float64) for n in size), indexing="ij")
    return torch.stack([1 + 6 * rows + columns, 9 - 4 * columns - rows]).unsqueeze(1)


def image(batch: int) -> Tensor:
    return torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", [name for name, spec in LOSSES.items() if not spec.of_image])
def test_a_loss_and_its_gradients(name):
    config = config_of("adabins" if name == "si_chamfer" else "tiny", name, bins={"n_bins": 16})
    generator, target = torch.Generator().manual_seed(0), smooth_depth((20, 24))
    depth = target + 0.3 * torch.randn(target.shape, generator=generator, dtype=torch.float64)
    logits = torch.randn(2, 16, 20, 24, generator=generator, dtype=torch.float64)
    centers = torch.linspace(0.5, 10, 16, dtype=torch.float64) + torch.tensor([[0.0], [0.2]])
    found = []
    for device in (torch.device("cpu"), GPU):
        prediction = Prediction(*(part.to(device).requires_grad_() for part in (depth, logits, centers)))
        loss = evaluate_loss(build_loss(config), prediction, {"depth_teacher": target.to(device)})["loss"]
        gradients = torch.autograd.grad(loss, prediction, allow_unused=True)
        found.append([loss.detach().cpu(), *(gradient.cpu() for gradient in gradients if gradient is not None)])
    torch.testing.assert_close(found[1], found[0], rtol=EXACT, atol=1e-9)


def depth_and_gradient(config: RunConfig, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Depth of a network from the seed, and the gradient of its first weights."""
    torch.manual_seed(0)
    network = build_network(config).to(device, dtype).eval()
    with torch.backends.cudnn.flags(allow_tf32=False):
        depth = network(image(1).to(device, dtype)).depth
        first = next(network.parameters())
        (gradient,) = torch.autograd.grad((depth - smooth_depth()[:1].to(depth)).square().mean(), first)
    return depth.detach().cpu(), gradient.cpu()


@pytest.mark.parametrize("name", [*STUDENTS, *TEACHERS])
def test_a_network_and_the_gradient_that_reaches_its_first_weights(name):
    few = {"decoder_channels": [32, 24, 16, 16, 8]} if name == "adabins" else {}  # else it needs images of 129 patches
    teacher = {"data": {"dataset": "nyu", "train_crop": SIZE}, "student": {"name": name, **few}}
    config = build(teacher) if name in TEACHERS else config_of(name)
    # DepthFormer computes its positions in float32, and AdaBins' many depthwise convolutions take minutes in float64 on a CPU.
    dtype, bound = (torch.float32, 1e-3) if name in TEACHERS else (torch.float64, EXACT)
    expected, found = (depth_and_gradient(config, device, dtype) for device in (torch.device("cpu"), GPU))
    assert max(error(*pair) for pair in zip(found, expected, strict=True)) < bound


@pytest.mark.parametrize("kernel", ["torch", "triton"])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-2), ("bf16", 5e-2)])
def test_the_losses_of_some_steps(kernel, precision, bound):
    """As far as the precision allows: convolutions of float32 use TF32."""

    def losses(**execution) -> Tensor:
        optim = {"lr": 1e-3, "precision": precision if execution["device"] == "cuda" else "fp32"}
        config = config_of("tiny", execution=execution, optim=optim)
        runtime = LocalRuntime(config.execution)
        torch.manual_seed(0)
        student = build_network(config).to(runtime.device).train()
        optimizer, loss = build_optimizer(student, config.optim), build_loss(config)
        batch = {"image": image(2).float(), "depth_teacher": smooth_depth().float()}
        steps = [train_step(student, loss, batch, optimizer, config.optim, runtime)["loss"] for _ in range(5)]
        return torch.stack(steps).cpu()

    expected, found = losses(device="cpu"), losses(device="cuda", kernel=kernel)
    torch.testing.assert_close(found, expected, rtol=bound, atol=0)


@pytest.mark.parametrize("dpm", DPMS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_the_triton_kernels_agree_with_the_plain_formulas(dtype, bound, dpm):
    head, depth = leaves(KITTI, (3, 40, 70))
    head = [leaf.detach().to(GPU) for leaf in head]
    head = [leaf.requires_grad_() for leaf in (head[0].to(dtype, memory_format=torch.channels_last), *head[1:])]
    exact, teacher = [leaf.detach().double().requires_grad_() for leaf in head], teacher_of(depth.to(GPU), KITTI, dpm=dpm)
    expected = with_gradients(plain(exact, KITTI, teacher), exact)
    runs = [with_gradients(depth_and_divergence(*head, KITTI.centers.to(GPU), teacher, "triton"), head) for _ in range(2)]
    assert all(map(torch.equal, *runs))
    assert max(error(*pair) for pair in zip(runs[0], expected, strict=True)) < bound
