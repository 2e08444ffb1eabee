import json

import numpy as np
import pytest

from tiekd.data.doctor import check_dataset, data_config
from tiekd.errors import UserError


@pytest.fixture
def healthy(kitti):
    for number in range(3):
        kitti.add(number)
    kitti.write("train")
    kitti.add(3, size=(370, 1224), drive=2)
    kitti.add(4, drive=2, with_depth=False)
    kitti.write("test")
    return kitti


def test_a_healthy_data_set_is_described(healthy):
    report = check_dataset(healthy.config())
    assert report.ok
    train, test = report.splits
    assert (train.rows, train.unlabelled, train.groups, train.sizes) == (3, 0, 1, {"375x1242": 3})
    assert (test.rows, test.unlabelled, test.groups) == (2, 1, 1)
    assert test.sizes == {"370x1224": 1, "375x1242": 1}
    assert train.missing == {"images": 0, "depth maps": 0}
    depth = train.depth[0]  # columns 13 .. 1228 modulo 100, of which 0 is not valid
    assert (depth.min, depth.max) == (1.0, 99.0)
    assert depth.valid_share == pytest.approx(1 - 12 / 1216)
    assert test.depth[1].median is None


def test_text_and_json_agree(healthy):
    report = check_dataset(healthy.config())
    text, document = report.to_text(), json.loads(json.dumps(report.to_dict()))
    assert document["ok"] is True
    assert document["splits"][1]["sizes"] == {"370x1224": 1, "375x1242": 1}
    assert "focal length in px" in text
    assert "focal length" in document["columns"][2]
    assert "test: 2 frames in 1 drives or scenes, 1 without ground truth" in text
    assert text.endswith("no problems")


def test_all_problems_are_listed(healthy, save_image):
    images = sorted((healthy.root / "input").rglob("*.png"))
    depths = sorted((healthy.root / "gt_depth").rglob("*.png"))
    images[0].unlink()
    save_image(depths[1], np.ones((375, 1242), np.uint8))
    listed = (healthy.root / "kitti_eigen_train.txt").read_text()
    (healthy.root / "kitti_eigen_train.txt").write_text(listed + listed.splitlines()[2] + "\nhalf a")
    report = check_dataset(healthy.config(train_crop=(400, 704)))
    assert not report.ok
    problems = "\n".join(report.splits[0].problems)
    assert "kitti_eigen_train.txt, line 5: needed 3 columns" in problems
    assert "1 frames are listed more than once" in problems
    assert "1 images are missing, first input/2000_01_01/" in problems
    assert "0000000001.png: needed 16-bit or 32-bit integers" in problems
    assert "data.train_crop 400x704 exceeds" in problems
    assert len(report.splits[0].problems) == 5
    assert report.splits[0].sizes == {"375x1242": 2}
    assert report.splits[1].problems == []
    assert report.to_dict()["ok"] is False
    assert "problem: 1 images are missing" in report.to_text()


def test_many_broken_frames_are_summarized(kitti, save_image):
    for number in range(5):
        _, depth = kitti.add(number)
        save_image(depth, np.ones((375, 1242), np.uint8))
    kitti.write("train")
    train, test = check_dataset(kitti.config()).splits
    assert len(train.problems) == 4
    assert train.problems[3] == "2 more frames have problems like these"
    assert test.problems[0].startswith("data.test_split")
    assert "found kitti_eigen_train.txt there" in test.problems[0]


def test_a_list_without_rows_or_ground_truth_is_a_problem(kitti):
    kitti.root.mkdir()
    (kitti.root / "kitti_eigen_train.txt").write_text("")
    kitti.add(0, with_depth=False)
    kitti.write("test")
    train, test = check_dataset(kitti.config()).splits
    assert "the list is empty" in train.problems[0]
    assert test.problems == ["none of the 1 frames has ground truth"]


