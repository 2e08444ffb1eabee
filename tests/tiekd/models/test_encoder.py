import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from tiekd.config import build
from tiekd.errors import UserError
from tiekd.models.encoder import build_encoder, check_pretrained_weights

pytestmark = pytest.mark.slow


def student_section(**settings):
    document = {"data": {"dataset": "nyu"}, "loss": {"name": "si", "target": "ground_truth"}}
    return build(document | {"student": {"name": "tiny", **settings}}).student


@pytest.mark.parametrize(("levels", "strides"), [([1, 2, 3, 4], [4, 8, 16, 32]), ([0, 1, 2], [2, 4, 8])])
def test_levels_choose_the_strides_of_the_features(levels, strides):
    encoder = build_encoder(student_section(encoder="resnet18", levels=levels, decoder_channels=[8] * len(levels)))
    assert encoder.feature_info.reduction() == strides
    features = encoder(torch.zeros(1, 3, 64, 96))
    assert [feature.shape[-2:] for feature in features] == [(64 // s, 96 // s) for s in strides]


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_no_feature_is_coarser_than_the_output_stride(stride):
    encoder = build_encoder(student_section(encoder="mobilenetv2_100", output_stride=stride))
    assert encoder(torch.zeros(1, 3, 64, 96))[-1].shape[-2:] == (64 // stride, 96 // stride)


@pytest.mark.parametrize(("name", "near"), [("resnet19", "resnet18"), ("mobilenet_v2_100", "mobilenetv2_100")])
def test_an_unknown_encoder_is_refused_with_the_nearest_ones(name, near):
    with pytest.raises(UserError, match=f"student.encoder: unknown '{name}'; did you mean .*{near}") as caught:
        build_encoder(student_section(encoder=name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"levels": [1, 2, 3, 9]},  # it has five
        {"encoder": "vgg11", "output_stride": 8},  # it cannot be dilated
    ],
    ids=str,
)
def test_what_an_encoder_does_not_offer_is_refused_by_its_name(settings):
    with pytest.raises(UserError, match=r"student.encoder '\w+' does not work with levels .* and output_stride") as caught:
        build_encoder(student_section(**settings))
    assert "\n" not in str(caught.value)


PRETRAINED = """
import sys
from tiekd.config import build
from tiekd.errors import UserError
from tiekd.models.registry import check_network
from tiekd.models.registry import build_network

student = {"name": "tiny", "pretrained": True}
config = build({"data": {"dataset": "nyu"}, "student": student, "loss": {"name": "si", "target": "ground_truth"}})
try:
    check_network(config) if sys.argv[1] == "checked" else print(build_network(config).encoder.conv_stem.weight.std().item())
except UserError as error:
    print(error)
"""


@pytest.fixture
def without_connection(tmp_path):
    """What a pretrained student says where there is no network, when it is checked or built."""
    # The variables are read once, at the first import: hence a process of its own.
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}

    def say(what: str) -> list[str]:
        command = [sys.executable, "-c", PRETRAINED, what]
        return subprocess.run(command, env=offline, capture_output=True, text=True, check=True).stdout.splitlines()

    return say


@pytest.mark.parametrize("what", ["checked", "built"])
def test_pretrained_weights_that_cannot_be_fetched_are_told_in_one_line(without_connection, what):
    (line,) = without_connection(what)
    assert line.startswith("student.pretrained: the weights of test_efficientnet could not be fetched")
    assert "student.pretrained=false" in line


def test_pretrained_weights_of_the_cache_need_no_connection(without_connection, tmp_path):
    source = timm.get_pretrained_cfg("test_efficientnet").hf_hub_id
    cached = tmp_path / "hub" / f"models--{source.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    weights = timm.create_model("test_efficientnet").state_dict()
    weights["conv_stem.weight"] /= weights["conv_stem.weight"].std()
    (cached / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(weights, cached / "snapshots" / ("0" * 40) / "model.safetensors")
    assert without_connection("checked") == []
    (spread,) = without_connection("built")
    assert float(spread) == pytest.approx(1)


def test_an_encoder_without_pretrained_weights_is_told_by_its_name():
    with pytest.raises(UserError, match=r"^student.pretrained: timm has no weights for mobilenetv2_035; set"):
        check_pretrained_weights(student_section(encoder="mobilenetv2_035", pretrained=True))
