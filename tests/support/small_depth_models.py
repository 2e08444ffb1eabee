"""Depth models of the transformers library, with random weights and as small as their classes allow."""

from pathlib import Path

import torch
from torch import nn


def save_small(name: str, folder: Path) -> None:
    """Save the model and the image processor of this name in MAKERS as published ones are."""
    for part in MAKERS[name]():
        if isinstance(part, nn.Module):
            _spread(part)
        part.save_pretrained(folder)


def _spread(model: nn.Module) -> None:
    """Weights large enough for the depth to differ from pixel to pixel."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                scale = (1 / parameter[0].numel()) ** 0.5
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def _dinov2():
    from transformers import Dinov2Config

    return Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )


def _depth_anything(**settings):
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, DPTImageProcessor

    config = DepthAnythingConfig(
        backbone_config=_dinov2(),
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
        **{"depth_estimation_type": "metric", "max_depth": 80, **settings},
    )
    size = {"height": 112, "width": 112}
    return DepthAnythingForDepthEstimation(config), DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14)


def _zoedepth(*heads):
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation, ZoeDepthImageProcessor

    backbone = BeitConfig(
        image_size=64,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=48,
        use_relative_position_bias=True,
        reshape_hidden_states=False,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        bottleneck_features=16,
        num_relative_features=8,
        bin_embedding_dim=8,
        num_attractors=[4, 3, 2, 1],
        bin_configurations=[{"name": name, "n_bins": 16, "min_depth": 1e-3, "max_depth": end} for name, end in heads],
        num_patch_transformer_layers=4,
        patch_transformer_hidden_size=128,
        patch_transformer_intermediate_size=32,
        patch_transformer_num_attention_heads=2,
    )
    processor = ZoeDepthImageProcessor(size={"height": 96, "width": 128}, ensure_multiple_of=32)
    return ZoeDepthForDepthEstimation(config), processor


def _dpt(stated="metric"):
    """DPT as Intel publishes it, which is relative, with what makes it metric stated or not."""
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    config = DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        **({"depth_estimation_type": stated} if stated else {}),
    )
    return DPTForDepthEstimation(config), DPTImageProcessor(size={"height": 160, "width": 160})


def _dpt_padded():
    """DPT on DINOv2, whose processor keeps the frame's size and pads it to a multiple of the patch."""
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    config = DPTConfig(
        backbone_config=_dinov2(),
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        depth_estimation_type="metric",
    )
    return DPTForDepthEstimation(config), DPTImageProcessor(do_resize=False, do_pad=True, size_divisor=14)


def _glpn():
    from transformers import GLPNConfig, GLPNForDepthEstimation, GLPNImageProcessor

    config = GLPNConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], max_depth=80)
    return GLPNForDepthEstimation(config), GLPNImageProcessor()


def _depth_pro_without_field_of_view():
    """Its config alone, which is what is refused."""
    from transformers import DepthProConfig, DepthProImageProcessor

    return DepthProConfig(use_fov_model=False), DepthProImageProcessor()


MAKERS = {
    "depth-anything": _depth_anything,
    "zoedepth": lambda: _zoedepth(("kitti", 80.0)),
    "zoedepth-two-heads": lambda: _zoedepth(("nyu", 10.0), ("kitti", 80.0)),
    "dpt": _dpt,
    "dpt-padded": _dpt_padded,
    "glpn": _glpn,
    "relative depth-anything": lambda: _depth_anything(depth_estimation_type="relative"),
    "relative dpt": lambda: _dpt(stated=None),
    "relative depth-pro": _depth_pro_without_field_of_view,
    "indoor depth-anything": lambda: _depth_anything(max_depth=20),
}
