from types import SimpleNamespace

import numpy as np
import pytest
import torch
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock

from tiekd.config import RunConfig, build
from tiekd.config.documents import with_values
from tiekd.deploy.convert_released import rename_tensors
from tiekd.deploy.export_maps import trained_weights
from tiekd.errors import UserError
from tiekd.models.checkpoint import load_network
from tiekd.models.depthformer import DepthFormer, SwinEncoder, depthformer_released_keys, run_block
from tiekd.models.hahi import DeformableAttention, pixel_centers, sine_encoding
from tiekd.models.registry import build_network, check_network, count_parameters

pytestmark = pytest.mark.slow

SMALL = {
    "name": "depthformer",
    "encoder": "swin_tiny_patch4_window7_224.ms_in1k",
    "decoder_channels": [64, 48, 32, 24, 16],
}
UNUSED = 256 * 128 + 256  # decode_head.conv_out: parameters that the released model carries and never uses


def config_of(student: dict | None = None, **sections) -> RunConfig:
    return build({"data": {"dataset": "nyu"}, **sections, "student": {**SMALL, **(student or {})}})


def published() -> RunConfig:
    return build({"data": {"dataset": "kitti"}, "student": {"name": "depthformer"}})


def small() -> DepthFormer:
    """All of its parts, with as few weights as they can have."""
    torch.manual_seed(0)
    swin = SwinTransformer(
        embed_dim=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), strict_img_size=False, always_partition=True
    )
    return DepthFormer(SwinEncoder(swin), (32, 24, 16, 16, 8), (1e-3, 10.0), embedding=32)


