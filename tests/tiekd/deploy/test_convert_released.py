"""`tiekd convert`: what a released checkpoint is, is read from it; what does not fit is told in one line."""

import io
import json
import re
from collections import OrderedDict
from pkgutil import resolve_name
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tiekd.config import build
from tiekd.deploy.convert_released import CHECKPOINTS, recognize_network, rename_tensors
from tiekd.models.checkpoint import load_network
from tiekd.models.registry import build_network
from tiekd.models.released_keys import student_released_keys

BINS, DEPTH = "decode_head.conv_out.0", "decode_head.conv_depth"


@pytest.fixture(scope="module")
def regressing():
    """A ResNet18 that regresses depth in metres up to 80, as the released code would store it."""
    document = {"data": {"dataset": "kitti"}, "student": {"name": "resnet18"}, "loss": {"name": "si", "target": "ground_truth"}}
    network = build_network(build(document))
    keys, ours = student_released_keys(network), network.state_dict()
    state = {name: ours[key] for key, name in keys.names.items()}
    state |= {key: torch.zeros(1) for key in keys.unused} | {f"{BINS}.weight": torch.zeros(256, 128, 1, 1)}
    return SimpleNamespace(network=network, state=state)


@pytest.fixture
def with_dpm(regressing):
    """The state dict of a ResNet18 with a DPM head of so many bins."""

    def make(n_bins: int) -> dict:
        head = {f"{BINS}.weight": torch.rand(n_bins, 128, 1, 1), f"{BINS}.bias": torch.zeros(n_bins)}
        return regressing.state | head

    return make


@pytest.fixture
def converted(tiekd, in_folder):
    """Convert what torch.save writes of an object; what the command printed, and the weights and their config."""

    def convert(content: object, *options: object, **how):
        torch.save(content, "published.pth", **how)
        outcome = tiekd("convert", "published.pth", "--out", "made/weights.safetensors", "--json", *options)
        assert (outcome.code, outcome.err) == (0, "")
        network, config = load_network("made/weights.safetensors")
        return SimpleNamespace(told=json.loads(outcome.out), weights=network.state_dict(), config=config)

    return convert


@pytest.fixture
def mistake(tiekd, in_folder):
    """Convert a file in vain: one line, nothing written."""

    def refused(content: object, *options: object, name: str = "published.pth", out: str = "weights.safetensors") -> str:
        if isinstance(content, bytes):
            (in_folder / name).write_bytes(content)
        elif content is not None:
            torch.save(content, in_folder / name)
        before = {path: path.read_bytes() for path in in_folder.iterdir() if path.is_file()}
        outcome = tiekd("convert", name, "--out", out, *options)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
        assert {path: path.read_bytes() for path in in_folder.iterdir() if path.is_file()} == before
        return outcome.err

    return refused


# -- what a file is ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "page", "network", "head", "n_bins", "dataset"),
    [
        ("students", "mobilenetv2_dpm", "mobilenetv2", "dpm", 257, "kitti"),
        ("students", "mobilenetv2_base_custom_kd", "mobilenetv2", "regression", 256, None),
        ("students", "resnet18_dpm", "resnet18", "dpm", 257, "kitti"),
        ("students", "resnet18_base_custom_kd", "resnet18", "regression", 256, None),
        ("students", "resnet50_dpm", "resnet50", "dpm", 257, "kitti"),
        ("teachers", "adabins", "adabins", "adaptive_bins", 256, None),
        ("teachers", "bts", "bts", "regression", None, None),
        ("teachers", "depthformer", "depthformer", "regression", 256, None),
    ],
)
def test_released_networks_are_recognised_and_every_tensor_finds_its_place(
    oracle, folder, page, network, head, n_bins, dataset
):
    facts = oracle(f"{folder}/{page}")
    shapes = (facts["datasets"]["kitti"] if "datasets" in facts else facts)["state_dict"]
    theirs = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    document = recognize_network(theirs, "", page)
    assert document["student"]["name"] == network
    assert document["data"]["dataset"] == dataset
    assert document.get("bins", {}).get("n_bins") == n_bins
    config = build(document | {"data": {"dataset": "kitti"}})
    assert (config.student.head, config.teacher) == (head, None)
    with torch.device("meta"):
        built = build_network(config)
    keys = resolve_name(CHECKPOINTS[network].released_keys)(built)
    assert rename_tensors(theirs, keys, built.state_dict(), page).keys() == built.state_dict().keys()


