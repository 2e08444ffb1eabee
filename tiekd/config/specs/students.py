"""The students. To add a timm encoder under a name of its own: an entry here. Another architecture names its `build`, too."""

from tiekd.config.specs.kinds import ReleasedCheckpoint, StudentSpec

_KEYS = "tiekd.models.released_keys:student_released_keys"
_DECODER = "decode_head.upsample_custom.convA.conv.weight"  # of every released student

# Decoder channels run from the deepest level to the finest, as in the published recipe.
STUDENTS: dict[str, StudentSpec] = {
    "mobilenetv2": StudentSpec(
        label="MobileNetV2",
        defaults={
            "student": {
                "encoder": "mobilenetv2_100",
                "output_stride": 8,
                "levels": [1, 2, 3, 4],
                "decoder_channels": [2048, 512, 256, 128],
            }
        },
        released=ReleasedCheckpoint(released_keys=_KEYS, has=(_DECODER, "backbone.layer1.0.conv.0.conv.weight")),
    ),
    "resnet18": StudentSpec(
        label="ResNet18",
        defaults={"student": {"encoder": "resnet18", "levels": [0, 1, 2, 3, 4], "decoder_channels": [512, 256, 256, 128, 128]}},
        released=ReleasedCheckpoint(
            released_keys=_KEYS,
            has=(_DECODER, "backbone.layer1.0.conv2.weight"),
            lacks=("backbone.layer1.0.conv3.weight",),
        ),
    ),
    "resnet50": StudentSpec(
        label="ResNet50",
        defaults={
            "student": {"encoder": "resnet50", "levels": [0, 1, 2, 3, 4], "decoder_channels": [2048, 1024, 512, 256, 128]}
        },
        released=ReleasedCheckpoint(released_keys=_KEYS, has=(_DECODER, "backbone.layer1.0.conv3.weight")),
    ),
    "tiny": StudentSpec(
        label="tiny",
        defaults={"student": {"encoder": "test_efficientnet", "levels": [1, 2, 3, 4], "decoder_channels": [64, 48, 32, 16]}},
    ),
    "small": StudentSpec(
        label="small",
        defaults={"student": {"encoder": "test_resnet", "levels": [1, 2, 3, 4], "decoder_channels": [128, 96, 64, 48]}},
    ),
    # 1 to 5 M parameters, for a CPU. The widths are those of the encoder's features, so the skips are added as they are.
    # tf_efficientnet_lite0 has the tensors of efficientnet_lite0, but its padding depends on the size of the image: an export
    # for any size then takes minutes.
    "lite0": StudentSpec(
        label="EfficientNet-Lite0",
        defaults={
            "student": {
                "encoder": "efficientnet_lite0",
                "levels": [0, 1, 2, 3, 4],
                "decoder": "fastdepth",
                "decoder_channels": [112, 40, 24, 16, 16],
            }
        },
    ),
    "mobilenetv4": StudentSpec(
        label="MobileNetV4-S",
        defaults={
            "student": {
                "encoder": "mobilenetv4_conv_small",
                "levels": [0, 1, 2, 3, 4],
                "decoder": "fastdepth",
                "decoder_channels": [96, 64, 32, 32, 16],
            }
        },
    ),
    "fastdepth": StudentSpec(  # the network of the paper
        label="FastDepth",
        defaults={
            "student": {
                "encoder": "mobilenetv1_100",
                "levels": [0, 1, 2, 3, 4],
                "decoder": "fastdepth",
                "decoder_channels": [512, 256, 128, 64, 32],
            }
        },
    ),
    "timm": StudentSpec(label="timm", defaults={}),  # any encoder: the config names it
}
