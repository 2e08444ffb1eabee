import shutil

import numpy as np
import pytest
from PIL import Image

from tiekd.data import open_frames
from tiekd.errors import UserError

ROW = "a/b_drive_0001_sync/0.png b_drive_0001_sync/0.png 721.5"


@pytest.fixture
def with_list(tmp_path, section):
    """The KITTI section of a folder whose training list has the given content, as bytes."""

    def write(content: bytes):
        (tmp_path / "kitti_eigen_train.txt").write_bytes(content)
        return section("kitti", root=str(tmp_path))

    return write


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a/1.png b/1.png", "found 2"),
        ("a/1.p", "found 1"),
        ("a/1.png b/1.png 721.5 extra", "found 4"),
        ("a/1.png b/1.png focal", "no focal length"),
        ("a/1.png b/1.png nan", "no focal length"),
        ("a/1.png b/1.png -7", "no focal length"),
        ("a/../../1.png b/1.png 7", "the path 'a/../../1.png' leaves its folder"),
        ("/ b/1.png 7", "the path '/' names no file"),
        ("a/ b/1.png 7", "the path 'a/' names a folder"),
        (r"a\1.png b/1.png 7", "has backslashes; needed /"),
        ("https://a/1.png b/1.png 7", "is a URL"),
        ("a/1.png\x07 b/1.png 7", "has a control character"),
        ("living room/1.png b/1.png 7", "found 4; put a path with blanks in quotes, or tabs between the columns"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(with_list, line, reason):
    with pytest.raises(UserError) as caught:
        open_frames(with_list(f"{ROW}\n\n{line}".encode()), "train")
    message = str(caught.value)
    assert "kitti_eigen_train.txt, line 3: " in message
    assert reason in message
    assert repr(line) in message
    assert "0000000005.png 721.5377" in message  # an example of a row
    assert "\n" not in message


@pytest.mark.parametrize(
    "row",
    [
        '"living room/1 a.png" "living room/1 b.png" 721.5',
        "'/living room/1 a.png' 'living room/1 b.png' 721.5",
        "living room/1 a.png\tliving room/1 b.png\t721.5",
        '"living room/1 a.png"\t"living room/1 b.png"\t721.5\t',
    ],
)
def test_a_path_with_blanks_stands_in_quotes_or_between_tabs(with_list, row):
    source = open_frames(with_list(f"{row}\n{ROW}".encode()), "train")
    assert source.keys == ["living room/1 a", "a/b_drive_0001_sync/0"]
    assert [file.name for file in source.files(0)] == ["1 a.png", "1 b.png"]


def test_blanks_and_tabs_may_be_mixed_between_columns(with_list):
    source = open_frames(with_list(b"a/1.png\tb/it's.png 7\n  a/2.png  None\t 7 \n"), "train")
    assert (source.keys, source.has_ground_truth(1)) == (["a/1", "a/2"], False)


def test_further_bad_lines_are_counted(with_list):
    with pytest.raises(UserError, match=r"line 1: .*\(and 2 more such lines\)"):
        open_frames(with_list(b"x\ny\nz\n"), "train")


def test_a_missing_final_newline_and_a_short_focal_length_are_valid(with_list):
    assert len(open_frames(with_list(f"{ROW}\n{ROW[:-4]}".encode()), "train")) == 2


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_list_is_refused(with_list, content):
    with pytest.raises(UserError, match=r"the list is empty"):
        open_frames(with_list(content), "train")


def test_a_binary_list_is_refused(with_list):
    with pytest.raises(UserError, match=r"not a text file"):
        open_frames(with_list(b"\x89PNG\xff\xfe"), "train")


def test_a_missing_root_is_described(section, tmp_path):
    with pytest.raises(UserError, match=r"data.root is needed for kitti: .*input/.*gt_depth/"):
        open_frames(section("kitti"), "train")
    with pytest.raises(UserError, match=r"nowhere: no such folder; .*sync_depth_"):
        open_frames(section("nyu", root=str(tmp_path / "nowhere")), "train")


def test_a_missing_list_is_named(section, tmp_path):
    with pytest.raises(UserError, match=r"data.test_split .*absent.txt: no such file"):
        open_frames(section("kitti", root=str(tmp_path), test_split="absent.txt"), "test")
    with pytest.raises(UserError, match=r"data.test_split is needed for kitti"):
        open_frames(section("kitti", root=str(tmp_path), test_split=None), "test")


def test_missing_files_are_counted_and_the_first_named(kitti):
    paths = [kitti.add(number) for number in range(5)]
    kitti.write()
    for image, _ in paths[1:]:
        image.unlink()
    source = open_frames(kitti.config(), "train")
    named = ", ".join(rf"\S*000000000{number}.png" for number in (1, 2, 3))
    with pytest.raises(UserError, match=rf"4 of 5 images are missing in \S+, first {named}; looked in input, ., raw, raw_data"):
        source.check()


def test_missing_depth_maps_are_counted_among_those_that_are_listed(kitti):
    _, depth = kitti.add(0)
    kitti.add(1, with_depth=False)
    kitti.write()
    depth.unlink()
    source = open_frames(kitti.config(), "train")
    with pytest.raises(UserError, match=r"1 of 1 depth maps are missing"):
        source.check()
    with pytest.raises(UserError, match=r"depth map .*0000000000.png: no such file"):
        source.load(0)


def test_a_frame_without_ground_truth_has_depth_zero(kitti):
    kitti.add(0, with_depth=False)
    kitti.add(1)
    kitti.write()
    source = open_frames(kitti.config(), "train")
    source.check()
    assert source.n_without_ground_truth == 1
    assert not source.load(0).depth_gt.any()
    assert source.load(1).depth_gt.any()


def test_an_eight_bit_depth_map_is_refused(kitti, save_image):
    _, depth = kitti.add(0)
    kitti.write()
    save_image(depth, np.ones((375, 1242), np.uint8))
    source = open_frames(kitti.config(), "train")
    for look in (source.check, lambda: source.size(0)):
        with pytest.raises(
            UserError, match=r"0000000000.png: needed 16-bit or 32-bit integers, value / 256 = m .*; found 8-bit"
        ):
            look()


def test_integers_of_32_bits_are_read_exactly_and_floats_refused(kitti):
    _, depth = kitti.add(0)
    kitti.write()
    far = np.full((375, 1242), 100_000, np.int32)  # more than 16 bits hold
    depth.unlink()
    Image.fromarray(far).save(depth, format="TIFF")
    source = open_frames(kitti.config(), "train")
    source.check()
    assert (source.load(0).depth_gt == 100_000 / 256).all()
    Image.fromarray(far.astype(np.float32)).save(depth, format="TIFF")
    for look in (source.check, lambda: source.load(0)):
        with pytest.raises(
            UserError, match=r"needed .* integers, value / 256 = m \(data.dataset folder .*; found 32-bit floats"
        ):
            look()


def test_image_and_depth_must_have_one_size(kitti, save_image):
    _, depth = kitti.add(0)
    kitti.write()
    save_image(depth, np.ones((370, 1224), np.uint16))
    with pytest.raises(UserError, match=r"depth map of 370x1224 px for an image of 375x1242 px"):
        open_frames(kitti.config(), "train").load(0)


def test_a_broken_image_is_named(kitti):
    image, _ = kitti.add(0)
    kitti.add(1)
    kitti.write()
    image.write_bytes(image.read_bytes()[:2000])
    source = open_frames(kitti.config(), "train")
    with pytest.raises(UserError, match=r"image .*0000000000.png: cannot be read"):
        source.load(0)
    image.write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"not an image file"):
        source.load(0)


