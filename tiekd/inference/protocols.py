"""The pixels of a test frame that count under an evaluation protocol. Imports no PyTorch."""

from pkgutil import resolve_name

import numpy as np

from tiekd.config import DataConfig, RunConfig
from tiekd.config.specs import PROTOCOLS, ProtocolSpec
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


def whole_frame(size: Size) -> Box:
    return 0, size[0], 0, size[1]


def valid_mask(protocol: ProtocolSpec, frame: Frame, data: DataConfig) -> np.ndarray:
    """The pixels of a frame that count: [H, W] bool over its canonical view."""
    depth = frame.depth_gt
    top, bottom, left, right = _crop(protocol, frame.frame_size if protocol.of_full_frame else depth.shape)
    if protocol.of_full_frame:
        down, across = frame.origin
        top, bottom, left, right = top - down, bottom - down, left - across, right - across
    inside = np.zeros(depth.shape, dtype=bool)
    inside[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    low, high = protocol.min_depth or data.min_depth, protocol.max_depth or data.max_depth
    return inside & (depth > low) & (depth < high)


def check_protocol(config: RunConfig) -> None:
    """Raise a `UserError` unless the protocol's crop is defined on the test frames."""
    _crop(PROTOCOLS[config.evaluation.protocol], open_frames(config.data, "test").size(0))


def _crop(protocol: ProtocolSpec, size: Size) -> Box:
    return resolve_name(protocol.crop)(size)
