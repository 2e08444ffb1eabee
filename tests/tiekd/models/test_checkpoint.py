import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tiekd.config import override
from tiekd.errors import DivergedError, UserError
from tiekd.models.checkpoint import load_network, pack_network
from tiekd.models.registry import build_network


@pytest.fixture
def weights(tiny, tmp_path):
    """Write a student of a config with overrides; its file and the student."""

    def write(overrides=None):
        config = tiny(overrides)
        student = build_network(config)
        path = tmp_path / "student.safetensors"
        path.write_bytes(pack_network(student, config))
        return path, student

    return write


@pytest.mark.parametrize("overrides", [{}, {"loss.name": "si"}, {"student.name": "small"}], ids=str)
def test_a_loaded_student_predicts_the_same(weights, overrides):
    path, student = weights(overrides)
    loaded, _ = load_network(path)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(image).depth, student.eval()(image).depth)


def test_weights_bring_the_config_they_were_trained_with(weights, tiny):
    path, _ = weights({"loss.sigma": 0.8, "optim.lr": 1e-5})
    _, config = load_network(path)
    assert config.document() == tiny({"loss.sigma": 0.8, "optim.lr": 1e-5}).document()
    assert override(config, {"seed": 3}).seed == 3


def test_a_student_that_began_with_pretrained_weights_is_loaded_without_fetching_them(weights, tiny, tmp_path):
    path, student = weights()
    path.write_bytes(pack_network(student, tiny({"student.pretrained": True})))
    loaded, config = load_network(path)
    assert config.student.pretrained
    assert torch.equal(loaded.head.logits.weight, student.head.logits.weight)


def test_weights_hold_every_tensor_and_not_only_parameters(weights):
    path, student = weights()
    student.encoder.bn1.running_mean += 1
    path.write_bytes(pack_network(student, load_network(path)[1]))
    assert torch.equal(load_network(path)[0].encoder.bn1.running_mean, student.encoder.bn1.running_mean)


def test_files_that_hold_no_student_are_refused_in_one_line(tmp_path):
    def refusal(name: str) -> str:
        with pytest.raises(UserError) as caught:
            load_network(tmp_path / name)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "absent.safetensors: no such file" in refusal("absent.safetensors")
    assert "no such file" in refusal(".")
    torch.save({"w": torch.zeros(2)}, tmp_path / "published.pth")
    assert "published.pth: a checkpoint of PyTorch; convert one of the released code with `tiekd convert" in refusal(
        "published.pth"
    )
    (tmp_path / "empty.safetensors").touch()
    assert "empty.safetensors: not a safetensors file" in refusal("empty.safetensors")
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    assert "other.safetensors: has no tiekd header" in refusal("other.safetensors")


def header(text):
    """Replace the tiekd header."""
    return lambda tensors, metadata: metadata.update(tiekd=text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (header("{"), r"the tiekd header is not valid JSON \("),
        (header("[" * 100_000), r"the tiekd header is not valid JSON \("),
        (header("[]"), r"a run config is a mapping of sections, got list"),
        (header('{"data": {"dataset": "kiti"}}'), r"data.dataset: unknown 'kiti'"),
        (lambda tensors, _: tensors.pop("head.logits.bias"), r"missing \(1\): head.logits.bias$"),
        (lambda tensors, _: tensors.update(more=torch.zeros(1)), r"unknown \(1\): more$"),
        (lambda tensors, _: tensors.update({"head.logits.bias": torch.zeros(3)}), r"head.logits.bias \[3\] instead of \[16\]$"),
    ],
)
def test_damaged_weights_are_refused_in_one_line(weights, damage, message):
    path, student = weights()
    tensors, metadata = dict(student.state_dict()), {}
    with safe_open(path, "pt") as file:
        metadata |= file.metadata()
    damage(tensors, metadata)
    save_file(tensors, path, metadata)
    with pytest.raises(UserError, match=message) as caught:
        load_network(path)
    assert str(caught.value).startswith(f"weights {path}: ")
    assert "\n" not in str(caught.value)


def test_cut_weights_are_refused(weights):
    path, _ = weights()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"not a safetensors file \("):
        load_network(path)


def test_weights_that_are_not_finite_are_a_failure(weights, tiny):
    path, student = weights()
    student.head.logits.bias.data[0] = float("nan")
    path.write_bytes(pack_network(student, tiny()))
    with pytest.raises(DivergedError, match=r"student.safetensors: not finite in head.logits.bias$"):
        load_network(path)
