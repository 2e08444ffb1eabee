"""Ways to damage a KITTI folder."""

from pathlib import Path

import numpy as np
from PIL import Image


def lose_images(root: Path) -> None:
    for path in sorted((root / "input/2000_01_01").rglob("*.png"))[1:]:
        path.unlink()


def cut_a_line(root: Path) -> None:
    path = root / "kitti_eigen_train.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:40], *lines[2:]]))


def use_eight_bits(root: Path) -> None:
    path = sorted((root / "gt_depth").rglob("*.png"))[0]
    Image.fromarray(np.ones((375, 1242), np.uint8)).save(path)


def lose_the_list(root: Path) -> None:
    (root / "kitti_eigen_test.txt").unlink()