@pytest.mark.parametrize(("n_bins", "dataset", "max_depth"), [(257, "kitti", 80.0), (49, "nyu", 10.0)])
def test_the_number_of_bins_tells_the_data_set(converted, with_dpm, n_bins, dataset, max_depth):
    made = converted({"state_dict": with_dpm(n_bins)})
    assert (made.told["head"], made.told["n_bins"], made.told["dataset"]) == ("dpm", n_bins, dataset)
    assert (made.config.data.max_depth, made.config.bins.n_bins) == (max_depth, n_bins)


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ("max_depth=10, min_depth=0.001, loss=dict(type='L_DPM_loss')", ("regression", "nyu")),
        ("max_depth=80.0)\ndata = dict(max_depth=80)", ("regression", "kitti")),
        ("type='DenseDepthHead_DPM_resnet', max_depth=10", ("dpm", "nyu")),
        ("max_depth=80, max_depth=10", ("regression", None)),
        ("max_depth=20", ("regression", None)),
    ],
)
def test_the_training_beside_the_weights_tells_what_they_leave_open(regressing, training, expected):
    document = recognize_network(regressing.state, training, "published.pth")
    assert (document["student"]["head"], document["data"]["dataset"]) == expected


# -- what is made of it --------------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_mmcv_gives_its_network(converted, regressing):
    content = {
        "meta": {"epoch": 24, "config": "max_depth=10", "hook_msgs": {"best_score": np.float64(0.06)}},
        "state_dict": OrderedDict((f"module.{key}", value) for key, value in regressing.state.items()),
        "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
    }
    made = converted(content)
    expected = regressing.network.state_dict()
    assert made.weights.keys() == expected.keys()
    assert all(torch.equal(made.weights[key], value) for key, value in expected.items())
    assert made.config.data.dataset == "nyu"
    assert made.told == {
        "network": "resnet18",
        "head": "regression",
        "n_bins": None,
        "dataset": "nyu",
        "tensors": len(expected),
        "parameters": sum(p.numel() for p in regressing.network.parameters()),
        "unused": sorted(
            [f"{BINS}.{tensor}" for tensor in ("weight", "bias")]
            + [f"decode_head.upsample_custom2.conv{c}.conv.{tensor}" for c in "AB" for tensor in ("weight", "bias")]
        ),
        "out": "made/weights.safetensors",
    }


def test_numbers_of_an_earlier_numpy_are_read(mistake, regressing):
    buffer = io.BytesIO()
    content = {"meta": {"best_score": np.float64(0.06)}, "state_dict": regressing.state}
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    earlier = buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert earlier != buffer.getvalue()
    assert "does not state the data set" in mistake(earlier)


def test_text_names_what_the_network_does_not_use(tiekd, in_folder, with_dpm):
    torch.save(with_dpm(49), "published.pth")
    outcome = tiekd("convert", "published.pth", "--out", "w.safetensors")
    first, second = outcome.out.splitlines()
    assert re.fullmatch(r"resnet18, dpm head of 49 bins, nyu: \d+ tensors, [\d,]+ parameters in w.safetensors", first)
    assert f"{DEPTH}.weight" in second
    assert f"{BINS}.weight" not in second


def test_settings_are_overridden(converted, with_dpm):
    made = converted(with_dpm(100), "--dataset", "nyu", "--set", "data.max_depth=8", "--set", "bins.spacing=log")
    assert (made.config.data.max_depth, made.config.bins.spacing) == (8.0, "log")
    made = converted(with_dpm(257), "--set", "student.head=regression")
    assert (made.told["head"], made.config.data.dataset) == ("regression", "kitti")


