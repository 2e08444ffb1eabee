"""Ultralytics' side of peer.py: train its depth model, and predict with it. Runs in the environment that has Ultralytics.

    PYTHON peer_theirs.py train DATA.yaml OUT MODEL EPOCHS SEED [NAME=VALUE ...]
    PYTHON peer_theirs.py predict IMAGES OUT

`train` writes OUT/train/weights/last.pt; NAME=VALUE are its own settings. `predict` writes OUT/raw and OUT/calibrated, with the
depth of each image in m, a float32 .npy, without and with the calibration of its trainer; and OUT/facts.json.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from ultralytics import YOLO


def train(data: str, out: str, model: str, epochs: str, seed: str, *settings: str) -> None:
    """Validation, with which it calibrates, runs once after the last epoch, on the frames that DATA.yaml names as `val`."""
    torch.set_num_threads(1)
    own = {name: json.loads(value) for name, _, value in (setting.partition("=") for setting in settings)}
    fixed = {"name": "train", "device": "cpu", "workers": 0, "val": False, "plots": False, "verbose": False}
    project = str(Path(out).absolute())
    YOLO(model, task="depth").train(data=data, project=project, epochs=int(epochs), seed=int(seed), **fixed, **own)


def predict(images: str, out: str) -> None:
    torch.set_num_threads(1)
    network = YOLO(Path(out) / "train/weights/last.pt").model.float().eval()
    head = network.model[-1]
    parameters = sum(parameter.numel() for parameter in network.parameters())
    facts = {"parameters": parameters, "exponent": float(head.cal_a), "factor": math.exp(float(head.cal_b))}
    Path(out, "facts.json").write_text(json.dumps(facts))
    write_maps(network, Path(images), Path(out) / "calibrated")
    head.cal_a.fill_(1.0)
    head.cal_b.fill_(0.0)
    write_maps(network, Path(images), Path(out) / "raw")


@torch.inference_mode()
def write_maps(network: torch.nn.Module, images: Path, out: Path) -> None:
    """Predict whole images, RGB in 0..1, and resize the output bilinearly with aligned corners, as its predictor does."""
    out.mkdir()
    for file in sorted(images.iterdir()):
        image = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)[None] / 255
        depth = torch.nn.functional.interpolate(network(image), image.shape[-2:], mode="bilinear", align_corners=True)
        np.save(out / f"{file.stem}.npy", depth[0, 0].numpy())


if __name__ == "__main__":
    {"train": train, "predict": predict}[sys.argv[1]](*sys.argv[2:])