def test_only_the_first_frames_are_used(kitti):
    for number in range(3):
        kitti.add(number)
    rows = kitti.rows
    kitti.write()
    kitti.rows = rows
    kitti.write("test")
    config = kitti.config(train_frames=2, test_frames=1)
    assert [key[-1] for key in open_frames(config, "train").keys] == ["0", "1"]
    assert len(open_frames(config, "test")) == 1
    assert len(open_frames(kitti.config(train_frames=9), "train")) == 3


def test_the_digest_does_not_depend_on_location_or_line_endings(with_list, tmp_path, section):
    unix = open_frames(with_list(f"{ROW}\n{ROW[1:]}\n".encode()), "train").list_digest()
    dos = open_frames(with_list(f"{ROW}\r\n{ROW[1:]}".encode()), "train").list_digest()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "other.txt").write_text(f"/{ROW}\n{ROW[1:]}\n")
    moved = open_frames(section("kitti", root=str(elsewhere), train_split="other.txt"), "train").list_digest()
    other_order = open_frames(with_list(f"{ROW[1:]}\n{ROW}\n".encode()), "train").list_digest()
    fewer = open_frames(with_list(f"{ROW}\n".encode()), "train").list_digest()
    assert unix == dos == moved
    assert len({unix, other_order, fewer}) == 3


