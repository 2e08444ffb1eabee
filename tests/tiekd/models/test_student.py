"""What every student keeps to."""

import pytest
import torch

from tiekd.config import RunConfig, build
from tiekd.config.specs import STUDENTS
from tiekd.models.registry import build_network, count_parameters

pytestmark = pytest.mark.slow

HEADS = {"dpm": {"name": "tie_kd"}, "regression": {"name": "si"}}
SIZES = [(64, 96), (50, 70), (35, 33)]


def config_of(student: str, head: str = "dpm", **sections) -> RunConfig:
    encoder = {"encoder": "mobilenetv3_small_050", "levels": [0, 1, 2, 3, 4]} if student == "timm" else {}
    return build(
        {
            "data": {"dataset": "nyu"},
            "teacher": {"name": "made", "maps": "maps"},
            "student": {"name": student, **encoder},
            "loss": HEADS[head],
            **sections,
        }
    )


def seeded(config: RunConfig, seed: int = 0):
    torch.manual_seed(seed)
    return build_network(config)


def image(size: tuple[int, int], batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


every_student = pytest.mark.parametrize("student", STUDENTS)
every_head = pytest.mark.parametrize("head", HEADS)


@every_student
def test_depth_and_logits_have_the_size_of_the_image_whatever_it_is(student):
    network = seeded(config_of(student)).eval()
    for size in SIZES:
        with torch.no_grad():
            prediction = network(image(size))
        assert prediction.depth.shape == (1, 1, *size)
        assert prediction.dpm_logits.shape == (1, 49, *size)


@every_student
@every_head
def test_depth_lies_within_the_range_of_the_data(student, head):
    network = seeded(config_of(student, head)).eval()
    with torch.no_grad():
        prediction = network(100 * image((64, 96)))
    assert prediction.depth.dtype == torch.float32
    assert prediction.depth.min() >= 0
    assert prediction.depth.max() <= 10.0
    assert (prediction.dpm_logits is None) == (head == "regression")


@every_student
@every_head
def test_every_parameter_is_trained(student, head):
    network = seeded(config_of(student, head)).train()
    with torch.no_grad():  # ResNets end their branches in zeros, past which nothing flows at first
        for parameter in network.parameters():
            parameter.masked_fill_(parameter == 0, 0.1)
    network(image((64, 96), batch=2)).depth.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@every_student
def test_the_seed_decides_the_initial_weights(student):
    config = config_of(student)
    first, again, other = (seeded(config, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("dataset", ["kitti", "nyu"])
@pytest.mark.parametrize(
    ("student", "head", "page"),
    [
        ("mobilenetv2", "dpm", "mobilenetv2_dpm"),
        ("mobilenetv2", "regression", "mobilenetv2_base_custom_kd"),
        ("resnet18", "dpm", "resnet18_dpm"),
        ("resnet18", "regression", "resnet18_base_custom_kd"),
        ("resnet50", "dpm", "resnet50_dpm"),
    ],
)
def test_published_students_have_the_published_number_of_parameters(oracle, student, head, page, dataset):
    released = oracle(f"students/{page}")["datasets"][dataset]
    with torch.device("meta"):
        network = build_network(config_of(student, head, data={"dataset": dataset}))
    assert count_parameters(network) == released["n_params"] - released["n_params_without_grad"]
