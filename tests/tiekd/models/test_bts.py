import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tiekd.config import RunConfig, build
from tiekd.config.documents import with_values
from tiekd.data import open_frames
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.data.transforms import normalize_image
from tiekd.errors import UserError
from tiekd.inference.predict import predict
from tiekd.models.bts import STRIDES, LocalPlanarGuidance, bts_released_keys
from tiekd.models.checkpoint import load_network
from tiekd.models.registry import build_network, count_parameters

SMALL = {"name": "bts", "encoder": "test_resnet", "decoder_channels": [48, 32, 24, 16, 8]}
ENCODERS = ["test_resnet", "test_efficientnet", "mobilenetv3_small_050", "densenet121"]


def config_of(**student) -> RunConfig:
    return build({"data": {"dataset": "nyu"}, "student": {**SMALL, **student}})


def seeded(config: RunConfig) -> nn.Module:
    torch.manual_seed(0)
    return build_network(config)


def image(size: tuple[int, int], batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


def features_of_a_resnet() -> list[torch.Tensor]:
    """Random ones, as many as the small encoder gives of an image of 64 x 96."""
    return [torch.randn(1, width, 64 // s, 96 // s) for width, s in zip((32, 32, 48, 192, 96), STRIDES, strict=True)]


# -- against the released model ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def released(oracle, oracle_weights, oracle_image) -> SimpleNamespace:
    """What the released model computed, and ours with the same weights on the same image.

    Ours in float64: these weights amplify float32's rounding a thousandfold, and so only one side has it.
    """
    page = oracle("teachers/bts")
    network = build_network(build({"data": {"dataset": "kitti"}, "student": {"name": "bts"}}))
    keys = bts_released_keys(network)
    theirs = oracle_weights(page["state_dict"])
    network.load_state_dict({ours: theirs[name] for ours, name in keys.names.items()})
    logits = []
    network.decoder.depth.register_forward_hook(lambda module, inputs, output: logits.append(output))
    seen = oracle_image(96, 160).double()
    with torch.inference_mode():
        network.double().eval()
        features, depth = network.encoder(seen), network(seen).depth
    numbers = np.load(oracle.folder / "teachers/bts.npz")
    return SimpleNamespace(page=page, numbers=numbers, network=network, features=features, logits=logits[0], depth=depth)


def error(ours: torch.Tensor, theirs: np.ndarray, over: np.ndarray | float) -> float:
    """Largest error over `over`; of ours every n-th number takes part, as many as there are of theirs."""
    flat = ours.flatten().double().numpy()
    step = next(n for n in range(1, flat.size + 1) if flat[::n].size == theirs.size)
    return float(np.max(np.abs(flat[::step] - theirs.ravel()) / over))


def test_it_has_the_released_number_of_parameters(released):
    assert count_parameters(released.network) == released.page["n_params"]
    assert count_parameters(released.network.encoder) == released.page["n_params_backbone"]


def test_every_released_tensor_has_one_of_ours(released):
    keys = bts_released_keys(released.network)
    assert sorted(keys.names.values()) == sorted(released.page["state_dict"])
    assert not keys.unused
    assert not keys.layouts


def test_depth_is_the_released_models(released, parity):
    for name in ("head_depth_s1", "encode_decode_s1"):
        theirs = released.numbers[name]
        parity("teachers: BTS, depth, relative", error(released.depth, theirs, np.abs(theirs)), 1e-4)
    depth = released.depth
    stats = [depth.min(), depth.mean(), depth.max(), depth.std()]
    assert [float(value) for value in stats] == pytest.approx(released.page["depth_stats"], rel=1e-4)


def test_features_and_logits_are_the_released_models(released, parity):
    for level, features in enumerate(released.features):
        name = next(name for name in released.numbers if name.startswith(f"bfeat{level}_"))
        theirs = released.numbers[name]
        parity("teachers: BTS, features, of the largest", error(features, theirs, np.abs(theirs).max()), 1e-5)
        assert [float(features.mean()), float(features.std())] == pytest.approx(released.page["feat_mean_std"][level], rel=1e-5)
    theirs = released.numbers["conv_depth_s1"]
    parity("teachers: BTS, logits, of the largest", error(released.logits, theirs, np.abs(theirs).max()), 1e-5)
    mean, std, shape = released.page["conv_depth_mean_std_shape"]
    assert [float(released.logits.mean()), float(released.logits.std())] == pytest.approx([mean, std], rel=1e-5)
    assert list(released.logits.shape) == shape


# -- what it is made of --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [2, 4, 8])
def test_the_pixels_of_a_cell_lie_on_its_plane(cell):
    torch.manual_seed(0)
    guide = LocalPlanarGuidance(12, 12, cell)
    features = torch.randn(2, 12, 3, 5)
    with torch.no_grad():
        tilt, azimuth, distance = torch.sigmoid(guide.plane(features)).unbind(1)
        depth = guide(features)
    assert depth.shape == (2, 1, 3 * cell, 5 * cell)
    tilt, azimuth = tilt * math.pi / 3, azimuth * 2 * math.pi
    for row in range(3 * cell):
        for column in range(5 * cell):
            at = (slice(None), row // cell, column // cell)
            u, v = ((position % cell + 0.5) / cell - 0.5 for position in (column, row))
            ray = torch.stack([tilt[at].sin() * azimuth[at].cos() * u, tilt[at].sin() * azimuth[at].sin() * v, tilt[at].cos()])
            torch.testing.assert_close(depth[:, 0, row, column] * ray.sum(0), distance[at])


def test_a_plane_that_faces_the_camera_has_one_depth():
    guide = LocalPlanarGuidance(3, 1, 4)
    with torch.no_grad():
        guide.plane[-1].weight.copy_(torch.eye(3)[:, :, None, None])
        depth = guide(torch.tensor([-100.0, 0.3, 0.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2))
    torch.testing.assert_close(depth, torch.full((1, 1, 8, 8), 0.5))


def test_each_branch_is_dilated_further_and_sees_what_the_ones_before_it_found():
    aspp = build_network(config_of()).decoder.aspp
    assert [branch[-1].dilation for branch in aspp.branches] == [(n, n) for n in (3, 6, 12, 18, 24)]
    joined = 32 + 48  # the decoder's width at 1/8 and the encoder's
    assert [branch[2].in_channels for branch in aspp.branches] == [32, joined + 24, joined + 48, joined + 72, joined + 96]


def test_a_stops_depth_guides_the_next_one_by_the_first_pixel_of_each_of_its_cells():
    decoder, seen = seeded(config_of()).decoder.eval(), {}
    for name in ("guide8", "guide4"):
        getattr(decoder, name).register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output}))
    for name in ("merge4", "merge2"):
        getattr(decoder, name).register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: inputs[0]}))
    with torch.inference_mode():
        decoder(features_of_a_resnet())
    assert torch.equal(seen["merge4"][:, -1:], F.interpolate(seen["guide8"], scale_factor=1 / 4))
    assert torch.equal(seen["merge2"][:, -1:], F.interpolate(seen["guide4"], scale_factor=1 / 2))


