"""The pixels of a test frame that an evaluation protocol counts. Does not import PyTorch."""

from pkgutil import resolve_name

import numpy as np

from tiekd.config import RunConfig
from tiekd.config.specs import ProtocolSpec
from tiekd.data import Frame, open_frames
from tiekd.data.image_io import Size
from tiekd.errors import UserError

Crop = tuple[int, int, int, int]  # top, bottom, left, right in px; bottom and right are exclusive


def garg_crop(size: Size) -> Crop:
    """The crop of Garg et al. 2016 (https://arxiv.org/abs/1603.04992), as fractions of the image."""
    height, width = size
    rows = int(0.40810811 * height), int(0.99189189 * height)
    return *rows, int(0.03594771 * width), int(0.96405229 * width)


def eigen_kitti_crop(size: Size) -> Crop:
    """The crop of Eigen et al. 2014 (https://arxiv.org/abs/1406.2283) for KITTI, as fractions of the image."""
    height, width = size
    return int(0.3324324 * height), int(0.91351351 * height), int(0.0359477 * width), int(0.96405229 * width)


def eigen_nyu_crop(size: Size) -> Crop:
    """The crop of Eigen et al. 2014 (https://arxiv.org/abs/1406.2283) for 480 x 640 frames."""
    if size != (480, 640):
        raise UserError(f"protocol nyu-eigen is defined on 480 x 640 frames, got {size[0]} x {size[1]}")
    return 45, 471, 41, 601


def whole_frame(size: Size) -> Crop:
    """Every pixel."""
    return 0, size[0], 0, size[1]


def valid_mask(protocol: ProtocolSpec, frame: Frame, depth_range: tuple[float, float]) -> np.ndarray:
    """The pixels of a frame that count: [H, W] bool over its canonical view.

    depth_range: minimum and maximum depth in m for protocols that do not define their own.
    """
    depth = frame.depth_gt
    top, bottom, left, right = _crop(protocol, frame.frame_size if protocol.of_full_frame else frame.size)
    if protocol.of_full_frame:
        down, across = frame.origin
        top, bottom, left, right = top - down, bottom - down, left - across, right - across
    inside = np.zeros(depth.shape, dtype=bool)
    inside[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    low, high = range_of(protocol, depth_range)
    return inside & (depth > low) & (depth < high)


def range_of(protocol: ProtocolSpec, depth_range: tuple[float, float]) -> tuple[float, float]:
    """The depths in m between which ground truth counts; depth_range: for protocols that do not define their own."""
    return protocol.min_depth or depth_range[0], protocol.max_depth or depth_range[1]


def check_protocol(config: RunConfig) -> None:
    """Raise UserError unless the crop of each protocol is defined on the test frames."""
    size = open_frames(config.data, "test").size(0)
    for protocol in config.evaluation.specs.values():
        _crop(protocol, size)


def _crop(protocol: ProtocolSpec, size: Size) -> Crop:
    return resolve_name(protocol.crop)(size)
