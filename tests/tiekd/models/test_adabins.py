from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tiekd.config import RunConfig, build
from tiekd.config.documents import with_values
from tiekd.data import open_frames
from tiekd.errors import UserError
from tiekd.inference.evaluate import evaluate
from tiekd.models.adabins import adabins_released_keys, check_size
from tiekd.models.checkpoint import load_network
from tiekd.models.registry import build_network, check_network, count_parameters

SMALL = {"name": "adabins", "encoder": "test_efficientnet", "decoder_channels": [32, 24, 16, 16, 8]}
SIZE = (96, 128)  # 3 x 4 patches: the least that a last width of 8 allows is 9
UNUSED = {"backbone.original_model.bn2": 2 * 2048, "decode_head.conv_depth": 9 * 128 + 1}  # parameters of the released model


def config_of(student: dict | None = None, **sections) -> RunConfig:
    settings = {"data": {"dataset": "nyu", "train_crop": SIZE}, "bins": {"n_bins": 16}, **sections}
    return build({**settings, "student": {**SMALL, **(student or {})}})


def seeded(config: RunConfig) -> nn.Module:
    torch.manual_seed(0)
    return build_network(config)


def image(size: tuple[int, int] = SIZE, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


# -- against the released model ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def released(oracle, oracle_weights, oracle_image) -> SimpleNamespace:
    """What the released model computed, and ours with the same weights on the same image."""
    page, numbers = oracle("teachers/adabins"), np.load(oracle.folder / "teachers/adabins.npz")
    network = build_network(build({"data": {"dataset": "kitti"}, "student": {"name": "adabins"}})).eval()
    theirs = oracle_weights(page["state_dict"])
    network.load_state_dict({ours: theirs[name] for ours, name in adabins_released_keys(network).names.items()})
    ours = SimpleNamespace()
    network.decoder.register_forward_pre_hook(lambda module, inputs: setattr(ours, "features", inputs[0]))
    network.head.logits.register_forward_hook(lambda module, inputs, output: setattr(ours, "logits", output))
    network.head.register_forward_hook(lambda module, inputs, output: setattr(ours, "half", output.depth))
    with torch.inference_mode():
        ours.depth = network(oracle_image(352, 704)).depth
    return SimpleNamespace(page=page, numbers=numbers, network=network, ours=ours)


def test_it_has_the_released_number_of_parameters_less_the_unused(released):
    assert count_parameters(released.network) == released.page["n_params"] - sum(UNUSED.values())
    backbone = released.page["n_params_backbone"] - UNUSED["backbone.original_model.bn2"]
    assert count_parameters(released.network.encoder) == backbone


def test_every_released_tensor_has_one_of_ours_or_is_unused(released):
    keys = adabins_released_keys(released.network)
    assert list(keys.names) == list(released.network.state_dict())
    assert sorted([*keys.names.values(), *keys.unused]) == sorted(released.page["state_dict"])
    assert {name.rpartition(".")[0] for name in keys.unused} == set(UNUSED)
    assert not keys.layouts


def test_features_are_the_released_models(released, parity):
    assert [list(level.shape) for level in released.ours.features] == released.page["backbone_feat_shapes"]
    stored = sorted(released.numbers)
    for level, name, stats in zip(released.ours.features, stored, released.page["feat_mean_std"], strict=True):
        theirs = released.numbers[name]
        error = np.abs(level.flatten()[:: int(name.partition("_s")[2])].numpy() - theirs).max() / np.abs(theirs).max()
        parity("teachers: AdaBins, features, of the largest", float(error), 1e-5)
        errors = [abs(float(level.mean()) - stats[0]), abs(float(level.std()) - stats[1])]
        parity("teachers: AdaBins, mean and std of features, of the std", max(errors) / stats[1], 1e-6)


def test_logits_and_depth_are_the_released_models(released, parity):
    mean, std, shape = released.page["logits_mean_std_shape"]
    logits, depth = released.ours.logits, released.ours.half
    assert list(logits.shape) == shape
    parity("teachers: AdaBins, mean of logits, relative", abs(float(logits.mean()) / mean - 1), 1e-5)
    parity("teachers: AdaBins, std of logits, relative", abs(float(logits.std()) / std - 1), 1e-5)
    assert list(depth.shape) == released.page["out_shape"]
    for ours, theirs in zip([depth.min(), depth.mean(), depth.max(), depth.std()], released.page["depth_stats"], strict=True):
        parity("teachers: AdaBins, min, mean, max, std of depth, relative", abs(float(ours) / theirs - 1), 1e-5)
    assert list(released.ours.depth.shape) == released.page["encode_decode_shape"]
    corners = np.s_[..., :: depth.shape[-2] - 1, :: depth.shape[-1] - 1]
    assert torch.equal(depth[corners], released.ours.depth[..., ::351, ::703])


# -- its bins ------------------------------------------------------------------------------------------------------------------


def test_bins_tile_the_range_in_proportion_to_what_the_head_says():
    head = seeded(config_of()).head
    said = torch.linspace(-2, 3, 16)
    with torch.no_grad():
        head.widths[-1].weight.zero_()
        head.widths[-1].bias.copy_(said)
        centers = head.centers(torch.zeros(2, 8))
    share = np.maximum(said.numpy(), 0) + 0.1
    edges = 1e-3 + (10 - 1e-3) * np.concatenate([[0], np.cumsum(share / share.sum())])
    np.testing.assert_allclose(centers, np.tile((edges[1:] + edges[:-1]) / 2, (2, 1)), rtol=1e-6)


def test_each_image_chooses_its_own_bins():
    network = seeded(config_of()).eval()
    both = image(batch=2)
    with torch.inference_mode():
        together, alone = network(both), network(both[1:])
    assert together.bin_centers.shape == (2, 16)
    assert (together.bin_centers[0] - together.bin_centers[1]).abs().max() > 1e-4
    torch.testing.assert_close(together.bin_centers[1:], alone.bin_centers)
    torch.testing.assert_close(together.depth[1:], alone.depth)


def test_only_a_trained_transformer_drops_out():
    head, features = seeded(config_of()).head, torch.randn(1, 8, 48, 64)
    with torch.no_grad():
        assert not torch.equal(head.train()(features).bin_centers, head(features).bin_centers)
        assert torch.equal(head.eval()(features).bin_centers, head(features).bin_centers)


# -- as any network of the framework -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["test_efficientnet", "mobilenetv2_100"])
def test_depth_has_the_size_of_the_image_and_lies_between_the_bins(encoder):
    network = seeded(config_of({"encoder": encoder})).eval()
    for size in (SIZE, (97, 131), (128, 190)):
        with torch.inference_mode():
            depth, logits, centers = network(image(size, batch=2))
        assert depth.shape == (2, 1, *size)
        assert logits is None
        assert (centers.diff(dim=1) > 0).all()
        assert (centers > 1e-3).all()
        assert (centers < 10).all()
        assert depth.min() >= centers.min()
        assert depth.max() <= centers.max()


def test_depth_and_bins_stay_in_float32_under_autocast():
    network = seeded(config_of()).eval()
    with torch.inference_mode():
        exact = network(image())
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(image())
    assert [rounded.depth.dtype, rounded.bin_centers.dtype] == [torch.float32] * 2
    torch.testing.assert_close(rounded.depth, exact.depth, rtol=0.05, atol=0)
    assert rounded.depth.unique().numel() > 2**8  # bfloat16 has so many steps to a doubling of depth


def test_every_parameter_is_trained():
    network = seeded(config_of()).train()
    network(image(batch=2)).depth.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_it_is_planned_and_built_without_memory():
    config = build({"data": {"dataset": "kitti"}, "student": {"name": "adabins"}})
    check_network(config)
    with torch.device("meta"):
        network = build_network(config)
    assert network(torch.zeros(1, 3, 352, 704, device="meta")).depth.shape == (1, 1, 352, 704)


@pytest.mark.parametrize(
    ("student", "told"),
    [
        ({"encoder": "resnet18"}, r"student\.encoder: adabins reads the convolution .* which 'resnet18' lacks; valid: "),
        ({"encoder": "mobilenetv3_small_050"}, r"which 'mobilenetv3_small_050' lacks"),  # it has one, beyond its pooling
        ({"encoder": "mobilenetv1_100"}, r"which 'mobilenetv1_100' lacks"),  # an EfficientNet to timm
        ({"encoder": "test_efficient"}, r"student\.encoder: unknown 'test_efficient'; did you mean .*test_efficientnet"),
        ({"levels": [1, 2, 3, 4]}, r"student\.levels: adabins decodes the levels \[0, 1, 2, 3, 4\], got \[1, 2, 3, 4\]$"),
        ({"decoder_channels": [32, 24, 16, 16, 6]}, r"adabins needs a multiple of 4 as its last width, got 6$"),
    ],
)
def test_what_it_cannot_be_made_of_is_refused(student, told):
    with pytest.raises(UserError, match=told) as caught, torch.device("meta"):
        build_network(config_of(student))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(352, 704), (352, 1216), (416, 544), (480, 640), (375, 1242)])
