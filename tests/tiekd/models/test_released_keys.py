"""The released students' checkpoints, converted: the same tensors, the same features, the same depth."""

import copy
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tiekd.config import build, override
from tiekd.errors import UserError
from tiekd.inference.predict import predict
from tiekd.models.checkpoint import load_network
from tiekd.models.registry import build_network
from tiekd.models.released_keys import student_released_keys
from tiekd.models.student import DepthStudent

pytestmark = pytest.mark.slow

BOUND = 1e-4
PAGES = {
    "mobilenetv2_dpm": ("mobilenetv2", "dpm"),
    "mobilenetv2_base_custom_kd": ("mobilenetv2", "regression"),
    "resnet18_dpm": ("resnet18", "dpm"),
    "resnet18_base_custom_kd": ("resnet18", "regression"),
    "resnet50_dpm": ("resnet50", "dpm"),
}
GROUND_TRUTH = {"name": "si", "target": "ground_truth"}


def student_of(page: str, dataset: str = "kitti") -> nn.Module:
    name, head = PAGES[page]
    return build_network(build({"data": {"dataset": dataset}, "student": {"name": name, "head": head}, "loss": GROUND_TRUTH}))


@pytest.fixture(scope="module", params=PAGES)
def page(request):
    return request.param


@pytest.fixture(scope="module")
def weights(page, oracle, oracle_weights):
    """The released state dict on KITTI, by the oracle's rule."""
    return oracle_weights(oracle(f"students/{page}")["datasets"]["kitti"]["state_dict"])


@pytest.fixture(scope="module", params=["kitti", "nyu"])
def released(request, page, weights, oracle, oracle_weights):
    """What the released student is and computed on a data set, and its state dict."""
    facts = oracle(f"students/{page}")["datasets"][request.param]
    path = oracle.folder / f"students/{page}.npz"
    arrays = np.load(path) if path.is_file() else {}
    prefix = f"{request.param}/"
    return SimpleNamespace(
        dataset=request.param,
        facts=facts,
        arrays={key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)},
        state=weights | oracle_weights(facts.get("state_dict_diff_from_kitti", {})),
    )


@pytest.fixture(scope="module")
def converted(released, tiekd):
    """The student that `tiekd convert` makes of a checkpoint as mmcv writes it, and its config."""
    with tempfile.TemporaryDirectory() as folder:  # up to 600 MB, gone at once
        checkpoint, out = Path(folder, "student.pth"), Path(folder, "student.safetensors")
        torch.save({"meta": {"epoch": 24}, "state_dict": released.state}, checkpoint)
        outcome = tiekd("convert", checkpoint, "--dataset", released.dataset, "--out", out)
        assert (outcome.code, outcome.err) == (0, "")
        student, config = load_network(out)
    return student.eval(), config


def difference(ours: torch.Tensor, theirs: np.ndarray) -> float:
    """Largest difference over the largest magnitude."""
    ours = ours.detach().numpy().reshape(theirs.shape)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def test_every_released_tensor_is_known(page, released):
    with torch.device("meta"):
        network = student_of(page, released.dataset)
    keys = student_released_keys(network)
    ours, theirs = network.state_dict(), released.state
    assert {key: theirs[name].shape for key, name in keys.names.items()} == {key: ours[key].shape for key in ours}
    assert theirs.keys() == {*keys.names.values(), *keys.unused}
    assert keys.unused == set(released.facts["params_without_grad"])


@torch.no_grad()
def test_the_encoder_gives_the_released_features(page, released, converted, oracle_image, parity):
    student, _ = converted
    features = student.encoder(oracle_image(96, 160))
    assert [list(feature.shape) for feature in features] == released.facts["feat_shapes"]
    for level, feature in enumerate(features):
        mean, std = released.facts[f"feat{level}_mean_std"]
        parity(f"students: {page}, features", abs(feature.mean().item() - mean) / std, BOUND)
        parity(f"students: {page}, features", abs(feature.std().item() / std - 1), BOUND)
        if f"feat{level}_s101" in released.arrays:
            sampled = difference(feature.flatten()[::101], released.arrays[f"feat{level}_s101"])
            parity(f"students: {page}, features", sampled, BOUND)


