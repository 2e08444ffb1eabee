"""A few predictions of a run as one picture, by which its training can be judged at a glance."""

import io

import numpy as np
import torch
from PIL import Image
from torch import nn

from tiekd.config import RunConfig
from tiekd.data import FrameSource
from tiekd.data.transforms import normalize_image
from tiekd.inference.predict import predict

N_FRAMES = 3
WIDTH = 256  # px of each of the three pictures of a row, at most
_DARKEST = 40  # gray of the farthest depth; black has none
_QUALITY = 85


def prediction_sheet(network: nn.Module, config: RunConfig, test: FrameSource, device: torch.device) -> bytes:
    """Return a JPEG with a row per frame: image, ground truth, prediction; near is bright, black has no depth.

    The frames are evenly spaced in the test split, so that they are the same for all runs on it. They may differ in size.
    """
    network.eval()
    rows = []
    for index in np.unique(np.linspace(0, len(test) - 1, N_FRAMES).round().astype(int)).tolist():
        frame = test.load(index)
        depth = predict(network, normalize_image(frame.image)[None].to(device), config).depth[0, 0].cpu().numpy()
        step = -(-frame.image.shape[1] // WIDTH)
        known = frame.depth_gt[frame.depth_gt > 0]
        low, high = np.log(np.percentile(np.concatenate([known, depth.ravel()]), (2, 98)))
        grays = [_brightest(_gray(found, low, max(high, low + 0.01)), step) for found in (frame.depth_gt, depth)]
        height, width = grays[0].shape
        image = frame.image[::step, ::step][:height, :width]
        rows.append(np.concatenate([image, *(np.repeat(gray[..., None], 3, axis=2) for gray in grays)], axis=1))
    widest, buffer = max(row.shape[1] for row in rows), io.BytesIO()
    sheet = np.concatenate([np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in rows])
    Image.fromarray(sheet).save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _gray(depth: np.ndarray, low: float, high: float) -> np.ndarray:
    """Depth [H, W] m as uint8, in equal steps of log depth between two logs; 0 where there is none."""
    nearness = (high - np.log(np.maximum(depth, np.finfo(np.float32).tiny))) / (high - low)
    return np.where(depth > 0, _DARKEST + (255 - _DARKEST) * nearness.clip(0, 1), 0).astype(np.uint8)


def _brightest(gray: np.ndarray, step: int) -> np.ndarray:
    """The brightest of each block of step x step pixels: LiDAR measures few of them."""
    height, width = (size // step for size in gray.shape)
    return gray[: height * step, : width * step].reshape(height, step, width, step).max(axis=(1, 3))
