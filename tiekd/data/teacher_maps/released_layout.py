"""Teacher maps in the layout of the released TIE-KD code, whose loaders derive these names from the paths of images.

ROOT/gt_kd_<teacher>/<name>.png        training frames
ROOT/gt_kd_<teacher>_val/<name>.png    test frames

16-bit grayscale, m = value * cap / 65535, cap 80 (KITTI) or 10 (NYU). KITTI's maps are of the kb-crop.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from tiekd.config.specs import DATASETS
from tiekd.config.specs.kinds import ReleasedMapNames
from tiekd.data.teacher_maps import encode_map
from tiekd.errors import UserError
from tiekd.store.files import write_atomically


def released_name(dataset: str, key: str) -> str:
    """Return the file name, without suffix, of a frame's map.

    KITTI: `2011_09_26_2011_09_26_drive_0002_sync_image_02_data_0000000069`.
    """
    names = DATASETS[dataset].released_map_names
    return (names.prefix if names else "") + key.replace("/", "_")


class ReleasedWriter:
    """Writes a teacher's maps for the released code; the map of a frame in both splits is written to both folders."""

    def __init__(self, root: Path, teacher: str, dataset: str, train_keys: Collection[str], test_keys: Collection[str]):
        _check_keys(dataset, [*train_keys, *test_keys])
        self.dataset, self.max_depth = dataset, DATASETS[dataset].defaults["data"]["max_depth"]
        self.folders = {root / f"gt_kd_{teacher}": frozenset(train_keys), root / f"gt_kd_{teacher}_val": frozenset(test_keys)}

    def write(self, key: str, depth: np.ndarray) -> None:
        """Write the map of one frame. depth [H, W] m, finite; depths outside 0 .. cap are clamped."""
        content = encode_map(key, depth, self.max_depth)
        for folder, keys in self.folders.items():
            if key in keys:
                write_atomically(folder / f"{released_name(self.dataset, key)}.png", content)


def released_map_names(dataset: str) -> ReleasedMapNames:
    """Return how the released code names maps. Raises UserError for a data set that it does not support."""
    names = DATASETS[dataset].released_map_names
    if names is None:
        supported = " and ".join(name for name, spec in DATASETS.items() if spec.released_map_names)
        raise UserError(f"--layout released: the released code supports {supported}, got {dataset}; valid: tiekd")
    return names


def _check_keys(dataset: str, keys: Collection[str]) -> None:
    """Raise UserError unless the released code would find the maps: it addresses the parts of a path by position."""
    parts = released_map_names(dataset).parts
    for key in keys:
        if key.count("/") != len(parts) - 1:
            raise UserError(f"--layout released: an image's path must be {'/'.join(parts)}, got {key}")
