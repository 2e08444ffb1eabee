import numpy as np
import pytest

from tiekd.data import open_frames
from tiekd.errors import UserError


@pytest.mark.parametrize(
    ("size", "top", "left"),
    [((375, 1242), 23, 13), ((370, 1224), 18, 4), ((376, 1241), 24, 12), ((352, 1216), 0, 0)],
)
def test_the_view_is_the_kb_crop(kitti, size, top, left):
    kitti.add(0, size)
    kitti.write()
    frame = open_frames(kitti.config(), "train").load(0)
    assert frame.size == frame.image.shape[:2] == (352, 1216)
    assert (frame.frame_size, frame.origin) == (size, (top, left))
    assert frame.image[0, 0].tolist() == [top % 200, left % 200, 0]  # the corner of the view in the made frame
    assert frame.image[-1, -1].tolist() == [(size[0] - 1) % 200, (left + 1215) % 200, 0]
    assert frame.depth_gt[0, 0] == left % 100
    assert (frame.image.dtype, frame.depth_gt.dtype) == (np.uint8, np.float32)


def test_a_too_small_frame_is_refused(kitti):
    kitti.add(0, (351, 1242))
    kitti.write()
    with pytest.raises(UserError, match=r"0000000000.png: frame of 351x1242 px; at least 352x1216 is needed"):
        open_frames(kitti.config(), "train").load(0)


def test_a_frame_of_which_the_view_is_a_small_part_is_refused(kitti):
    kitti.add(0, (768, 1280))
    kitti.write()
    with pytest.raises(UserError, match=r"frame of 768x1280 px; the view of 352x1216 would leave out more than 25% of it"):
        open_frames(kitti.config(), "train").load(0)


def test_keys_and_groups(kitti):
    kitti.add(3, drive=7)
    kitti.write()
    source = open_frames(kitti.config(), "train")
    assert source.keys == ["2000_01_01/2000_01_01_drive_0007_sync/image_02/data/0000000003"]
    assert source.group(0) == "2000_01_01_drive_0007_sync"
    assert source.train_region is None


def test_real_frames(shared_data, section):
    source = open_frames(section("kitti", root=str(shared_data / "kitti")), "train")
    source.check()
    assert source.keys[0] == "2011_09_26/2011_09_26_drive_9001_sync/image_02/data/0000000000"
    frames = [source.load(index) for index in range(len(source))]
    assert [frame.frame_size for frame in frames] == [(370, 1224), (375, 1242), (375, 1242)]
    assert [frame.origin for frame in frames] == [(18, 4), (23, 13), (23, 13)]
    for frame in frames:
        valid = frame.depth_gt[frame.depth_gt > 0]
        assert 0.03 < valid.size / frame.depth_gt.size < 0.25
        assert 2 < valid.min() < np.median(valid) < valid.max() < 100


def test_a_real_test_frame_without_ground_truth(shared_data, section):
    source = open_frames(section("kitti", root=str(shared_data / "kitti")), "test")
    source.check()
    assert (len(source), source.n_without_ground_truth) == (2, 1)
    assert not source.load(1).depth_gt.any()