@pytest.mark.parametrize(
    ("images", "depths"), [("input", "data_depth_annotated/val"), (".", "data_depth_annotated"), ("raw", "train")]
)
def test_folders_of_kittis_own_archives_are_found(kitti, images, depths):
    kitti.add(0)
    kitti.add(1, with_depth=False)
    kitti.write()
    usual = open_frames(kitti.config(), "train").digest()
    for folder, place in (("gt_depth", depths), ("input", images)):
        (kitti.root / place).mkdir(parents=True, exist_ok=True)
        for path in (kitti.root / folder).iterdir() if folder != place else ():
            shutil.move(path, kitti.root / place)
    source = open_frames(kitti.config(train_split="./kitti_eigen_train.txt"), "train")
    source.check()
    assert source.files(0)[1].relative_to(kitti.root / depths)
    assert source.load(0).depth_gt.any()
    assert source.digest() == usual


def test_nyu_is_found_where_bts_ships_it(tmp_path, section, save_image):
    (tmp_path / "nyu_train.txt").write_text("/room_0001/rgb_0.jpg /room_0001/sync_depth_0.png 518.8\n")
    (tmp_path / "nyu_test.txt").write_text("room/rgb_0.jpg room/sync_depth_0.png 518.8\n")
    for folder in ("sync/room_0001", "official_splits/test/room"):
        save_image(tmp_path / folder / "rgb_0.jpg", np.zeros((480, 640, 3), np.uint8))
        save_image(tmp_path / folder / "sync_depth_0.png", np.full((480, 640), 2000, np.uint16))
    config = section("nyu", root=str(tmp_path))
    for split, folder in (("train", "sync/room_0001"), ("test", "official_splits/test/room")):
        source = open_frames(config, split)
        source.check()
        assert source.files(0)[0] == tmp_path / folder / "rgb_0.jpg"
        assert source.load(0).depth_gt[0, 0] == 2


def test_a_file_whose_name_only_looks_the_same_is_told(kitti):
    kitti.add(0)
    kitti.rows = [row.replace("2000_01_01/", "Stra\u00dfe \u00e4/".replace(" ", "_"), 1) for row in kitti.rows]
    kitti.write()
    (kitti.root / "input/2000_01_01").rename(kitti.root / "input/Stra\u00dfe_a\u0308")
    with pytest.raises(UserError, match=r"the file's name has other Unicode characters that look the same \(NFD\)$"):
        open_frames(kitti.config(), "train").check()


def test_a_frame_that_is_listed_twice_is_told(kitti, caplog):
    kitti.add(0)
    kitti.rows *= 2
    kitti.write()
    open_frames(kitti.config(), "train").check()
    assert "kitti_eigen_train.txt: 1 frames are listed more than once, first 2000_01_01/" in caplog.text


def test_two_images_of_one_name_are_refused(kitti, save_image):
    image, _ = kitti.add(0)
    kitti.rows.append(kitti.rows[0].replace("0000000000.png", "0000000000.jpg", 1))
    kitti.write()
    save_image(image.with_suffix(".jpg"), np.zeros((375, 1242, 3), np.uint8))
    with pytest.raises(UserError, match=r"0000000000\.png and \S+0000000000\.jpg: both frames have the name 2000_01_01/"):
        open_frames(kitti.config(), "train").check()


def test_a_missing_file_that_is_elsewhere_is_told(kitti):
    kitti.add(0)
    kitti.write()
    (kitti.root / "mine").mkdir()
    (kitti.root / "input").rename(kitti.root / "mine/pictures")
    with pytest.raises(UserError, match=r"0000000000.png is in \S*/mine/pictures: move or link \S*pictures/\* to \S*/input$"):
        open_frames(kitti.config(), "train").check()
