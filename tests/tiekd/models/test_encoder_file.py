"""`student.pretrained: FILE`: ImageNet weights of an encoder from a local file."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from tiekd.config import build, override
from tiekd.data.inputs import run_id_of
from tiekd.deploy.hub import shareable
from tiekd.distill.preflight import check_ready
from tiekd.errors import UserError
from tiekd.models.checkpoint import load_network, pack_network
from tiekd.models.registry import build_network

ENCODER = "mobilenetv2_050"


@pytest.fixture(scope="module")
def weights():
    """Tensors of a whole classifier, as timm ships them."""
    torch.manual_seed(3)
    return timm.create_model(ENCODER, pretrained=False).state_dict()


@pytest.fixture
def config():
    def make(path=False):
        student = {
            "name": "timm",
            "encoder": ENCODER,
            "levels": [0, 1, 2],
            "decoder_channels": [16, 8, 8],
            "pretrained": str(path) if path else False,
        }
        data = {"dataset": "synthetic-outdoor", "frame_size": [64, 96], "train_crop": [48, 64]}
        data |= {"train_frames": 4, "test_frames": 2}
        return build({"data": data, "student": student, "loss": {"name": "si", "target": "ground_truth"}})

    return make


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "nested.pth"])
def test_the_encoder_starts_from_the_files_weights(tmp_path, weights, config, name):
    if name.endswith(".safetensors"):
        save_file(weights, tmp_path / name)
    else:
        torch.save({"state_dict": weights} if name == "nested.pth" else weights, tmp_path / name)
    check_ready(config(tmp_path / name))
    encoder = build_network(config(tmp_path / name)).encoder.state_dict()
    assert torch.equal(encoder["conv_stem.weight"], weights["conv_stem.weight"])
    same = {key: torch.equal(tensor, weights[key.replace("blocks_", "blocks.")]) for key, tensor in encoder.items()}
    assert same
    assert all(same.values())


def test_a_network_is_loaded_without_the_file(tmp_path, weights, config):
    save_file(weights, tmp_path / "w.safetensors")
    network = build_network(config(tmp_path / "w.safetensors"))
    (tmp_path / "s.safetensors").write_bytes(pack_network(network, config(tmp_path / "w.safetensors")))
    (tmp_path / "w.safetensors").unlink()
    loaded, found = load_network(tmp_path / "s.safetensors")
    assert torch.equal(loaded.encoder.conv_stem.weight, weights["conv_stem.weight"])
    assert shareable(found).student.pretrained is True


def test_the_content_identifies_a_run_and_not_the_path(tmp_path, weights, config):
    for name, tensors in {"a": weights, "b": weights, "c": {k: v + 1 for k, v in weights.items()}}.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    ids = [run_id_of(config(tmp_path / f"{name}.safetensors")) for name in "abc"]
    assert ids[0] == ids[1] != ids[2]
    assert run_id_of(config()) not in ids
    assert override(config("w"), {}).with_absolute_paths().student.pretrained.endswith("/w")


def test_tensors_that_are_missing_or_of_another_shape_are_listed(tmp_path, weights, config):
    save_file({k: v for k, v in weights.items() if not k.startswith("blocks.0.0.conv")}, tmp_path / "few.safetensors")
    with pytest.raises(UserError, match=r"not weights of mobilenetv2_050: missing \(2\): blocks\.0\.0\.conv_dw\.weight, "):
        check_ready(config(tmp_path / "few.safetensors"))
    save_file(weights | {"conv_stem.weight": torch.zeros(3, 3)}, tmp_path / "shape.safetensors")
    with pytest.raises(UserError, match=r"of another shape \(1\): conv_stem\.weight \[3, 3\] instead of \[16, 3, 3, 3\]"):
        check_ready(config(tmp_path / "shape.safetensors"))
    save_file(timm.create_model("resnet10t", pretrained=False).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"not weights of mobilenetv2_050: missing \(\d+\): .*; the file has "):
        check_ready(config(tmp_path / "other.safetensors"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("w.pth", b"no weights", "not a file of weights"),
        ("w.safetensors", b"", "not a file of weights"),
        ("no.pth", None, "no such"),
    ],
)
def test_what_is_no_file_of_weights_is_refused_in_one_line(tmp_path, config, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        check_ready(config(tmp_path / name))
    assert "\n" not in str(caught.value)


class Code:
    def __reduce__(self):
        return print, ("this must never run",)


def test_no_code_of_a_file_is_run(tmp_path, config, capsys):
    torch.save({"state_dict": Code()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="not a file of weights"):
        check_ready(config(tmp_path / "w.pth"))
    assert "never" not in capsys.readouterr().out
