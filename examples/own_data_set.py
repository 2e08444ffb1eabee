"""Train on a data set of your own, without changing the package: files on a disk, a layout, an entry.

    python examples/own_data_set.py

The data set is known in this process only. docs/how-to/own-data-set.md adds one to the package, for all commands.
"""

from pathlib import Path

import numpy as np
from PIL import Image

import tiekd
from tiekd.config.specs import DATASETS, DatasetSpec, License
from tiekd.data.layouts.split_list import Layout

ROOT = Path("demo/examples/walls")
WALLS = Layout(
    root_holds="train.txt, test.txt and the PNGs that they name", example="a.png a_depth.png 500", depth_scale=1000.0
)

DATASETS["walls"] = DatasetSpec(
    label="Walls",
    layout=f"{__name__}:WALLS",
    evaluation_size=(96, 128),
    license=License("cc0-1.0", "CC0, the license of its images"),
    defaults={
        "data": {"train_split": "train.txt", "test_split": "test.txt", "max_depth": 10.0, "train_crop": [64, 96]},
        "bins": {"n_bins": 32},
        "evaluation": {"protocol": "none"},
    },
)


def write_frames(split: str, count: int, seed: int) -> None:
    """Slanted walls: the image is darker where the wall is farther away; depth in mm as 16-bit PNGs."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        near, far = draw.uniform(1, 3), draw.uniform(5, 9)  # m
        depth = np.linspace(near, far, 128, dtype=np.float32)[None].repeat(96, axis=0)
        gray = (255 * (1 - depth / 10) + draw.normal(0, 4, depth.shape)).clip(0, 255).astype(np.uint8)
        name = f"{split}_{number:02d}"
        Image.fromarray(gray).convert("RGB").save(ROOT / f"{name}.png")
        Image.fromarray((depth * 1000).astype(np.uint16)).save(ROOT / f"{name}_depth.png")
        rows.append(f"{name}.png {name}_depth.png 500\n")
    (ROOT / f"{split}.txt").write_text("".join(rows))


def main() -> None:
    ROOT.mkdir(parents=True, exist_ok=True)
    write_frames("train", 8, seed=0)
    write_frames("test", 4, seed=1)
    config = tiekd.RunConfig.model_validate(
        {
            "data": {"dataset": "walls", "root": str(ROOT)},
            "student": {"name": "tiny"},
            "loss": {"name": "si", "target": "ground_truth"},
            "optim": {"epochs": 4, "batch_size": 4, "lr": 3e-3},
        }
    )
    result = tiekd.distill(config)
    print(f"abs_rel {result.metrics['abs_rel']:.3f} on {len(result.images)} test images")


if __name__ == "__main__":
    main()
