import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tiekd.config import build, override
from tiekd.data import check_inputs, input_digests, open_frames
from tiekd.data.inputs import one_look
from tiekd.data.teacher_maps import MapWriter
from tiekd.errors import UserError

VIEW = (352, 1216)


def config_of(kitti, maps=None, **data):
    """A run on a KITTI folder: TIE-KD with maps, otherwise the baseline on ground truth."""
    document = {"data": {"dataset": "kitti", "root": str(kitti.root)} | data}
    if maps:
        return build(document | {"teacher": {"name": "adabins", "maps": str(maps)}})
    return build(document | {"loss": {"name": "si", "target": "ground_truth"}})


def export(folder, keys, size=VIEW, depth=7.0):
    with MapWriter(folder, max_depth=80.0, made_by={}) as writer:
        for key in keys:
            writer.write(key, np.full(size, depth, np.float32))
    return folder


@pytest.fixture
def complete(kitti):
    """One training and one test frame."""
    kitti.add(0)
    kitti.write("train")
    kitti.add(1, drive=2)
    kitti.write("test")
    return kitti


def test_complete_inputs_pass(complete, tmp_path):
    keys = open_frames(config_of(complete).data, "train").keys
    check_inputs(config_of(complete))
    check_inputs(config_of(complete, export(tmp_path / "maps", keys)))


def test_both_splits_are_checked(complete):
    (complete.root / "kitti_eigen_test.txt").unlink()
    with pytest.raises(UserError, match=r"data.test_split .*kitti_eigen_test.txt: no such file"):
        check_inputs(config_of(complete))


def test_an_unusable_first_frame_is_refused(complete, save_image):
    save_image(next((complete.root / "gt_depth/2000_01_01_drive_0002_sync").rglob("*.png")), np.ones((375, 1242), np.uint8))
    with pytest.raises(UserError, match=r"needed 16-bit or 32-bit integers"):
        check_inputs(config_of(complete))


def test_the_first_depth_map_is_checked_even_after_frames_without_one(kitti, save_image):
    kitti.add(0, with_depth=False)
    _, depth = kitti.add(1)
    kitti.write("train")
    save_image(depth, np.ones((375, 1242), np.uint8))
    with pytest.raises(UserError, match=r"needed 16-bit or 32-bit integers"):
        open_frames(kitti.config(), "train").check()


def test_test_frames_that_are_also_trained_on_are_told(complete, caplog):
    shutil.copy(complete.root / "kitti_eigen_test.txt", complete.root / "kitti_eigen_train.txt")
    check_inputs(config_of(complete))
    assert "1 of 1 test frames are also training frames, first 2000_01_01/" in caplog.text


def test_frames_of_both_splits_that_would_share_a_map_are_refused(complete, tmp_path, save_image):
    keys = open_frames(config_of(complete).data, "train").keys
    maps = export(tmp_path / "maps", keys)
    image = next((complete.root / "input").rglob("*drive_0002*/**/*.png"))
    other = image.parents[2].with_name("2000_01_01_drive_0001_sync") / "image_02/data/0000000000.jpg"
    save_image(other, np.zeros((375, 1242, 3), np.uint8))
    rows = (complete.root / "kitti_eigen_test.txt").read_text()
    image_row = str(other.relative_to(complete.root / "input"))
    (complete.root / "kitti_eigen_test.txt").write_text(" ".join([image_row, *rows.split()[1:]]))
    check_inputs(config_of(complete))  # which needs no maps
    with pytest.raises(UserError, match=r"0000000000\.png and \S+0000000000\.jpg: both frames have the name"):
        check_inputs(config_of(complete, maps))


def test_a_crop_that_does_not_fit_is_refused(complete):
    with pytest.raises(
        UserError, match=r"data.train_crop 384x704 exceeds the part of frame .* that training uses: 352x1216 px"
    ):
        check_inputs(config_of(complete, train_crop=[384, 704]))


def test_ground_truth_is_required_to_evaluate_and_to_train_on_it(kitti, tmp_path):
    kitti.add(0, with_depth=False)
    kitti.write("train")
    kitti.add(1)
    kitti.write("test")
    with pytest.raises(UserError, match=r"data.train_split: none of its 1 frames has ground truth"):
        check_inputs(config_of(kitti))
    keys = open_frames(kitti.config(), "train").keys
    check_inputs(config_of(kitti, export(tmp_path / "maps", keys)))  # with a teacher, ground truth is not needed
    kitti.add(1, with_depth=False)
    kitti.write("test")
    with pytest.raises(UserError, match=r"data.test_split: none of its 1 frames has ground truth"):
        check_inputs(config_of(kitti, tmp_path / "maps"))