def image(size: tuple[int, int], batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


# -- against the released model ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def released(oracle, oracle_weights, oracle_image) -> SimpleNamespace:
    """What the released model computed, and ours with the same weights on the same image."""
    page, numbers = oracle("teachers/depthformer"), np.load(oracle.folder / "teachers/depthformer.npz")
    network = build_network(published()).eval()
    theirs = oracle_weights(page["state_dict"])
    network.load_state_dict(rename_tensors(theirs, depthformer_released_keys(network), network.state_dict(), "oracle"))
    del theirs
    ours = SimpleNamespace()
    for name in ("encoder", "neck", "depth"):
        network.get_submodule(name).register_forward_hook(lambda module, inputs, output, name=name: setattr(ours, name, output))
    with torch.inference_mode():
        ours.prediction = network(oracle_image(96, 160)).depth
    return SimpleNamespace(page=page, numbers=numbers, ours=ours)


def test_it_has_the_released_number_of_parameters_less_the_unused(oracle):
    page = oracle("teachers/depthformer")
    with torch.device("meta"):
        network = build_network(published())
    assert count_parameters(network) == page["n_params"] - UNUSED
    assert count_parameters(network.encoder) == page["n_params_by_part"]["backbone"]
    assert count_parameters(network.neck) == page["n_params_by_part"]["neck"]


def test_every_released_tensor_has_one_of_ours_or_is_unused(oracle):
    with torch.device("meta"):
        network = build_network(published())
    keys = depthformer_released_keys(network)
    assert list(keys.names) == list(network.state_dict())
    assert sorted([*keys.names.values(), *keys.unused]) == sorted(oracle("teachers/depthformer")["state_dict"])
    assert {name.rpartition(".")[2] for name in keys.unused} == {"weight", "bias", "relative_position_index"}
    assert {name for name in keys.unused if "backbone" not in name} == {
        "decode_head.conv_out.0.weight",
        "decode_head.conv_out.0.bias",
    }


@pytest.mark.parametrize(("part", "name", "stats"), [("encoder", "bfeat", "feat_mean_std"), ("neck", "neck", "neck_mean_std")])
def test_features_are_the_released_models(released, parity, part, name, stats):
    features = getattr(released.ours, part)
    assert len(features) == 5
    for level, feature in enumerate(features):
        stored = next(stored for stored in released.numbers if stored.startswith(f"{name}{level}_s"))
        theirs = released.numbers[stored]
        error = np.abs(feature.flatten()[:: int(stored.partition("_s")[2])].numpy() - theirs).max() / np.abs(theirs).max()
        parity(f"teachers: DepthFormer, {part}, of the largest", float(error), 1e-5)
        mean, std = released.page[stats][level]
        errors = [abs(float(feature.mean()) - mean), abs(float(feature.std()) - std)]
        parity(f"teachers: DepthFormer, {part}, mean and std, of the std", max(errors) / std, 1e-5)


def test_depth_is_the_released_models(released, parity):
    logits, depth = released.ours.depth, released.ours.prediction
    mean, std, shape = released.page["conv_depth_mean_std_shape"]
    assert list(logits.shape) == shape
    half = torch.relu(logits) + 1e-3  # the oracle has statistics of the depth at half size, no pixels
    for ours, theirs in zip([logits.mean(), logits.std()], [mean, std], strict=True):
        parity("teachers: DepthFormer, mean and std of logits, relative", abs(float(ours) / theirs - 1), 1e-5)
    for ours, theirs in zip([half.min(), half.mean(), half.max(), half.std()], released.page["depth_stats"], strict=True):
        parity("teachers: DepthFormer, min, mean, max, std of depth, relative", abs(float(ours) / theirs - 1), 1e-5)
    assert list(depth.shape) == released.page["encode_decode_shape"]
    assert torch.equal(depth[..., ::95, ::159], half[..., ::47, ::79])


# -- Swin on maps of any size --------------------------------------------------------------------------------------------------


@pytest.fixture
def shifted() -> SwinTransformerBlock:
    torch.manual_seed(0)
    block = SwinTransformerBlock(8, (14, 14), num_heads=2, shift_size=3, always_partition=True, dynamic_mask=True)
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    return block.eval()


def test_on_whole_windows_a_block_is_timms(shifted):
    x = torch.randn(2, 14, 21, 8)
    with torch.no_grad():
        torch.testing.assert_close(run_block(shifted, x), shifted(x))


def test_beyond_whole_windows_the_opposite_borders_do_not_see_each_other(shifted):
    x = torch.randn(1, 12, 14, 8, requires_grad=True)

    def seen_from_the_last_row(run) -> torch.Tensor:
        (gradient,) = torch.autograd.grad(run(x)[0, -1].sum(), x)
        return gradient[0].abs().amax(dim=(1, 2))

    seen = seen_from_the_last_row(lambda x: run_block(shifted, x))
    assert seen[0] < 1e-20  # its weight in the softmax is exp(-100)
    assert seen[10] > 1e-3
    assert seen_from_the_last_row(shifted)[0] > 1e-3  # timm's own


@pytest.mark.parametrize("size", [(64, 96), (35, 33)])
def test_depth_has_the_size_of_the_image(size):
    with torch.inference_mode():
        depth, logits, centers = build_network(config_of()).eval()(image(size, batch=2))
    assert depth.shape == (2, 1, *size)
    assert (logits, centers) == (None, None)


# -- HAHI ----------------------------------------------------------------------------------------------------------------------

SIZES = [(8, 12), (4, 6)]


def attention(width: int = 4) -> DeformableAttention:
    torch.manual_seed(0)
    return DeformableAttention(width, levels=len(SIZES), heads=2, points=3)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (1.0, 0.0), (-0.5, 0.75)], ids=str)
def test_attention_reads_each_level_at_the_reference_and_its_offset_in_pixels(offset):
    layer = attention().eval()
    centers = [pixel_centers(size, torch.device("cpu")) for size in SIZES]
    memory = torch.cat(centers).repeat(1, 2)[None]  # each head finds the place where it looks
    reference = torch.tensor([[0.5, 0.5], [0.6, 0.4]])
    with torch.no_grad():
        for linear in (layer.value, layer.out):
            linear.weight.copy_(torch.eye(4))
        layer.offsets.bias.copy_(torch.tensor(offset).repeat(2 * 2 * 3))
        found = layer(torch.zeros(1, 2, 4), torch.zeros(2, 4), reference, memory, SIZES)
    moved = torch.stack([torch.tensor([offset[0] / width, offset[1] / height]) for height, width in SIZES]).mean(dim=0)
    torch.testing.assert_close(found, (reference + moved).repeat(1, 2)[None])


def test_attention_first_looks_into_all_directions():
    layer = DeformableAttention(8, levels=4)
    offsets = layer.offsets.bias.detach().view(8, 4, 8, 2)
    assert offsets.abs().amax(dim=-1).allclose(torch.arange(1.0, 9))  # point k: k + 1 pixels
    assert offsets[:, 0, 0].round().unique(dim=0).shape[0] == 8


