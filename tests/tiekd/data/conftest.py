"""Small data sets on disk."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.paths import SHARED

from tiekd.config import DataConfig
from tiekd.config.specs import DATASETS

REAL_FRAMES = SHARED / "data"


@dataclass
class KittiFolder:
    """A KITTI layout under construction: `add` frames, then `write` the list."""

    root: Path
    rows: list[str] = field(default_factory=list)

    def add(self, number: int, size=(375, 1242), drive=1, with_depth=True) -> tuple[Path, Path]:
        """Add a frame whose image has each pixel's row modulo 200, and whose depth its column modulo 100."""
        drive = f"2000_01_01_drive_{drive:04d}_sync"
        image = f"2000_01_01/{drive}/image_02/data/{number:010d}.png"
        depth = f"{drive}/proj_depth/groundtruth/image_02/{number:010d}.png"
        rows, columns = np.indices(size)
        pixels = np.stack([rows % 200, columns % 200, np.full(size, number)], axis=-1).astype(np.uint8)
        image_path, depth_path = self.root / "input" / image, self.root / "gt_depth" / depth
        save(image_path, pixels)
        save(depth_path, (columns % 100 * 256).astype(np.uint16))
        self.rows.append(f"{image} {depth if with_depth else None} 721.5377")
        return image_path, depth_path

    def write(self, split: str = "train") -> None:
        (self.root / f"kitti_eigen_{split}.txt").write_text("\n".join(self.rows) + "\n")
        self.rows = []

    def config(self, **settings) -> DataConfig:
        return data_section("kitti", root=str(self.root), **settings)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def data_section(dataset: str, **settings) -> DataConfig:
    return DataConfig(**DATASETS[dataset].defaults["data"] | {"dataset": dataset} | settings)


@pytest.fixture
def kitti(tmp_path: Path) -> KittiFolder:
    return KittiFolder(tmp_path / "kitti")


@pytest.fixture
def section():
    """Builds a data section from the defaults of a data set."""
    return data_section


@pytest.fixture
def save_image():
    return save


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not REAL_FRAMES.is_dir():
        pytest.skip(f"the real frames are not beside this checkout ({REAL_FRAMES})")
    return REAL_FRAMES
