import numpy as np
import pytest

from tiekd.data.image_io import read_uint16
from tiekd.data.teacher_maps import MapWriter, TeacherMaps
from tiekd.data.teacher_maps.released_layout import ReleasedWriter
from tiekd.errors import UserError
from tiekd.metrics import AGREEMENT_METRICS, agreement_metrics

TRAIN = "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069"
TEST = "2011_09_28/2011_09_28_drive_0001_sync/image_02/data/0000000005"


def test_maps_are_written_where_the_released_loaders_look(tmp_path):
    writer = ReleasedWriter(tmp_path, "bts", "kitti", [TRAIN], [TEST])
    depth = np.array([[0.0, 40.0, 80.0, 95.0]], np.float32)
    for key in (TRAIN, TEST):
        writer.write(key, depth)
    places = [
        tmp_path / "gt_kd_bts/2011_09_26_2011_09_26_drive_0002_sync_image_02_data_0000000069.png",
        tmp_path / "gt_kd_bts_val/2011_09_28_2011_09_28_drive_0001_sync_image_02_data_0000000005.png",
    ]
    assert sorted(tmp_path.rglob("*.png")) == places
    for place in places:
        assert read_uint16(place, "map").tolist() == [[0, 32768, 65535, 65535]]


def test_nyu_names_contain_the_root_and_nyu_has_its_own_cap(tmp_path):
    key = "kitchen_0028b/rgb_00045"
    ReleasedWriter(tmp_path, "adabins_real", "nyu", [], [key]).write(key, np.array([[2.0, 10.0]], np.float32))
    path = tmp_path / "gt_kd_adabins_real_val/data_nyu_kitchen_0028b_rgb_00045.png"
    assert read_uint16(path, "map").tolist() == [[13107, 65535]]


def test_a_frame_in_both_splits_is_written_to_both_folders(tmp_path):
    ReleasedWriter(tmp_path, "bts", "kitti", [TRAIN], [TEST, TRAIN]).write(TRAIN, np.ones((2, 2), np.float32))
    names = [path.relative_to(tmp_path).parts for path in sorted(tmp_path.rglob("*.png"))]
    assert [folder for folder, _ in names] == ["gt_kd_bts", "gt_kd_bts_val"]
    assert len({name for _, name in names}) == 1


@pytest.mark.parametrize(
    ("dataset", "key", "message"),
    [
        ("synthetic-outdoor", "train/scene_000/0000", "supports kitti and nyu, got synthetic-outdoor; valid: tiekd"),
        ("kitti", "drive/0000", "an image's path must be date/drive/camera/data/frame, got drive/0000"),
        ("nyu", "basement/kitchen/rgb_0", "an image's path must be scene/frame, got basement/kitchen/rgb_0"),
    ],
)
def test_maps_that_the_released_loaders_would_not_find_are_refused(tmp_path, dataset, key, message):
    with pytest.raises(UserError, match=message):
        ReleasedWriter(tmp_path, "bts", dataset, [key], [])
    assert list(tmp_path.iterdir()) == []


def test_the_released_evaluation_on_nyu_reads_a_teacher_a_little_too_far(tmp_path):
    """It divides by 65525 instead of 65535; a scale of the maps reproduces its agreement."""
    rng = np.random.default_rng(3)
    depth, pred = (rng.uniform(0.5, 9, (48, 64)).astype(np.float32) for _ in range(2))
    with MapWriter(tmp_path, 10.0, {}) as writer:
        writer.write("a", depth)
    ours = TeacherMaps(tmp_path).load("a", depth.shape)
    as_read = read_uint16(tmp_path / "a.png", "map").astype(np.float32) / 65525 * 10
    scaled = agreement_metrics(pred, ours * (65535 / 65525))
    read = agreement_metrics(pred, as_read)
    assert [scaled[name] for name in AGREEMENT_METRICS] == pytest.approx([read[name] for name in AGREEMENT_METRICS], rel=1e-6)
    assert agreement_metrics(pred, ours)["rmse_teacher"] != pytest.approx(read["rmse_teacher"], rel=1e-6)
