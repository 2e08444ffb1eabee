import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from tiekd.config import build
from tiekd.data import open_frames, open_inputs
from tiekd.data.cache.in_memory import GB, KeptFrames, KeptMaps, Memory, Shelf, _of_frame, _of_map, remembered, shelf_bytes
from tiekd.data.dataset import DepthDataset
from tiekd.data.teacher_maps import MapWriter
from tiekd.errors import UserError

VIEW = (352, 1216)
FRAME, MAP = _of_frame(VIEW), _of_map(VIEW)
PAIR = (((2,), np.float32),)  # the columns of a small shelf


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
    """The PNG files that are read from now on."""
    names, really = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: names.extend([path] * (path.suffix == ".png")) or really(path))
    return names


def all_of(inputs):
    """Everything that a training reads, as arrays."""
    train, test, maps = inputs
    frames = [source.load(index) for source in (train, test) for index in range(len(source))]
    teacher = [maps.stored(key, VIEW).metres() for key in train.keys]
    parts = [part for f in frames for part in (f.image, f.depth_gt, f.frame_size, f.origin)]
    return [np.asarray(part) for part in parts] + teacher


def test_frames_and_maps_are_decoded_once_and_are_what_the_files_hold(config, opened):
    plain, first = all_of(open_inputs(config)), all_of(remembered(config))
    assert len(opened) == 2 * (3 * 2 + 2)  # images and depth maps of three frames, two teacher maps
    opened.clear()
    again = all_of(remembered(build(config.document() | {"seed": 1})))
    assert opened == []
    assert all(np.array_equal(a, b) for a, b in zip(plain, first, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(plain, again, strict=True))
    assert [array.dtype for array in again] == [array.dtype for array in plain]


def test_loader_processes_decode_for_one_another(config, opened):
    train, _, maps = remembered(config)
    dataset = DepthDataset(train, maps)
    loaded = list(DataLoader(dataset, batch_size=None, num_workers=2))
    opened.clear()
    assert all((a["image"] == b["image"]).all() for a, b in zip(loaded, map(dataset.__getitem__, range(2)), strict=True))
    assert opened == []


def test_a_file_that_has_changed_is_decoded_again(config):
    before = all_of(remembered(config))
    export(config, depth=9.0)
    train, _, maps = remembered(config)
    assert maps.stored(train.keys[1], VIEW).metres().max() == pytest.approx(9.0, abs=1e-3)
    image = train._image_path(train._rows[0])
    Image.fromarray(np.zeros((375, 1242, 3), np.uint8)).save(image)
    assert before[0].max() > 0 == train.load(0).image.max()
    os.unlink(image)
    with pytest.raises(UserError, match=r"0000000000.png: no such file"):
        train.load(0)


def test_what_a_caller_does_to_a_kept_frame_stays_with_it(config):
    train, _, maps = remembered(config)
    for _ in range(2):  # decoded, then kept
        train.load(0).depth_gt[:] = -1
        maps.stored(train.keys[0], VIEW).metres()[:] = -1
    assert train.load(0).depth_gt.max() > 0 < maps.stored(train.keys[0], VIEW).metres().min()
    for kept in (train.load(0).image, train.load(0).depth.values, maps.stored(train.keys[0], VIEW).values):
        with pytest.raises(ValueError, match=r"read-only"):
            kept[:] = 0


def test_data_that_do_not_fit_are_not_kept(config):
    needed = sum(shelf_bytes(n, columns) for n, columns in ((2, FRAME), (1, FRAME), (2, MAP)))
    kept, plain = (configured(config.data.root, config.teacher.maps, cache_gb=gb / GB) for gb in (needed, needed - 1))
    assert isinstance(remembered(kept).train, KeptFrames)
    assert isinstance(remembered(kept).maps, KeptMaps)
    assert remembered(plain) == open_inputs(plain)


def test_frames_travel_to_other_processes_without_the_memory(config):
    inputs = remembered(config)
    train, _, maps = (pickle.loads(pickle.dumps(part)) for part in inputs)
    assert (type(train), type(maps)) == (type(open_inputs(config).train), type(open_inputs(config).maps))
    assert np.array_equal(train.load(1).image, inputs.train.load(1).image)


def test_the_shelves_used_longest_ago_make_room():
    memory, each = Memory(), shelf_bytes(1, PAIR)
    first = memory.shelves({"a": (1, PAIR), "b": (1, PAIR)}, 3 * each)
    assert memory.shelves({"a": (1, PAIR)}, 3 * each)["a"] is first["a"]
    memory.shelves({"c": (1, PAIR), "d": (1, PAIR)}, 3 * each)  # b was used longest ago
    assert memory.shelves({"a": (1, PAIR)}, 3 * each)["a"] is first["a"]
    assert memory.shelves({"b": (1, PAIR)}, 3 * each)["b"] is not first["b"]
    assert memory.shelves({"e": (100, PAIR)}, 3 * each) == {}


def test_an_item_of_another_shape_is_not_kept():
    shelf = Shelf(2, PAIR)
    shelf.put(0, 1, (np.ones(2, np.float32),))
    shelf.put(1, 1, (np.ones(3, np.float32),))
    assert shelf.get(0, 1)[0].tolist() == [1, 1]
    assert shelf.get(0, 2) is shelf.get(1, 1) is None
