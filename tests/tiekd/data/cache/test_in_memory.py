import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from tiekd.config import RunConfig, build
from tiekd.data import Inputs, open_frames, open_inputs
from tiekd.data.cache.in_memory import GB, CachedFrames, CachedMaps, CachePool, cache_inputs, frame_dtype, map_dtype
from tiekd.data.dataset import DepthDataset
from tiekd.data.frame_source import Frame
from tiekd.data.image_io import StoredDepth
from tiekd.data.teacher_maps import MapWriter
from tiekd.errors import UserError

VIEW = (352, 1216)
PAIR = np.dtype([("signature", np.int64), ("depth", np.float32, 2)])


def cached_inputs(config: RunConfig) -> Inputs:
    """The inputs of a run as its training reads them."""
    return cache_inputs(open_inputs(config), config.execution.cache_gb)


@pytest.fixture
def config(kitti, tmp_path):
    """Two training frames with maps and a test frame."""
    kitti.add(0)
    kitti.add(1, size=(370, 1226))
    kitti.write("train")
    kitti.add(2, drive=2)
    kitti.write("test")
    return configured(kitti.root, tmp_path / "maps", depth=7.0)


def configured(root, maps, depth=None, **execution):
    document = {
        "data": {"dataset": "kitti", "root": str(root)},
        "teacher": {"name": "made", "maps": str(maps)},
        "execution": execution,
    }
    config = build(document)
    if depth is not None:
        export(config, depth)
    return config


def export(config, depth):
    with MapWriter(config.teacher.maps, 80.0, {}) as writer:
        for key in open_frames(config.data, "train").keys:
            writer.write(key, np.full(VIEW, depth, np.float32))


@pytest.fixture
def opened(monkeypatch):
    """The PNG files that are read from here on."""
    names, really = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: names.extend([path] * (path.suffix == ".png")) or really(path))
    return names


def all_of(inputs):
    """All inputs of a training, as arrays."""
    train, test, maps = inputs
    frames = [source.load(index) for source in (train, test) for index in range(len(source))]
    teacher = [maps.load_stored(key, VIEW).to_meters() for key in train.keys]
    parts = [part for f in frames for part in (f.image, f.depth_gt, f.frame_size, f.origin)]
    return [np.asarray(part) for part in parts] + teacher


def test_frames_and_maps_are_decoded_once(config, opened):
    plain, first = all_of(open_inputs(config)), all_of(cached_inputs(config))
    assert len(opened) == 2 * (3 * 2 + 2)  # images and depth maps of three frames, two teacher maps
    opened.clear()
    again = all_of(cached_inputs(build(config.document() | {"seed": 1})))
    assert opened == []
    assert all(np.array_equal(a, b) for a, b in zip(plain, first, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(plain, again, strict=True))
    assert [array.dtype for array in again] == [array.dtype for array in plain]


def test_loader_processes_share_the_cache(config, opened):
    train, _, maps = cached_inputs(config)
    dataset = DepthDataset(train, maps)
    loaded = list(DataLoader(dataset, batch_size=None, num_workers=2))
    opened.clear()
    assert all((a["image"] == b["image"]).all() for a, b in zip(loaded, map(dataset.__getitem__, range(2)), strict=True))
    assert opened == []


def test_a_changed_file_is_decoded_again(config):
    before = all_of(cached_inputs(config))
    export(config, depth=9.0)
    train, _, maps = cached_inputs(config)
    assert maps.load_stored(train.keys[1], VIEW).to_meters().max() == pytest.approx(9.0, abs=1e-3)
    image, _ = train.files(0)
    Image.fromarray(np.zeros((375, 1242, 3), np.uint8)).save(image)
    assert before[0].max() > 0 == train.load(0).image.max()
    os.unlink(image)
    with pytest.raises(UserError, match=r"0000000000.png: no such file"):
        train.load(0)


def test_a_cached_frame_is_read_only(config):
    train, _, maps = cached_inputs(config)
    for _ in range(2):  # decoded, then cached
        train.load(0).depth_gt[:] = -1
        maps.load_stored(train.keys[0], VIEW).to_meters()[:] = -1
    assert train.load(0).depth_gt.max() > 0 < maps.load_stored(train.keys[0], VIEW).to_meters().min()
    for kept in (train.load(0).image, train.load(0).depth.values, maps.load_stored(train.keys[0], VIEW).values):
        with pytest.raises(ValueError, match=r"read-only"):
            kept[:] = 0


def test_data_that_exceed_the_limit_are_not_cached(config):
    needed = 3 * frame_dtype(VIEW).itemsize + 2 * map_dtype(VIEW).itemsize
    cached, plain = (configured(config.data.root, config.teacher.maps, cache_gb=gb / GB) for gb in (needed, needed - 1))
    assert isinstance(cached_inputs(cached).train, CachedFrames)
    assert isinstance(cached_inputs(cached).maps, CachedMaps)
    assert cached_inputs(plain) == open_inputs(plain)


class TwoSizes:
    """A source whose second frame is larger than its first."""

    def __init__(self):
        self.loaded = []

    def signature(self, index):
        return 1

    def load(self, index):
        self.loaded.append(index)
        size = (4 + index, 6)
        return Frame(np.ones((*size, 3), np.uint8), StoredDepth(np.ones(size, np.uint16), 0.5), size, (0, 0))


def test_a_frame_of_another_size_is_not_cached():
    source = TwoSizes()
    frames = CachedFrames(source, np.zeros(2, frame_dtype((4, 6))))
    assert [frames.load(index).size for index in (0, 0, 1, 1)] == [(4, 6), (4, 6), (5, 6), (5, 6)]
    assert source.loaded == [0, 1, 1]
    assert frames.load(0).depth_gt[0, 0] == 0.5


def test_frames_are_pickled_without_the_cache(config):
    inputs = cached_inputs(config)
    train, _, maps = (pickle.loads(pickle.dumps(part)) for part in inputs)
    assert (type(train), type(maps)) == (type(open_inputs(config).train), type(open_inputs(config).maps))
    assert np.array_equal(train.load(1).image, inputs.train.load(1).image)


def test_the_least_recently_used_arrays_are_dropped_first():
    pool, limit = CachePool(), 3 * PAIR.itemsize
    first = pool.allocate({"a": (1, PAIR), "b": (1, PAIR)}, limit)
    assert pool.allocate({"a": (1, PAIR)}, limit)["a"] is first["a"]
    pool.allocate({"c": (1, PAIR), "d": (1, PAIR)}, limit)  # drops b
    assert pool.allocate({"a": (1, PAIR)}, limit)["a"] is first["a"]
    assert pool.allocate({"b": (1, PAIR)}, limit)["b"] is not first["b"]
    assert pool.allocate({"e": (100, PAIR)}, limit) == {}
