import numpy as np
import pytest
from PIL import Image

from tiekd.data import Frame
from tiekd.data.image_io import StoredDepth
from tiekd.data.teacher_maps import MapWriter
from tiekd.data.teacher_maps.external import ExternalMaps
from tiekd.errors import UserError

WHOLE, VIEW, ORIGIN = (40, 60), (32, 48), (8, 6)
KEYS = [f"2011_09_26/2011_09_26_drive_0001_sync/image_02/data/{number:010d}" for number in (5, 7)]
FLAT = "2011_09_26_2011_09_26_drive_0001_sync_image_02_data_0000000005"


def depth_of(size=VIEW) -> np.ndarray:
    """Depths of 1 / 256 m steps, all different."""
    return (np.arange(size[0] * size[1], dtype=np.float32).reshape(size) + 256) / 256


def frame() -> Frame:
    return Frame(np.zeros((*VIEW, 3), np.uint8), StoredDepth(np.zeros(VIEW, np.float32)), WHOLE, ORIGIN)


def save(path, depth: np.ndarray, scale=256.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".npy":
            np.save(path, depth)
        case ".npz":
            np.savez(path, depth=depth)
        case ".pfm":
            Image.fromarray(depth).save(path)
        case ".tif":
            Image.fromarray(np.rint(depth * scale).astype(np.int32)).save(path)
        case _:
            Image.fromarray(np.rint(depth * scale).astype(np.uint16)).save(path)


class Sizes:
    """The part of a source that is needed to check headers."""

    keys = KEYS[:1]

    def __len__(self) -> int:
        return 1

    def size(self, index: int):
        return VIEW

    def frame_size(self, index: int):
        return WHOLE


# -- finding --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [KEYS[0], FLAT, "0000000005"])
@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_a_map_is_found_by_key_released_name_or_stem(tmp_path, name, suffix):
    save(tmp_path / f"{name}{suffix}", depth_of())
    depth = ExternalMaps([tmp_path], "kitti", KEYS[:1]).load(KEYS[0], frame())
    assert depth.dtype == np.float32
    assert np.array_equal(depth, depth_of())


def test_nyu_names(tmp_path):
    save(tmp_path / "data_nyu_kitchen_0028b_rgb_00045.png", depth_of(), scale=1000)
    depth = ExternalMaps([tmp_path], "nyu", ["kitchen_0028b/rgb_00045"]).load("kitchen_0028b/rgb_00045", frame())
    assert np.abs(depth - depth_of()).max() <= 1e-3 / 2 + 1e-6


def test_preference_of_names_and_suffixes(tmp_path):
    for factor, name in enumerate((f"{KEYS[0]}.npy", f"{KEYS[0]}.png", f"{FLAT}.npy", "0000000005.npy"), start=1):
        save(tmp_path / name, factor * depth_of())
    for factor, name in enumerate((f"{KEYS[0]}.npy", f"{KEYS[0]}.png", f"{FLAT}.npy", "0000000005.npy"), start=1):
        assert ExternalMaps([tmp_path], "kitti", KEYS[:1]).load(KEYS[0], frame())[0, 0] == factor
        (tmp_path / name).unlink()


def test_a_stem_shared_by_several_frames_is_ignored(tmp_path):
    other = "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000005"
    save(tmp_path / "0000000005.png", depth_of())
    save(tmp_path / "0000000007.png", depth_of())
    with pytest.raises(UserError, match=rf"2 of 3 frames have no map, first {KEYS[0]}, {other}; "):
        ExternalMaps([tmp_path], "kitti", [*KEYS, other])


def test_negative_depths_are_told(tmp_path):
    class Frames(Sizes):
        def load(self, index: int) -> Frame:
            return Frame(np.zeros((*VIEW, 3), np.uint8), StoredDepth(depth_of()), WHOLE, ORIGIN)

    depth = depth_of()
    depth[0, :12] *= -1
    save(tmp_path / f"{KEYS[0]}.npy", depth)
    maps = ExternalMaps([tmp_path], "kitti", KEYS[:1])
    assert maps.check_units(Frames(), 10.0).endswith(": 0.78% of the depths are negative, and count as the smallest")


def test_folders_are_searched_in_order(tmp_path):
    save(tmp_path / "train" / f"{KEYS[0]}.npy", depth_of())
    save(tmp_path / "val" / f"{KEYS[0]}.npy", 9 * depth_of())
    save(tmp_path / "val" / f"{KEYS[1]}.npy", 2 * depth_of())
    maps = ExternalMaps([tmp_path / "train", tmp_path / "val"], "kitti", KEYS)
    assert [maps.load(key, frame())[0, 0] for key in KEYS] == [1.0, 2.0]


def test_missing_maps_are_counted_and_the_first_named(tmp_path):
    keys = [f"scene/{number}" for number in range(5)]
    save(tmp_path / "scene" / "0.png", depth_of())
    with pytest.raises(UserError) as caught:
        ExternalMaps([tmp_path], "nyu", keys)
    assert str(caught.value) == (
        f"depth maps {tmp_path}: 4 of 5 frames have no map, first scene/1, scene/2, scene/3; "
        "looked for scene/1.png or data_nyu_scene_1.png or 1.png (or .exr, .h5, .hdf5, .npy, .npz, .pfm, .tif, .tiff)"
    )
    with pytest.raises(UserError, match=r"nowhere: no such folder; needed one with a map for each frame"):
        ExternalMaps([tmp_path / "nowhere"], "nyu", keys)


# -- scale ----------------------------------------------------------------------------------------------------------------


def test_the_scale_is_the_given_one_or_that_of_the_ground_truth(tmp_path):
    save(tmp_path / f"{KEYS[0]}.png", np.full(VIEW, 2.0), scale=65535 / 80)
    read = ExternalMaps([tmp_path], "kitti", KEYS[:1], depth_scale=65535 / 80).load(KEYS[0], frame())
    assert np.abs(read - 2).max() < 80 / 65535
    assert ExternalMaps([tmp_path], "kitti", KEYS[:1]).load(KEYS[0], frame())[0, 0] == 1638 / 256
    assert ExternalMaps([tmp_path], "nyu", KEYS[:1]).load(KEYS[0], frame())[0, 0] == np.float32(1638 / 1000)


def test_a_scale_is_required_if_the_data_set_has_none(tmp_path):
    save(tmp_path / "train" / "0000.png", depth_of())
    maps = ExternalMaps([tmp_path], "synthetic-outdoor", ["train/0000"])
    with pytest.raises(UserError, match=r"0000.png: --depth-scale is needed, the integer at 1 m"):
        maps.load("train/0000", frame())
    assert ExternalMaps([tmp_path], "synthetic-outdoor", ["train/0000"], 256.0).load("train/0000", frame())[0, 0] == 1


def test_the_scale_of_a_teachers_folder(tmp_path):
    with MapWriter(tmp_path, 10.0, {}) as writer:
        writer.write(KEYS[0], depth_of())
    depth = ExternalMaps([tmp_path], "kitti", KEYS[:1]).load(KEYS[0], frame())
    assert np.abs(depth - depth_of()).max() <= 10 / 65535 / 2 + 1e-6


@pytest.mark.parametrize("scale", [0.0, -256.0, float("nan")])
def test_an_invalid_scale_is_refused(tmp_path, scale):
    with pytest.raises(UserError, match="--depth-scale: the integer at 1 m must be above 0, got"):
        ExternalMaps([tmp_path], "kitti", KEYS[:1], scale)


# -- size and content -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".npy", ".npz", ".tif", ".pfm"])
def test_a_map_of_the_whole_frame_is_cropped_to_the_view(tmp_path, suffix):
    save(tmp_path / f"{KEYS[0]}{suffix}", depth_of(WHOLE))
    maps = ExternalMaps([tmp_path], "kitti", KEYS[:1])
    maps.check_headers(Sizes())
    assert np.array_equal(maps.load(KEYS[0], frame()), depth_of(WHOLE)[8:40, 6:54])


@pytest.mark.parametrize("suffix", [".png", ".npy"])
@pytest.mark.parametrize("size", [(32, 47), (20, 30), (48, 32)])
def test_a_wrong_size_is_refused_by_header_and_content(tmp_path, size, suffix):
    save(tmp_path / f"{KEYS[0]}{suffix}", depth_of(size))
    maps = ExternalMaps([tmp_path], "kitti", KEYS[:1])
    line = rf"wrong size: \S*{suffix} is {size[0]}x{size[1]}, expected 32x48 \(the view\) or 40x60 \(the whole frame\)"
    with pytest.raises(UserError, match=line):
        maps.check_headers(Sizes())
    with pytest.raises(UserError, match=line):
        maps.load(KEYS[0], frame())


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.ones(VIEW, np.uint16), "--depth-scale is needed, the integer at 1 m"),
        (np.ones(VIEW, np.uint8), "needed 16-bit or 32-bit integers, or floats in m; found 8-bit integers"),
        (np.ones((2, *VIEW), np.float32), r"needed one depth per pixel, \[H, W\], got an array of shape \[2, 32, 48\]"),
        (np.ones(VIEW, complex), "needed numbers, found complex128"),
    ],
)
def test_arrays_that_are_not_depth_maps_are_refused(tmp_path, array, found):
    save(tmp_path / f"{KEYS[0]}.npy", array)
    with pytest.raises(UserError, match=rf"0000000005.npy: {found}"):
        ExternalMaps([tmp_path], "kitti", KEYS[:1]).check_headers(Sizes())