@torch.no_grad()
def test_the_last_layer_gives_the_released_numbers(page, released, converted, oracle_image, parity):
    student, config = converted
    prediction = student(oracle_image(96, 160))
    if "logit_std" in released.facts:
        spread = abs(prediction.dpm_logits.std().item() / released.facts["logit_std"] - 1)
        parity(f"students: {page}, logits", spread, BOUND)
    if "logits_s31" in released.arrays:
        sampled = difference(prediction.dpm_logits.flatten()[::31], released.arrays["logits_s31"])
        parity(f"students: {page}, logits", sampled, BOUND)
    if "conv_depth_logit" in released.arrays:
        expected = torch.from_numpy(released.arrays["conv_depth_logit"]).sigmoid() * config.data.max_depth
        parity(f"students: {page}, sigmoid", difference(prediction.depth, expected.numpy()), BOUND)


@torch.no_grad()
def test_depth_and_dpm_are_the_released_ones(page, released, converted, oracle_image, parity):
    """With a last layer that was scaled down: the rule's weights saturate it."""
    (student, config), image, arrays = converted, oracle_image(96, 160), released.arrays
    expected = released.facts["tamed"]
    head = copy.deepcopy(student.head)
    (head.logits if config.student.head == "dpm" else head.depth).weight.mul_(expected["scale"])
    tamed = DepthStudent(student.encoder, student.decoder, head).eval()

    prediction = tamed(image)
    depth, logits = prediction.depth, prediction.dpm_logits
    stats = np.array([depth.min(), depth.mean(), depth.max()])
    parity(f"students: {page}, depth", float(np.abs(stats / expected["head_depth_stats"] - 1).max()), BOUND)
    if logits is not None:
        dpm = logits.softmax(dim=1)
        parity(f"students: {page}, DPM", abs(dpm.amax(dim=1).mean().item() / expected["prob_max_mean"] - 1), BOUND)
    if "tamed_prob_s31" in arrays:
        parity(f"students: {page}, DPM", difference(dpm.flatten()[::31], arrays["tamed_prob_s31"]), BOUND)
    if "tamed_head_depth" in arrays:
        parity(f"students: {page}, depth", float(np.abs(depth.numpy() / arrays["tamed_head_depth"] - 1).max()), BOUND)
        decoded = predict(tamed, image, override(config, {"evaluation.flip_tta": False})).depth.numpy()
        parity(f"students: {page}, depth", float(np.abs(decoded / arrays["tamed_encode_decode"] - 1).max()), BOUND)


@pytest.mark.parametrize("page", ["mobilenetv2_dpm", "resnet18_dpm", "resnet50_dpm"])
def test_norms_run_with_the_released_constants(page):
    with torch.device("meta"):
        norms = [module for module in student_of(page).modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}


def test_a_decoder_that_no_released_student_has_is_refused():
    student = {"name": "mobilenetv2", "decoder": "fastdepth"}
    with torch.device("meta"):
        network = build_network(build({"data": {"dataset": "kitti"}, "student": student, "loss": GROUND_TRUTH}))
    with pytest.raises(UserError, match=r"^student.decoder: the released students have 'densedepth', got 'fastdepth'$"):
        student_released_keys(network)


@pytest.mark.parametrize(
    ("output_stride", "dilations"),
    [
        (8, [[1], [1, 1], [1, 1, 1], [2, 1, 1, 1], [2, 1, 1], [4, 1, 1], [4]]),
        (16, [[1], [1, 1], [1, 1, 1], [1, 1, 1, 1], [1, 1, 1], [2, 1, 1], [2]]),
        (32, [[1], [1, 1], [1, 1, 1], [1, 1, 1, 1], [1, 1, 1], [1, 1, 1], [1]]),
    ],
)
def test_a_stage_of_mobilenetv2_is_dilated_in_its_first_block(output_stride, dilations):
    student = {"name": "mobilenetv2", "output_stride": output_stride}
    with torch.device("meta"):
        network = build_network(build({"data": {"dataset": "kitti"}, "student": student, "loss": GROUND_TRUTH}))
    blocks = [[block.conv_dw for block in stage] for stage in network.encoder.blocks]
    assert [[block.dilation[0] for block in stage] for stage in blocks] == dilations
    assert all(block.padding == block.dilation for stage in blocks for block in stage)