def test_attention_learns_alike_whether_or_not_samples_are_drawn_again():
    layer, tokens = attention(8), torch.randn(2, 5, 8)
    layer.dropout.p = 0.0
    memory, reference = torch.randn(2, 8 * 12 + 4 * 6, 8), torch.rand(5, 2)
    gradients = []
    for mode in (True, False):
        layer.train(mode).zero_grad()
        layer(tokens, torch.zeros(5, 8), reference, memory, SIZES).square().sum().backward()
        gradients.append([parameter.grad for parameter in layer.parameters()])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_the_encoding_tells_row_and_column():
    encoding = sine_encoding((3, 5), 8, torch.device("cpu")).view(3, 5, 8)
    for row in range(3):
        for column in range(5):
            expected = [f(n / period) for n in (row + 1, column + 1) for period in (1, 100) for f in (np.sin, np.cos)]
            np.testing.assert_allclose(encoding[row, column], expected, rtol=1e-5)


def test_pixel_centers_are_shares_of_the_map():
    centers = pixel_centers((2, 4), torch.device("cpu"))
    assert centers.tolist() == [[x, y] for y in (0.25, 0.75) for x in (0.125, 0.375, 0.625, 0.875)]


# -- as any network of the framework -------------------------------------------------------------------------------------------


def test_depth_is_bounded_below_and_at_evaluation_above():
    network = small()
    with torch.no_grad():
        network.depth.bias.fill_(-1e3)
        assert (network.eval()(image((64, 96))).depth == 1e-3).all()
        network.depth.bias.fill_(1e3)
        assert (network(image((64, 96))).depth == 10.0).all()
        assert (network.train()(image((64, 96), batch=2)).depth > 100).all()


def test_every_parameter_is_trained():
    network = small()
    with torch.no_grad():  # attention begins with zeros, past which nothing flows to the levels' embedding
        for parameter in network.parameters():
            parameter.masked_fill_(parameter == 0, 0.1)
    network.train()(image((64, 96), batch=2)).depth.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_depth_stays_in_float32_under_autocast():
    network = small().eval()
    with torch.inference_mode():
        exact = network(image((64, 96))).depth
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(image((64, 96))).depth
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.01)


@pytest.mark.parametrize(("encoder", "width"), [("swin_large_patch4_window7_224.ms_in22k", 192), ("swin_s3_tiny_224", 96)])
def test_any_swin_of_timms_is_built_also_without_memory(encoder, width):
    with torch.device("meta"):
        network = build_network(config_of({"encoder": encoder}))
    assert network.encoder.channels == [64, width, 2 * width, 4 * width, 8 * width]
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("student", "told"),
    [
        ({"encoder": "resnet18"}, r"student\.encoder: depthformer needs a Swin .*, got 'resnet18'; valid: swin_base_patch4_"),
        ({"encoder": "swinv2_tiny_window8_256"}, r"needs a Swin .*, got 'swinv2_tiny_window8_256'"),
        ({"encoder": "swin_tiny"}, r"student\.encoder: unknown 'swin_tiny'; did you mean swin_"),
        ({"levels": [1, 2, 3]}, r"depthformer has the levels \[0, 1, 2, 3\] and stride 32, got \[1, 2, 3\] and 32$"),
        ({"output_stride": 16}, r"got \[0, 1, 2, 3\] and 16$"),
    ],
)
def test_what_it_cannot_be_made_of_is_refused(student, told):
    with pytest.raises(UserError, match=told) as caught:
        check_network(config_of(student))
    assert "\n" not in str(caught.value)


def test_it_learns_from_ground_truth_and_is_read_back(teacher, learning, execute_run, tmp_path):
    document = {"data": teacher.config.document()["data"], "student": SMALL, "loss": {"name": "si"}}
    few = {
        "data.train_frames": 4,  # Swin has no small variant, hence so few steps
        "data.test_frames": 1,
        "optim": {"epochs": 2, "batch_size": 2, "lr": 1e-3},
        "evaluation.every": 2,
    }
    config = build(with_values(document, {**learning, **few, "execution.store": str(tmp_path / "store")}))
    assert (config.method, config.student.head, config.optim.decay_norms) == ("Teacher", "regression", False)
    record, status = execute_run(config)
    assert status.state == "done", status.cause
    losses = record.read_table("epochs.parquet")["loss"].to_list()
    assert losses[-1] < 0.8 * losses[0]

    network, trained = load_network(trained_weights(config))
    assert trained.document() == config.document()
    with torch.inference_mode():
        depth = network.eval()(image((64, 96))).depth
    assert depth.std() > 0
