"""What a network costs: counts against numbers worked out by hand, and the procedure in a process of its own."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context

import pytest
import timm
import torch
from torch import nn

from tiekd.config import build
from tiekd.data.kitti import KITTI
from tiekd.deploy.profile import FILE, IMAGES, LEAST_IMAGES, PeakMemory, count_macs, efficiency_of, measure, measure_apart
from tiekd.deploy.profile_records import network_id
from tiekd.models.registry import build_network, count_parameters
from tiekd.store.run_store import RunStore


def macs_of(network, *size):
    with torch.inference_mode():
        return count_macs(network.eval(), torch.zeros(1, *size))


def test_macs_of_convolutions_are_those_worked_out_by_hand():
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False))
    assert macs_of(plain, 3, 10, 20) == 10 * 20 * (8 * 3 * 9 + 4 * 8)
    assert macs_of(nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), 8, 10, 20) == 5 * 10 * 8 * 9
    assert macs_of(nn.Linear(16, 5), 7, 16) == 7 * 16 * 5


def test_macs_of_attention_are_counted_although_pytorch_would_fuse_it():
    layer = nn.TransformerEncoderLayer(64, 4, dim_feedforward=128, batch_first=True)
    projections, products = 100 * 64 * (3 * 64 + 64 + 2 * 128), 2 * 100 * 100 * 64
    assert macs_of(layer, 100, 64) == projections + products
    assert torch.backends.mha.get_fastpath_enabled()  # as it was before


@pytest.mark.parametrize(("name", "published"), [("resnet18", 1.814e9), ("resnet50", 4.089e9), ("mobilenetv2_100", 0.3008e9)])
def test_macs_of_the_students_encoders_are_the_published_ones(name, published):
    with torch.device("meta"):
        assert macs_of(timm.create_model(name), 3, 224, 224) == pytest.approx(published, rel=1e-3)


TAKEN = 2**28  # bytes


def growth_by_what_is_taken() -> int | None:
    memory = PeakMemory(torch.device("cpu"))
    before = memory.growth()
    torch.ones(TAKEN // 4)
    return None if before is None else memory.growth() - before


def test_memory_grows_by_what_is_taken():
    """In a new process: this one may have held more before, and a peak never falls."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        growth = process.submit(growth_by_what_is_taken).result()
    if growth is None:
        pytest.skip("this system does not tell a process's memory")
    assert growth > 0.9 * TAKEN


def test_a_network_is_measured_in_a_process_of_its_own(tiny):
    config = tiny({"bins.n_bins": 16})
    cost = measure_apart(config, "cpu", 1)
    assert (cost.network, cost.name, cost.size) == (network_id(config), "tiny, 16 bins", [64, 96])
    assert cost.parameters == count_parameters(build_network(config))
    network = build_network(config)
    projection = 64 * 96 * network.head.logits.weight.numel()  # which waits until depth is asked for
    assert cost.macs == macs_of(network, 3, 64, 96) + projection
    assert 0 < cost.milliseconds_low <= cost.milliseconds <= cost.milliseconds_high
    assert LEAST_IMAGES <= cost.images <= IMAGES
    assert cost.peak_bytes is None or cost.peak_bytes > 4 * cost.parameters
    assert cost.device.endswith(", 1 thread")
    assert cost.versions["torch"] == torch.__version__.partition("+")[0]


def test_half_precision_is_measured_as_such(tiny):
    config = tiny({"optim.precision": "bf16"})
    cost = measure(config.document(), "cpu", 1)
    assert cost.precision == "bf16"
    assert asdict(cost).keys() >= {"macs", "milliseconds", "peak_bytes"}


def test_a_searchs_objective_is_measured_once_and_kept_with_the_run(tiny, tmp_path):
    record, config = RunStore(tmp_path).run("0123"), tiny()
    first = efficiency_of(record, config)
    assert record.read_json(FILE) == first
    assert first["milliseconds"] > 0
    assert first["parameters"] == count_parameters(build_network(config))
    record.write_json(FILE, first | {"milliseconds": 1e9})
    assert efficiency_of(record, config)["milliseconds"] == 1e9


def test_images_have_the_size_of_the_test_frames():
    def size(dataset, **data):
        loss = {"name": "si", "target": "ground_truth"}
        return build({"data": {"dataset": dataset, **data}, "loss": loss}).data.evaluation_size

    assert size("kitti") == KITTI.view_size
    assert size("nyu") == (480, 640)
    assert size("synthetic-outdoor", frame_size=[96, 160], train_crop=[64, 96]) == (96, 160)