def test_the_published_sizes_are_seen(size):
    check_size(size, width=128)


@pytest.mark.parametrize(("size", "patches"), [((640, 831), "20 x 26"), ((64, 208), "2 x 6"), ((16, 400), "0 x 12")])
def test_images_of_too_many_or_too_few_patches_are_refused(size, patches):
    with pytest.raises(
        UserError, match=rf"image of {size[0]}x{size[1]} into {patches} patches .* valid: 129 .* to 500 patches$"
    ):
        check_size(size, width=128)


@pytest.mark.parametrize("sizes", [{"train_crop": [64, 96]}, {"frame_size": [768, 1024]}], ids=str)
def test_sizes_are_refused_before_anything_is_trained(sizes):
    data = {"dataset": "synthetic-indoor", "frame_size": SIZE, "train_crop": SIZE, **sizes}
    with pytest.raises(UserError, match="adabins divides an image of "):
        build_network(config_of(data=data))


def test_an_image_of_another_size_is_refused_when_it_comes():
    with pytest.raises(UserError, match="adabins divides an image of 64x96 into 2 x 3 patches"):
        build_network(config_of())(image((64, 96)))


def test_it_learns_from_ground_truth_and_is_read_back(learning, execute_run, tmp_path):
    data = {"dataset": "synthetic-indoor", "train_frames": 8, "test_frames": 4, "frame_size": SIZE}
    document = {"data": data, "student": SMALL, "bins": {"n_bins": 16}}
    recipe = {"epochs": 6, "batch_size": 2, "lr": 1e-3, "clip_grad_norm": 1.0}
    few = {"data.train_crop": SIZE, "optim": recipe, "evaluation.every": 6, "execution.store": str(tmp_path / "store")}
    config = build(with_values(document, {**learning, **few}))
    assert (config.method, config.loss.name) == ("Teacher", "si_chamfer")
    record, status = execute_run(config)
    assert status.state == "done", status.cause
    losses = record.read_table("epochs.parquet")["loss"].to_list()
    assert losses[-1] < 0.5 * losses[0]

    network, trained = load_network(tmp_path / f"store/runs/{record.run_id}/student.safetensors")
    assert trained.document() == config.document()
    rows = list(evaluate(network, config, open_frames(config.data, "test"), torch.device("cpu"), range(4)))
    pd.testing.assert_frame_equal(pd.DataFrame(rows), record.read_table("images.parquet"))
