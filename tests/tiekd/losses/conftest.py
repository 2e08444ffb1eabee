from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tiekd.config import RunConfig, build
from tiekd.models.prediction import Prediction

N_BINS = 16
MAX_DEPTH = 10.0
SIZE = (20, 24)


def config_of(loss: str, fidelity: str | list[str] = "corrected", **settings: float) -> RunConfig:
    return build(
        {
            "data": {"dataset": "synthetic-indoor"},
            "teacher": {"name": "made", "maps": "maps"},
            "student": {"name": "adabins" if loss == "si_chamfer" else "tiny"},
            "bins": {"n_bins": N_BINS},
            "loss": {"name": loss, "target": "teacher", "sigma": 0.5, **settings},
            "fidelity": fidelity,
        }
    )


@pytest.fixture(scope="session")
def config() -> Callable[..., RunConfig]:
    """The config of a loss by name, 16 bins up to 10 m."""
    return config_of


@pytest.fixture
def target() -> Tensor:
    """[2, 1, 20, 24] m, float64: smooth, valid everywhere."""
    rows, columns = torch.meshgrid(*(torch.linspace(0, 1, n, dtype=torch.float64) for n in SIZE), indexing="ij")
    first = 1 + 6 * rows + columns
    return torch.stack([first, 9 - 4 * columns + rows.sin()]).unsqueeze(1)


@pytest.fixture
def prediction(target) -> Prediction:
    """Depth and logits near the target's, and bins of each image, all free to move."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(target.shape, generator=generator, dtype=torch.float64)
    logits = torch.randn(2, N_BINS, *SIZE, generator=generator, dtype=torch.float64)
    centers = torch.linspace(0.5, MAX_DEPTH, N_BINS, dtype=torch.float64) + torch.tensor([[0.0], [0.2]])
    return Prediction((target + 0.3 * noise).requires_grad_(), logits.requires_grad_(), centers.requires_grad_())
