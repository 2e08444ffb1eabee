import numpy as np
import pytest

from tiekd.data import open_frames
from tiekd.data.frame_source import check_train_crop
from tiekd.data.layouts.nyu import NYU
from tiekd.errors import UserError


def test_keys_do_not_depend_on_a_leading_slash(shared_data, section):
    config = section("nyu", root=str(shared_data / "nyu"))
    train, test = open_frames(config, "train"), open_frames(config, "test")
    assert (train.keys, test.keys) == (["indoor_9001/rgb_00000"], ["indoor_9001/rgb_00100"])
    assert train.group(0) == test.group(0) == "indoor_9001"
    for source in (train, test):
        source.check()
        frame = source.load(0)
        assert frame.size == frame.frame_size == (480, 640)
        assert frame.origin == (0, 0)
        assert 0.3 < np.median(frame.depth_gt[frame.depth_gt > 0]) < 10


def test_depth_is_stored_in_millimeters(tmp_path, section, save_image):
    save_image(tmp_path / "room/rgb_00000.jpg", np.zeros((480, 640, 3), np.uint8))
    save_image(tmp_path / "room/sync_depth_00000.png", np.full((480, 640), 2345, np.uint16))
    (tmp_path / "nyu_train.txt").write_text("/room/rgb_00000.jpg /room/sync_depth_00000.png 518.8579\n")
    source = open_frames(section("nyu", root=str(tmp_path)), "train")
    assert source.load(0).depth_gt[0, 0] == np.float32(2.345)


def test_the_border_is_rows_45_to_472_and_columns_43_to_608(shared_data, section):
    region = open_frames(section("nyu", root=str(shared_data / "nyu")), "train").train_region
    border = region.of((480, 640))
    rows, columns = np.indices((480, 640))
    assert border.crop(rows)[[0, -1], 0].tolist() == [45, 471]
    assert border.crop(columns)[0, [0, -1]].tolist() == [43, 607]
    assert check_train_crop((427, 565), (480, 640), region, "key") == border
    with pytest.raises(
        UserError, match=r"data.train_crop 428x565 exceeds the part of frame key that training uses: 427x565 px"
    ):
        check_train_crop((428, 565), (480, 640), region, "key")


@pytest.mark.parametrize("size", [(400, 640), (240, 320), (768, 1024)])
def test_frames_of_other_sizes_have_no_border(size):
    assert check_train_crop(size, size, NYU.train_region, "key") == (0, 0, *size)
