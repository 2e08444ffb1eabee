"""What a network costs: counts against numbers worked out by hand, and the procedure in a process of its own."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context

import pytest
import timm
import torch
from torch import nn

from tiekd.config import build
from tiekd.data.layouts.kitti import KITTI
from tiekd.deploy.profile import (
    EFFICIENCY_FILE,
    LEAST_IMAGES,
    TIMED_IMAGES,
    PeakMemory,
    count_macs,
    measure_in_subprocess,
    measure_network,
    run_efficiency,
)
from tiekd.deploy.profile_records import network_id
from tiekd.models.registry import build_network, count_parameters
from tiekd.store.run_store import RunStore

pytestmark = pytest.mark.slow


def macs_of(network, *size):
    with torch.inference_mode():
        return count_macs(network.eval(), torch.zeros(1, *size))


def test_macs_of_convolutions_are_those_worked_out_by_hand():
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False))
    assert macs_of(plain, 3, 10, 20) == 10 * 20 * (8 * 3 * 9 + 4 * 8)
    assert macs_of(nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), 8, 10, 20) == 5 * 10 * 8 * 9
    assert macs_of(nn.Linear(16, 5), 7, 16) == 7 * 16 * 5


class Attention(nn.Module):
    """`scaled_dot_product_attention` with the tokens [B, T, C] as queries, keys and values of 4 heads."""

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, tokens):
        heads = tokens.unflatten(2, (4, -1)).transpose(1, 2)
        keys = heads[:, :2] if self.options.get("enable_gqa") else heads
        return nn.functional.scaled_dot_product_attention(heads, keys, keys, **self.options)


class SelfAttention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention, self.options = nn.MultiheadAttention(64, 4, batch_first=True), options

    def forward(self, tokens):
        return self.attention(tokens, tokens, tokens, **self.options)


def timm_attention(fused):
    attention = timm.layers.Attention(64, num_heads=4)
    attention.fused_attn = fused
    return attention


def encoder_layer():
    return nn.TransformerEncoderLayer(64, 4, dim_feedforward=128, batch_first=True)


PRODUCTS = 2 * 100 * 100 * 64  # of 100 tokens with 64 channels: queries with keys, weights with values; of any number of heads
PROJECTIONS = 100 * 64 * 4 * 64  # queries, keys, values, output
FEED_FORWARD = 100 * 64 * 2 * 128
ATTENTION = {
    "function": (Attention, PRODUCTS),
    "causal": (lambda: Attention(is_causal=True), PRODUCTS),
    "masked": (lambda: Attention(attn_mask=torch.zeros(100, 100)), PRODUCTS),
    "grouped queries": (lambda: Attention(enable_gqa=True), PRODUCTS),
    "module": (SelfAttention, PROJECTIONS + PRODUCTS),
    "module without weights": (lambda: SelfAttention(need_weights=False), PROJECTIONS + PRODUCTS),
    "encoder layer": (encoder_layer, PROJECTIONS + PRODUCTS + FEED_FORWARD),
    "encoder": (lambda: nn.TransformerEncoder(encoder_layer(), 2), 2 * (PROJECTIONS + PRODUCTS + FEED_FORWARD)),
    "timm, fused": (lambda: timm_attention(True), PROJECTIONS + PRODUCTS),
    "timm, not fused": (lambda: timm_attention(False), PROJECTIONS + PRODUCTS),
}


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_macs_of_attention_are_counted_although_pytorch_would_fuse_it(name, dtype):
    make, expected = ATTENTION[name]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
        assert macs_of(make(), 100, 64) == expected
    assert torch.backends.mha.get_fastpath_enabled()  # as it was before


def test_macs_do_not_depend_on_the_kernel_that_timm_chooses():
    network = timm.create_model("vit_tiny_patch16_224")
    fused = macs_of(network, 3, 224, 224)
    for block in network.blocks:
        block.attn.fused_attn = False
    patches, tokens, classes = 14**2, 14**2 + 1, 1000
    products = 2 * tokens**2 * 192
    layers = tokens * 192 * (4 + 2 * 4) * 192
    assert fused == patches * 192 * 3 * 16**2 + 12 * (layers + products) + 192 * classes
    assert macs_of(network, 3, 224, 224) == fused


def test_an_encoder_that_expands_a_parameter_is_measured():
    """PyTorch's counter fails on such a parameter in inference mode while it needs a gradient."""
    data = {"dataset": "synthetic-outdoor", "frame_size": [224, 224], "train_crop": [224, 224]}
    student = {
        "name": "timm",
        "encoder": "pit_ti_224",
        "levels": [0, 1, 2],
        "decoder_channels": [16, 8, 8],
        "pretrained": False,
    }
    config = build({"data": data, "student": student, "loss": {"name": "si", "target": "ground_truth"}})
    assert measure_network(config.document(), "cpu", 1).macs > 0


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
    cost = measure_in_subprocess(config, "cpu", 1)
    assert (cost.network, cost.name, cost.size) == (network_id(config), "tiny, 16 bins", [64, 96])
    assert cost.parameters == count_parameters(build_network(config))
    network = build_network(config)
    projection = 64 * 96 * network.head.logits.weight.numel()  # which waits until depth is asked for
    assert cost.macs == macs_of(network, 3, 64, 96) + projection
    assert 0 < cost.milliseconds_low <= cost.milliseconds <= cost.milliseconds_high
    assert LEAST_IMAGES <= cost.images <= TIMED_IMAGES
    assert cost.peak_bytes is None or cost.peak_bytes > 4 * cost.parameters
    assert cost.device.endswith(", 1 thread")
    assert cost.versions["torch"] == torch.__version__.partition("+")[0]


def test_half_precision_is_measured_as_such(tiny):
    config = tiny({"optim.precision": "bf16"})
    cost = measure_network(config.document(), "cpu", 1)
    assert cost.precision == "bf16"
    assert asdict(cost).keys() >= {"macs", "milliseconds", "peak_bytes"}


def test_a_file_in_8_bits_is_measured_as_a_device_of_its_own(tiny):
    config = tiny()
    cost = measure_network(config.document(), "cpu", 1, "onnxruntime-int8")
    assert (cost.network, cost.precision, cost.peak_bytes) == (network_id(config), "int8", None)
    assert cost.device.endswith(", 1 thread, onnxruntime int8")
    assert 0 < cost.milliseconds_low <= cost.milliseconds
    assert cost.versions["onnxruntime"]


def test_a_searchs_objective_is_measured_once_and_kept_with_the_run(tiny, tmp_path):
    record, config = RunStore(tmp_path).run("0123"), tiny()
    first = run_efficiency(record, config)
    assert record.read_json(EFFICIENCY_FILE) == first
    assert first["milliseconds"] > 0
    assert first["parameters"] == count_parameters(build_network(config))
    record.write_json(EFFICIENCY_FILE, first | {"milliseconds": 1e9})
    assert run_efficiency(record, config)["milliseconds"] == 1e9


def test_images_have_the_size_of_the_test_frames():
    def size(dataset, **data):
        loss = {"name": "si", "target": "ground_truth"}
        return build({"data": {"dataset": dataset, **data}, "loss": loss}).data.evaluation_size

    assert size("kitti") == KITTI.view_size
    assert size("nyu") == (480, 640)
    assert size("synthetic-outdoor", frame_size=[96, 160], train_crop=[64, 96]) == (96, 160)