def test_every_training_frame_needs_a_map_of_its_size(complete, tmp_path):
    keys = open_frames(config_of(complete).data, "train").keys
    with pytest.raises(UserError, match=r"1 of 1 frames have no map"):
        check_inputs(config_of(complete, export(tmp_path / "other", ["other"])))
    with pytest.raises(UserError, match=r"teacher map of the wrong size: .* is 375x1242, expected the frame's 352x1216"):
        check_inputs(config_of(complete, export(tmp_path / "uncropped", keys, (375, 1242))))
    with pytest.raises(UserError, match=r"no such folder"):
        check_inputs(config_of(complete, tmp_path / "nowhere"))


def test_digests_cover_all_inputs(complete, tmp_path):
    keys = open_frames(config_of(complete).data, "train").keys
    baseline, distilled = config_of(complete), config_of(complete, export(tmp_path / "a", keys))
    assert input_digests(baseline).keys() == {"train", "test"}
    digests = input_digests(distilled)
    assert digests.keys() == {"train", "test", "teacher_maps"}
    assert digests == input_digests(config_of(complete, export(tmp_path / "b", keys)))
    other = input_digests(config_of(complete, export(tmp_path / "c", [*keys, "more"])))
    assert {name for name in digests if digests[name] != other[name]} == {"teacher_maps"}
    assert distilled.fingerprint(digests) != distilled.fingerprint(other)


@pytest.mark.parametrize(
    ("what", "changed"), [("input/2000_01_01", "train"), ("gt_depth/2000_01_01_drive_0001_sync", "train"), ("input", "test")]
)
def test_digests_cover_the_content_of_images_and_ground_truth(complete, tmp_path, save_image, what, changed):
    config = config_of(complete)
    before = input_digests(config)
    copy = shutil.copytree(complete.root, tmp_path / "copy")
    assert input_digests(override(config, {"data.root": str(copy)})) == before
    path = next((complete.root / what).rglob("0000000001.png" if changed == "test" else "0000000000.png"))
    save_image(path, np.asarray(Image.open(path)) // 2)
    after = input_digests(config)
    assert {name for name in before if after[name] != before[name]} == {changed}


def test_one_look_lasts_as_long_as_its_block(complete, save_image):
    config = config_of(complete)
    path = next((complete.root / "input/2000_01_01").rglob("0000000000.png"))
    with one_look():
        before = input_digests(config)
        save_image(path, np.asarray(Image.open(path)) // 2)
        assert input_digests(config) == before
    assert input_digests(config) != before


def test_a_changed_map_is_refused(complete, tmp_path):
    keys = open_frames(config_of(complete).data, "train").keys
    config = config_of(complete, export(tmp_path / "maps", keys))
    before = input_digests(config)
    export(tmp_path / "maps", keys, depth=3.0)
    assert {name for name, digest in input_digests(config).items() if digest != before[name]} == {"teacher_maps"}
    (tmp_path / "maps" / f"{keys[0]}.png").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"1 of 1 maps do not match manifest.json, first .*; export or import the teacher again"
    ):
        input_digests(config)


def test_inputs_are_checked_without_torch():
    code = "import sys, tiekd.data, tiekd.data.doctor, tiekd.data.teacher_maps; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_changed_list_is_read_again(complete):
    before = open_frames(config_of(complete).data, "train")
    assert open_frames(config_of(complete).data, "train") is before
    complete.add(0)
    complete.add(2)
    complete.write("train")
    after = open_frames(config_of(complete).data, "train")
    assert (len(before), len(after)) == (1, 2)
    assert after.list_digest() != before.list_digest()
    check_inputs(config_of(complete))
    (complete.root / "kitti_eigen_train.txt").write_text(
        (complete.root / "kitti_eigen_train.txt").read_text().replace("0002.png", "0003.png")
    )
    with pytest.raises(UserError, match=r"1 of 2 images are missing"):
        check_inputs(config_of(complete))


def test_maps_that_end_before_the_data_or_lie_at_their_cap_are_refused(complete, tmp_path):
    keys = open_frames(config_of(complete).data, "train").keys
    with MapWriter(tmp_path / "indoor", max_depth=10.0, made_by={}) as writer:
        writer.write(keys[0], np.full(VIEW, 7.0, np.float32))
    with pytest.raises(UserError, match=r"teacher maps: its depth ends at 10 m, data.max_depth is 80 m"):
        check_inputs(config_of(complete, tmp_path / "indoor"))
    with MapWriter(tmp_path / "mm", max_depth=80.0, made_by={}) as writer:
        writer.write(keys[0], np.full(VIEW, 7000.0, np.float32))
    with pytest.raises(
        UserError, match=r"teacher maps: 1 of 1 maps lie almost everywhere at the cap .* mm or cm when they were"
    ):
        check_inputs(config_of(complete, tmp_path / "mm"))


def test_a_root_of_rendered_data_is_refused():
    config = build(
        {"data": {"dataset": "synthetic-indoor", "root": "/dev/null"}, "loss": {"name": "si", "target": "ground_truth"}}
    )
    with pytest.raises(UserError, match=r"data.root /dev/null: synthetic-indoor is rendered and reads no folder"):
        check_inputs(config)
