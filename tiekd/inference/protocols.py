"""Named evaluation protocols: which pixels of a test frame count. Without PyTorch, so that planning stays quick."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tiekd.config import DataConfig, RunConfig, presets
from tiekd.data import Frame, open_frames
from tiekd.errors import UserError

Box = tuple[int, int, int, int]  # top, bottom, left, right in pixels; bottom and right exclusive
Size = tuple[int, int]


def garg_crop(size: Size) -> Box:
    """The crop of Garg et al. 2016, as fractions of the image."""
    height, width = size
    rows = int(0.40810811 * height), int(0.99189189 * height)
    return *rows, int(0.03594771 * width), int(0.96405229 * width)


def eigen_nyu_crop(size: Size) -> Box:
    """The crop of Eigen et al. 2014 on a 480 x 640 frame."""
    if size != (480, 640):
        raise UserError(f"protocol nyu-eigen is defined on 480 x 640 frames, got {size[0]} x {size[1]}")
    return 45, 471, 41, 601


def whole(size: Size) -> Box:
    return 0, size[0], 0, size[1]


@dataclass(frozen=True)
class Protocol:
    """Which pixels count: those inside a crop whose ground truth lies strictly between two depths."""

    crop: Callable[[Size], Box]
    of_full_frame: bool = False  # the crop refers to the frame before kb-crop
    min_depth: float | None = None  # m; None: the data's own range
    max_depth: float | None = None

    def valid_mask(self, frame: Frame, data: DataConfig) -> np.ndarray:
        """[H, W] bool over the frame's view."""
        depth = frame.depth_gt
        top, bottom, left, right = self.crop(frame.frame_size if self.of_full_frame else depth.shape)
        if self.of_full_frame:
            down, across = frame.origin
            top, bottom, left, right = top - down, bottom - down, left - across, right - across
        inside = np.zeros(depth.shape, dtype=bool)
        inside[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
        low, high = self.min_depth or data.min_depth, self.max_depth or data.max_depth
        return inside & (depth > low) & (depth < high)


PROTOCOLS: dict[str, Protocol] = {
    "adabins-kb-garg": Protocol(garg_crop, min_depth=1e-3, max_depth=80.0),
    "bts-garg": Protocol(garg_crop, of_full_frame=True, min_depth=1e-3, max_depth=80.0),
    "nyu-eigen": Protocol(eigen_nyu_crop, min_depth=1e-3, max_depth=10.0),
    "none": Protocol(whole),
}
assert set(PROTOCOLS) == set(presets.PROTOCOLS)


def check_protocol(config: RunConfig) -> None:
    """Raise a `UserError` unless the protocol's crop is defined on the test frames."""
    PROTOCOLS[config.evaluation.protocol].crop(open_frames(config.data, "test").size(0))