def test_a_converted_student_is_evaluated(tiekd, converted, regressing):
    converted(regressing.state, "--dataset", "kitti")
    small = "data={dataset: synthetic-outdoor, test_frames: 2, frame_size: [64, 96], train_crop: [48, 64]}"
    outcome = tiekd("evaluate", "made/weights.safetensors", "--set", small, "--protocol", "none", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    scored = json.loads(outcome.out)
    assert (scored["protocol"], scored["n_images"]) == ("none", 2)
    assert scored["metrics"]["abs_rel"] > 0


# -- mistakes ------------------------------------------------------------------------------------------------------------------


class Foreign:
    """What a checkpoint never holds."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"checkpoint published.pth: no such file"),
        (b"", r"not a checkpoint that torch.save wrote"),
        (b"a text, and no weights", r"not a checkpoint that torch.save wrote"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), r"not a checkpoint that torch.save wrote"),
        (b"PK\x03\x04" + bytes(64), r"not a checkpoint that torch.save wrote"),
        ({"state_dict": {"w": torch.zeros(1)}, "meta": Foreign()}, r"a pickled \S*Foreign, .*; expected tensors"),
        ([torch.zeros(1)], r"has no state dict; expected tensors by name"),
        ({"epoch": 24, "lr": 0.1}, r"has no state dict; expected tensors by name"),
        ({"state_dict": {}}, r"has no state dict; expected tensors by name"),
        ({"fc.weight": torch.zeros(1)}, r"not a known network \(1 tensors, first fc.weight\); valid: .* of adabins, bts, "),
    ],
    ids=["absent", "empty", "text", "image", "broken", "pickle", "list", "no tensors", "nothing", "another network"],
)
def test_a_file_of_no_released_network(mistake, content, message):
    assert re.search(message, mistake(content))


def test_a_file_that_torch_save_did_not_finish(mistake, regressing):
    buffer = io.BytesIO()
    torch.save(regressing.state, buffer)
    assert "not a checkpoint that torch.save wrote" in mistake(buffer.getvalue()[:-1000])


def test_a_data_set_that_nothing_tells_is_needed(mistake, regressing, with_dpm):
    told = r"does not state the data set of this resnet18, .*; needs --dataset, one of: kitti, nyu"
    assert re.search(told, mistake(regressing.state))
    assert re.search(told, mistake(with_dpm(100)))
    assert re.search(r"data.dataset: unknown 'kiti'; did you mean kitti", mistake(regressing.state, "--dataset", "kiti"))


def test_all_that_does_not_fit_is_listed(mistake, regressing):
    state = dict(regressing.state)
    state["decode_head.conv_list.1.convA.conv.weight"] = torch.zeros(256, 768, 1, 1)
    state["backbone.bn1.bias"] = torch.zeros(32)
    del state["backbone.conv1.weight"], state[f"{DEPTH}.bias"]
    state["backbone.layer5.weight"] = state["auxiliary_head.bias"] = torch.zeros(1)
    line = mistake(state, "--dataset", "nyu")
    assert "published.pth as resnet18, regression: " in line
    assert "missing (2): backbone.conv1.weight, decode_head.conv_depth.bias; " in line
    assert "unknown (2): auxiliary_head.bias, backbone.layer5.weight; " in line
    assert "of another shape (2): " in line
    assert "backbone.bn1.bias [32] instead of [64]" in line
    assert "decode_head.conv_list.1.convA.conv.weight [256, 768, 1, 1] instead of [256, 768, 3, 3]" in line


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("bins.n_bins=49", r"conv_out.0.weight \[257, 128, 1, 1\] instead of \[49, 128, 1, 1\]"),
        ("student.name=mobilenetv2", r"as mobilenetv2, dpm: missing"),
        ("student.name=tiny", r"student.name: unknown 'tiny'; .*valid: adabins, bts, "),
        ("student.encoder=resnet34", r"as resnet18, dpm: missing \(96\): backbone.layer1.2.bn1.bias, "),
        ("loss.name=tie_kd", r"needs a dense target, 'teacher', got 'ground_truth'"),
    ],
)
def test_settings_that_do_not_fit_the_checkpoint(mistake, with_dpm, setting, message):
    assert re.search(message, mistake(with_dpm(257), "--set", setting))


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (".", "is a folder; expected a file"),
        ("published.pth", "is the checkpoint itself"),
        ("published.pth/w.safetensors", "is a file; needed a folder"),
    ],
)
def test_a_place_that_cannot_take_the_weights(mistake, with_dpm, out, message):
    assert message in mistake(with_dpm(257), out=out)
