"""The picture of a few predictions of a run."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tiekd.data import Frame
from tiekd.data.image_io import StoredDepth
from tiekd.inference.prediction_sheet import WIDTH, prediction_sheet
from tiekd.models.registry import build_network

CPU = torch.device("cpu")


class Frames:
    """Test frames, gray like their number, whose left half is near; the ground truth has every eighth pixel.

    Each frame is higher and wider than the last one by `grows` pixels.
    """

    def __init__(self, n: int, size: tuple[int, int], grows: int = 0):
        self._n, self._first, self._grows, self.loaded = n, size, grows, []

    def __len__(self) -> int:
        return self._n

    def load(self, index: int) -> Frame:
        self.loaded.append(index)
        size = self._first[0] + index * self._grows, self._first[1] + index * self._grows
        depth = np.zeros(size, np.float32)
        depth[::8, ::8] = 40.0
        depth[::8, : size[1] // 2 : 8] = 4.0
        return Frame(np.full((*size, 3), 20 * index + 20, np.uint8), StoredDepth(depth), size, (0, 0))


@pytest.fixture
def sheet(tiny):
    def made(n: int, size: tuple[int, int], grows: int = 0):
        frames, config = Frames(n, size, grows), tiny()
        torch.manual_seed(0)
        picture = Image.open(io.BytesIO(prediction_sheet(build_network(config), config, frames, CPU)))
        assert picture.format == "JPEG"
        return frames, np.asarray(picture).astype(int)

    return made


@pytest.mark.parametrize(("n", "loaded"), [(9, [0, 4, 8]), (2, [0, 1]), (1, [0])])
def test_rows_are_frames_over_the_whole_split(sheet, n, loaded):
    frames, pixels = sheet(n, (32, 48))
    assert frames.loaded == loaded
    assert pixels.shape == (32 * len(loaded), 3 * 48, 3)
    for row, index in enumerate(loaded):
        assert pixels[32 * row + 16, 24] == pytest.approx([20 * index + 20] * 3, abs=4)


def test_frames_may_differ_in_size(sheet):
    _, pixels = sheet(2, (32, 64), grows=32)
    assert pixels.shape == (32 + 64, 3 * 96, 3)
    assert pixels[16, 3 * 64 + 8 :].max() < 8  # nothing beside the smaller frame


def test_large_frames_are_reduced_and_few_measurements_stay_visible(sheet):
    _, pixels = sheet(1, (64, 4 * WIDTH))
    assert pixels.shape == (16, 3 * WIDTH, 3)
    truth = pixels[:, WIDTH : 2 * WIDTH, 0]
    near, far = truth[::2, : WIDTH // 2 : 2], truth[::2, WIDTH // 2 :: 2]
    assert near.mean() > far.mean() + 50
    assert truth[1::2, 1::2].mean() < far.mean()  # between the measurements there is none
