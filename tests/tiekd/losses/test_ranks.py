"""The number of ranks changes neither a loss nor its gradient: one process against two, under PyTorch's own DDP."""

from itertools import product

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from tiekd.bins import DepthBins
from tiekd.config import RunConfig
from tiekd.config.specs import LOSSES
from tiekd.distill.loop import evaluate_loss
from tiekd.losses import build_loss
from tiekd.losses.combine import single_process_sum
from tiekd.models.dpm_head import DPMHead
from tiekd.models.prediction import Prediction
from tiekd.models.student import RegressionHead

pytestmark = pytest.mark.slow
BINS = DepthBins(16, 1e-3, 10.0)
NAMES = [name for name, spec in LOSSES.items() if not spec.of_image]
RUNS = [*product(NAMES, ["corrected", "released"])]
# Images of each rank. The first split is uneven; the second leaves a rank without a valid pixel (image 2 has none).
SPLITS = {"uneven": ([0], [1, 2, 3]), "nothing valid on one rank": ([0, 1, 3], [2])}


class BinsOfEachImage(RegressionHead):
    """A regression, and bins that an image's mean features choose, as those of AdaBins are."""

    def __init__(self, channels: int, max_depth: float):
        super().__init__(channels, max_depth)
        self.widths = nn.Linear(channels, 16)

    def forward(self, features: torch.Tensor) -> Prediction:
        widths = torch.softmax(self.widths(features.mean(dim=(2, 3))), dim=1) * self.max_depth
        return super().forward(features)._replace(bin_centers=widths.cumsum(dim=1) - widths / 2)


def head_of(config: RunConfig) -> nn.Module:
    torch.manual_seed(0)
    if config.student.head == "dpm":
        return DPMHead(3, BINS)
    return {"regression": RegressionHead, "adaptive_bins": BinsOfEachImage}[config.student.head](3, BINS.max_depth)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Features [4, 3, 16, 20] and depth [4, 1, 16, 20] m, with more and more of it missing, and none in image 2."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, 3, 16, 20, generator=generator)
    depth = 1 + 8 * torch.rand(4, 1, 16, 20, generator=generator)
    depth[1, :, 12:], depth[2], depth[3, :, :, 15:] = 0.0, 0.0, 20.0
    return features, depth


def step(model: nn.Module, config: RunConfig, images: list[int], all_sum) -> tuple[dict[str, float], list[torch.Tensor]]:
    """The losses of some images, and the gradient of the model's parameters."""
    features, depth = batch()
    values = evaluate_loss(build_loss(config), model(features[images]), {"depth_teacher": depth[images]}, all_sum)
    values["loss"].backward()
    return {name: value.item() for name, value in values.items()}, [p.grad.clone() for p in model.parameters()]


def work(rank: int, folder: str, configs: dict[tuple[str, str], RunConfig]) -> None:
    """One of two ranks: every loss under every split, kept in a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = {}
    for split, images in SPLITS.items():
        for run, config in configs.items():
            model = DistributedDataParallel(head_of(config))
            results[split, run] = step(model, config, images[rank], all_reduce)
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, config) -> list[dict]:
    """What each of two ranks computed."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, (str(folder), {run: config(*run) for run in RUNS}), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("run", RUNS, ids=" ".join)
def test_two_ranks_have_the_loss_and_the_gradient_of_one(ranks, config, run, split):
    model = head_of(config(*run))
    expected, gradients = step(model, config(*run), [0, 1, 2, 3], single_process_sum)
    for results in ranks:
        values, averaged = results[split, run]
        assert values == pytest.approx(expected, rel=1e-5)
        for one, other in zip(gradients, averaged, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
