"""The embedded data sets: rendered streets and rooms with exact depth, without downloads.

`synthesize` writes them as files in the layout of a real data set.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tiekd.config import DataConfig
from tiekd.config.specs import DATASETS
from tiekd.data.frame_source import Frame, Split
from tiekd.data.image_io import Size, StoredDepth, encode_jpeg, encode_png
from tiekd.data.layouts.kitti import KITTI
from tiekd.data.layouts.nyu import NYU
from tiekd.data.layouts.split_list import Layout
from tiekd.data.progress import track
from tiekd.data.synthetic.frame import FRAMES_PER_SCENE, RENDERER_VERSION, SCENE_KINDS, RenderedFrame, SceneSettings
from tiekd.errors import UserError, unknown


class SyntheticFrames:
    """Frames rendered on demand; a `FrameSource`."""

    n_without_ground_truth = 0
    train_region = None

    def __init__(self, settings: SceneSettings, n_frames: int):
        self.settings, self._n_frames = settings, n_frames
        self.keys = [f"{self.group(index)}/{index % FRAMES_PER_SCENE:04d}" for index in range(n_frames)]

    def __len__(self) -> int:
        return self._n_frames

    def group(self, index: int) -> str:
        return f"{self.settings.split}/scene_{index // FRAMES_PER_SCENE:03d}"

    def has_ground_truth(self, index: int) -> bool:
        return True

    def load(self, index: int) -> Frame:
        rendered = self.render(index)
        return Frame(rendered.image, StoredDepth(rendered.depth_gt), self.settings.frame_size, (0, 0))

    def frame_size(self, index: int) -> Size:
        return self.settings.frame_size

    def size(self, index: int) -> Size:
        return self.settings.frame_size

    def render(self, index: int) -> RenderedFrame:
        """Render a frame with its exact depth."""
        if not 0 <= index < self._n_frames:
            raise IndexError(f"frame {index} of {self._n_frames}")
        return self.settings.render(index)

    def files(self, index: int) -> list[Path]:
        return []

    def signature(self, index: int) -> int:
        return 1  # a rendered frame never changes

    def list_digest(self) -> str:
        return self.digest()

    def digest(self) -> str:
        content = {"renderer": RENDERER_VERSION, "n_frames": self._n_frames, **asdict(self.settings)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def check(self) -> None:
        """Do nothing: there are no files that could be missing."""


def synthetic_frames(config: DataConfig, split: Split) -> SyntheticFrames:
    """Open the rendered frames of one split; different splits have different scenes."""
    if config.root is not None:
        raise UserError(f"data.root {config.root}: {config.dataset} is rendered and reads no folder; set data.root to null")
    n_frames = config.train_frames if split == "train" else config.test_frames
    if n_frames is None:
        raise UserError(f"data.{split}_frames is needed for {config.dataset}, whose frames are rendered")
    return _open(SceneSettings(config.dataset, split, config.evaluation_size, config.scene_seed), n_frames)


@lru_cache(maxsize=16)
def _open(settings: SceneSettings, n_frames: int) -> SyntheticFrames:
    return SyntheticFrames(settings, n_frames)


@dataclass(frozen=True)
class ExportLayout:
    """How rendered frames are named and written in the layout of a data set."""

    dataset: str  # with this layout
    rendered: str  # data set whose frames are written
    frame_size: Size
    layout: Layout
    encode_image: Callable[[np.ndarray], bytes]
    paths: Callable[[Split, int, int], tuple[str, str]]  # (split, scene, frame in the scene) -> image, depth
    slashed: tuple[Split, ...] = ()  # splits whose lists have paths with a leading slash, as in the download
    last_without_ground_truth: bool = False  # the last test frame has no ground truth, as some real ones


def _kitti_paths(split: Split, scene: int, frame: int) -> tuple[str, str]:
    date = {"train": "2000_01_01", "test": "2000_01_02"}[split]
    drive = f"{date}_drive_{scene:04d}_sync"
    return f"{date}/{drive}/image_02/data/{frame:010d}.png", f"{drive}/proj_depth/groundtruth/image_02/{frame:010d}.png"


def _nyu_paths(split: Split, scene: int, frame: int) -> tuple[str, str]:
    folder = f"rendered_{split}_{scene:04d}"
    return f"{folder}/rgb_{frame:05d}.jpg", f"{folder}/sync_depth_{frame:05d}.png"


EXPORT_LAYOUTS = {
    "kitti": ExportLayout(
        "kitti", "synthetic-outdoor", (375, 1242), KITTI, encode_png, _kitti_paths, last_without_ground_truth=True
    ),
    "nyu": ExportLayout("nyu", "synthetic-indoor", (480, 640), NYU, encode_jpeg, _nyu_paths, slashed=("train",)),
}


def synthesize(out: str | Path, layout: str, train_frames: int, test_frames: int, seed: int = 0) -> dict[str, Any]:
    """Write a data set to `out`, which must be empty or absent; after an error, nothing is left there. Returns a summary."""
    if layout not in EXPORT_LAYOUTS:
        raise UserError(unknown("layout", layout, EXPORT_LAYOUTS))
    out, target = Path(out), EXPORT_LAYOUTS[layout]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: not empty; name a new folder to write the data set to")
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        counts: dict[Split, int] = {"train": train_frames, "test": test_frames}
        for split, n_frames in counts.items():
            settings = SceneSettings(target.rendered, split, target.frame_size, seed)
            _write_split(partial, target, SyntheticFrames(settings, n_frames))
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return {
        "root": str(out),
        "dataset": target.dataset,
        "train_frames": train_frames,
        "test_frames": test_frames,
        "frame_size": list(target.frame_size),
        "seed": seed,
    }


def _write_split(root: Path, target: ExportLayout, frames: SyntheticFrames) -> None:
    split, focal = frames.settings.split, SCENE_KINDS[target.rendered].focal * target.frame_size[1]
    slash, rows = "/" if split in target.slashed else "", []
    for index in track(range(len(frames)), f"{split} frames"):
        image_path, depth_path = target.paths(split, *divmod(index, FRAMES_PER_SCENE))
        rendered = frames.render(index)
        _write(root / target.layout.image_folder / image_path, target.encode_image(rendered.image))
        if target.last_without_ground_truth and split == "test" and 0 < index == len(frames) - 1:
            rows.append(f"{slash}{image_path} None {focal:.4f}\n")
            continue
        value = np.rint(rendered.depth_gt * target.layout.depth_scale).astype(np.uint16)
        _write(root / target.layout.depth_folder / depth_path, encode_png(value))
        rows.append(f"{slash}{image_path} {slash}{depth_path} {focal:.4f}\n")
    _write(root / DATASETS[target.dataset].defaults["data"][f"{split}_split"], "".join(rows).encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