def test_the_deepest_features_are_rectified():
    decoder = seeded(config_of()).decoder.eval()
    *skips, deepest = features_of_a_resnet()
    with torch.inference_mode():
        assert torch.equal(decoder([*skips, deepest]), decoder([*skips, deepest.clamp(min=0)]))


# -- as any network of the framework -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ENCODERS)
def test_depth_has_the_size_of_the_image_and_lies_within_the_range(encoder):
    network = seeded(config_of(encoder=encoder)).eval()
    for size in ((64, 96), (50, 70), (33, 128)):
        with torch.inference_mode():
            prediction = network(image(size, batch=2))
        assert prediction.depth.shape == (2, 1, *size)
        assert prediction.depth.dtype == torch.float32
        assert prediction.depth.min() >= 0
        assert prediction.depth.max() <= 10
        assert prediction.dpm_logits is None
        assert prediction.bin_centers is None


def test_an_image_of_any_size_is_seen_with_its_border_repeated():
    network = seeded(config_of()).eval()
    with torch.inference_mode():
        whole = network(F.pad(image((50, 70)), (0, 26, 0, 14), mode="replicate")).depth
        assert torch.equal(network(image((50, 70))).depth, whole[..., :50, :70])


def test_every_parameter_is_trained():
    network = seeded(config_of()).train()
    with torch.no_grad():  # ResNets end their branches in zeros, past which nothing flows at first
        for parameter in network.parameters():
            parameter.masked_fill_(parameter == 0, 0.1)
    network(image((64, 96), batch=2)).depth.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_nothing_in_it_is_bound_to_a_device():
    network = build_network(config_of()).to("meta")
    assert network(image((50, 70)).to("meta")).depth.device.type == "meta"


def test_planes_and_depth_stay_in_float32_under_autocast():
    network = seeded(config_of()).eval()
    kinds = []
    for cell in (8, 4, 2):
        getattr(network.decoder, f"guide{cell}").register_forward_hook(
            lambda module, inputs, output: kinds.append(output.dtype)
        )
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        depth = network(image((64, 96))).depth
    assert [*kinds, depth.dtype] == [torch.float32] * 4
    assert depth.isfinite().all()


@pytest.mark.parametrize(
    ("student", "strides"),
    [({"output_stride": 16}, r"\[2, 4, 8, 16, 16\]"), ({"levels": [1, 2, 3, 4]}, r"\[4, 8, 16, 32\]")],
)
def test_an_encoder_of_other_strides_is_refused(student, strides):
    with pytest.raises(UserError, match=rf"'test_resnet': bts needs levels of strides \[2, 4, 8, 16, 32\], got {strides}$"):
        build_network(config_of(**student))


def test_it_learns_from_ground_truth_and_leaves_its_maps(tiekd, as_yaml, learning, execute_run, tmp_path):
    data = {"dataset": "synthetic-indoor", "train_frames": 8, "test_frames": 4, "frame_size": [64, 96]}
    document = {"data": data, "student": SMALL, "execution": {"store": str(tmp_path / "store")}}
    optim = {"epochs": 8, "batch_size": 2, "lr": 2e-3}
    config = build(with_values(document, {**learning, "optim": optim, "evaluation.every": 8}))
    assert (config.method, config.loss.name) == ("Teacher", "si")
    record, status = execute_run(config)
    assert status.state == "done", status.cause
    losses = record.read_table("epochs.parquet")["loss"].to_list()
    assert losses[-1] < 0.5 * losses[0]

    recipe, maps = as_yaml(tmp_path / "bts.yaml", config.document()), tmp_path / "maps"
    outcome = tiekd("teacher", "export", recipe, "--out", maps, "--name", "bts")
    assert outcome.code == 0, outcome.err
    network, _ = load_network(tmp_path / "store/runs" / record.run_id / "student.safetensors")
    source = open_frames(config.data, "test")
    frame = source.load(0)
    depth = predict(network.eval(), normalize_image(frame.image)[None], config).depth[0, 0]
    stored = TeacherMaps(maps).load(source.keys[0], frame.size)
    assert len(TeacherMaps(maps).keys) == 12
    assert np.abs(stored - depth.numpy()).max() <= 10.0 / 65535 / 2 + 1e-6  # half a unit, and float32's own rounding
