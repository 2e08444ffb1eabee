"""A weighted sum of losses, each with its own target."""

import pytest
import torch
from support.losses import total_loss

from tiekd.config import RunConfig, build
from tiekd.distill.loop import evaluate_loss
from tiekd.losses import build_loss
from tiekd.models.dpm_head import DPMHead, DPMPrediction


@pytest.fixture
def mix(config):
    """The config of parts, like that of `config`."""

    def make(parts: dict, **loss) -> RunConfig:
        document = config("tie_kd").stated
        return build({**document, "loss": {"sigma": 0.5, "parts": parts, **loss}})

    return make


@pytest.fixture
def targets(target):
    """A teacher, and ground truth that differs from it and is sparse."""
    ground_truth = 0.9 * target
    ground_truth[:, :, ::3] = 0
    ground_truth[1] = 0  # without a label
    return {"depth_teacher": target, "depth_gt": ground_truth}


@pytest.mark.parametrize("name", ["si", "tie_kd", "ssim_si", "gradient"])
def test_a_named_loss_is_its_only_part(config, mix, prediction, target, name):
    assert total_loss(mix({name: {}}), prediction, target) == total_loss(config(name), prediction, target)


def test_terms_are_named_by_their_parts():
    document = {"data": {"dataset": "synthetic-indoor"}, "teacher": {"name": "made", "maps": "maps"}}
    parts = {"labels": {"name": "si", "target": "ground_truth"}, "tie_kd": {"weight": 0.5}, "smoothness": {"weight": 0.01}}
    terms = build_loss(build({**document, "student": {"name": "tiny"}, "loss": {"parts": parts}})).terms
    assert {name: (weighted.weight, weighted.target) for name, weighted in terms.items()} == {
        "tie_kd.dpm": (0.5 * 10 * 0.1, "depth_teacher"),
        "tie_kd.depth": (0.5 * 10 * (1 - 0.1), "depth_teacher"),
        "labels": (1.0, "depth_gt"),
        "smoothness": (0.01, "image"),
    }


def test_each_part_is_its_loss_on_its_own_target_and_mask(config, mix, prediction, targets):
    parts = {"si": {"target": "ground_truth"}, "l_dpm": {"weight": 0.1}, "mse": {"weight": 0.2}}
    values = evaluate_loss(build_loss(mix(parts)), prediction, targets)
    expected = {
        "si": total_loss(config("si"), prediction, targets["depth_gt"]),
        "l_dpm": total_loss(config("l_dpm"), prediction, targets["depth_teacher"]),
        "mse": total_loss(config("mse"), prediction, targets["depth_teacher"]),
    }
    torch.testing.assert_close({name: values[name] for name in expected}, expected)
    torch.testing.assert_close(values["loss"], expected["si"] + 0.1 * expected["l_dpm"] + 0.2 * expected["mse"])


def test_a_batch_without_labels_is_trained_on_the_teacher_alone(config, mix, prediction, target):
    unlabelled = {"depth_teacher": target, "depth_gt": torch.zeros_like(target)}
    values = evaluate_loss(build_loss(mix({"si": {"target": "ground_truth"}, "mse": {}})), prediction, unlabelled)
    assert values["si"] == 0
    assert values["loss"] == total_loss(config("mse"), prediction, target)


def test_a_distribution_is_read_before_the_depth_so_that_one_pass_computes_both(mix, targets, monkeypatch):
    loss = build_loss(mix({"a": {"name": "si", "target": "ground_truth"}, "l_dpm": {}}))
    head, features = DPMHead(3, loss.terms["l_dpm"].term.bins), torch.randn(2, 3, 20, 24)
    passes = []
    monkeypatch.setattr("tiekd.models.dpm_head.depth_of_features", lambda *_: passes.append("depth alone"))
    single = {name: depth.float() for name, depth in targets.items()}
    assert evaluate_loss(loss, DPMPrediction(features, head), single)["loss"].isfinite()
    assert passes == []