def test_a_file_that_is_not_an_array_is_refused(tmp_path):
    path = tmp_path / f"{KEYS[0]}.npy"
    path.parent.mkdir(parents=True)
    np.save(path, np.array([{"a": "pickle"}], object), allow_pickle=True)
    maps = ExternalMaps([tmp_path], "kitti", KEYS[:1])
    with pytest.raises(UserError, match=r"0000000005.npy: cannot be read: ") as caught:
        maps.load(KEYS[0], frame())
    assert "\n" not in str(caught.value)
    for content in (b"", b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"0000000005.npy: cannot be read: "):
            maps.load(KEYS[0], frame())


def test_an_eight_bit_image_is_refused(tmp_path):
    path = tmp_path / f"{KEYS[0]}.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (48, 32)).save(path)
    with pytest.raises(UserError, match=r"0000000005.png: needed one channel of depth, found RGB"):
        ExternalMaps([tmp_path], "kitti", KEYS[:1]).check_headers(Sizes())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_depths_that_are_not_finite_are_counted_and_refused(tmp_path, value):
    depth = depth_of()
    depth[3, :2] = value
    save(tmp_path / f"{KEYS[0]}.npy", depth)
    with pytest.raises(UserError, match=r"0000000005.npy: 2 of 1536 depths are not finite; needed m at every pixel"):
        ExternalMaps([tmp_path], "kitti", KEYS[:1]).load(KEYS[0], frame())


@pytest.mark.parametrize(
    ("factor", "remark"), [(1, ""), (3.281, "3.28 times that of the ground truth; probably in feet"), (0.1, "0.1 times")]
)
def test_maps_are_compared_with_the_ground_truth_of_their_frames(tmp_path, factor, remark):
    class Frames(Sizes):
        def load(self, index: int) -> Frame:
            return Frame(np.zeros((*VIEW, 3), np.uint8), StoredDepth(depth_of()), WHOLE, ORIGIN)

    save(tmp_path / f"{KEYS[0]}.npy", factor * depth_of())
    found = ExternalMaps([tmp_path], "kitti", KEYS[:1]).check_units(Frames(), 10.0)
    assert remark in found
    assert bool(remark) == bool(found)