def test_a_test_frame_in_the_training_split_is_a_remark(shared_data):
    report = check_dataset(data_config(shared_data / "kitti", None, {}))
    assert report.ok
    assert report.remarks == [
        "1 test frames are also training frames, first 2011_09_30/2011_09_30_drive_9002_sync/image_02/data/0000000005",
        "1 drives or scenes are in both splits, first 2011_09_30_drive_9002_sync",
    ]


def test_different_images_of_one_name_are_a_problem_in_a_split_and_a_remark_between_splits(kitti, save_image):
    image, _ = kitti.add(0)
    kitti.write("train")
    kitti.rows = [(kitti.root / "kitti_eigen_train.txt").read_text().strip().replace("0000000000.png", "0000000000.jpg", 1)]
    save_image(image.with_suffix(".jpg"), np.zeros((375, 1242, 3), np.uint8))
    kitti.write("test")
    report = check_dataset(kitti.config())
    assert report.ok
    assert any("no teacher can be used: " in remark and "both frames have the name" in remark for remark in report.remarks)
    rows = "".join((kitti.root / f"kitti_eigen_{split}.txt").read_text() for split in ("train", "test"))
    (kitti.root / "kitti_eigen_train.txt").write_text(rows)
    (problem,) = check_dataset(kitti.config()).splits[0].problems
    assert "both frames have the name" in problem


def test_drives_in_both_splits_are_a_remark(kitti):
    for split, number in (("train", 0), ("test", 1)):
        kitti.add(number, drive=3)
        kitti.add(number, drive=4 + number)
        kitti.write(split)
    report = check_dataset(kitti.config())
    assert (report.ok, report.remarks) == (True, ["1 drives or scenes are in both splits, first 2000_01_01_drive_0003_sync"])


def test_a_folder_for_evaluation_needs_no_training_list(kitti):
    kitti.add(0)
    kitti.write("test")
    report = check_dataset(data_config(kitti.root, None, {}))
    assert report.ok
    assert [split.split for split in report.splits] == ["test"]
    assert report.remarks == ["kitti_eigen_train.txt is not there: the data can be evaluated on, not trained on"]
    assert not check_dataset(kitti.config(train_split="mine.txt")).ok  # asked for by name
    (kitti.root / "kitti_eigen_test.txt").rename(kitti.root / "kitti_eigen_train.txt")
    assert not check_dataset(kitti.config()).ok


def test_rendered_data_are_described(section):
    report = check_dataset(section("synthetic-indoor", train_frames=5, test_frames=4))
    assert report.ok
    train, test = report.splits
    assert (train.rows, train.groups, test.groups) == (5, 2, 1)
    assert train.sizes == {"96x128": 5}
    assert all(0.85 < row.valid_share <= 1 for row in train.depth)


def test_a_data_set_is_detected_by_its_lists(healthy, tmp_path):
    config = data_config(healthy.root, None, {"data.test_frames": 1, "train_frames": 2})
    assert (config.dataset, config.train_frames, config.test_frames) == ("kitti", 2, 1)
    with pytest.raises(UserError, match=r"found the split lists of no data set \(kitti: .*; nyu: .*\); name the data set"):
        data_config(tmp_path, None, {})
    with pytest.raises(UserError, match="nowhere: no such folder"):
        data_config(tmp_path / "nowhere", None, {})
    with pytest.raises(UserError, match="unknown 'kiti'; did you mean kitti"):
        data_config(healthy.root, "kiti", {})
    with pytest.raises(UserError, match="did you mean train_frames"):
        data_config(healthy.root, "kitti", {"data.train_frame": 2})


def test_ground_truth_in_another_unit_is_a_problem(healthy, save_image):
    for path in (healthy.root / "gt_depth/2000_01_01_drive_0001_sync").rglob("*.png"):
        save_image(path, np.full((375, 1242), 65000, np.uint16))  # 254 m
    train, test = check_dataset(healthy.config()).splits
    assert train.problems[0].startswith("ground truth: 3 of 3 maps lie almost everywhere at the cap or beyond (median 253.9 m")
    assert test.problems == []
