import json

import numpy as np
import pytest
from PIL import Image

from tiekd.data.teacher_maps import MapWriter, TeacherMaps
from tiekd.errors import UserError

SIZE = (16, 24)
KEYS = ["drive_1/data/0000", "drive_1/data/0001", "drive_2/data/0000"]


def depth_of(key: str) -> np.ndarray:
    return np.random.default_rng(list(key.encode())).uniform(0.5, 80, SIZE).astype(np.float32)


def export(folder, keys=KEYS, **made_by):
    with MapWriter(folder, max_depth=80.0, made_by={"teacher": "adabins", **made_by}) as writer:
        for key in keys:
            writer.write(key, depth_of(key))
    return TeacherMaps(folder)


def test_maps_round_trip_within_half_a_unit(tmp_path):
    maps = export(tmp_path)
    assert maps.keys == KEYS
    for key in KEYS:
        depth = maps.load(key, SIZE)
        assert (depth.dtype, depth.shape) == (np.float32, SIZE)
        assert np.abs(depth - depth_of(key)).max() <= 80 / 65535 / 2 + 1e-5  # and float32's own rounding


def test_depths_out_of_range_are_clamped_and_non_finite_refused(tmp_path):
    writer = MapWriter(tmp_path, max_depth=10.0, made_by={})
    writer.write("a", np.array([[-1.0, 0.0, 10.0, 12.0]], np.float32))
    writer.close()
    assert TeacherMaps(tmp_path).load("a", (1, 4)).tolist() == [[0.0, 0.0, 10.0, 10.0]]
    with pytest.raises(ValueError, match=r"finite"):
        writer.write("b", np.full((1, 4), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"shape \(1, 1, 4\)"):
        writer.write("b", np.ones((1, 1, 4), np.float32))
    with pytest.raises(ValueError, match=r"written twice"):
        writer.write("a", np.ones((1, 4), np.float32))


def test_content_of_the_maps_manifest(tmp_path):
    export(tmp_path, run_id="0123")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["depth_per_unit"] == 80.0 / 65535
    assert manifest["made_by"] == {"teacher": "adabins", "run_id": "0123"}
    assert manifest["sizes"] == {"16x24": 3}
    assert list(manifest["frames"]) == KEYS


def test_the_digest_does_not_depend_on_location_or_maker(tmp_path):
    first = export(tmp_path / "a", made_at="yesterday").digest()
    assert first == export(tmp_path / "b", KEYS[::-1], made_at="today").digest()
    assert first != export(tmp_path / "c", KEYS[:2]).digest()
    with MapWriter(tmp_path / "d", max_depth=80.0, made_by={}) as writer:
        for key in KEYS:
            writer.write(key, depth_of(KEYS[0]))
    assert first != TeacherMaps(tmp_path / "d").digest()


def test_an_interrupted_export_is_unfinished(tmp_path):
    export(tmp_path)
    with pytest.raises(ValueError, match="finite"), MapWriter(tmp_path, max_depth=80.0, made_by={}) as writer:
        writer.write(KEYS[0], np.full(SIZE, np.nan, np.float32))
    assert (tmp_path / f"{KEYS[0]}.png").is_file()
    with pytest.raises(UserError, match=r"no manifest.json, so the export is unfinished"):
        TeacherMaps(tmp_path)
    assert export(tmp_path).keys == KEYS


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder; teacher.maps is a folder"):
        TeacherMaps(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "Invalid JSON"), ('{"format": 1}', "depth_per_unit: Field required"), ('{"format": 2}', "format: Input should be")],
)
def test_an_invalid_manifest_is_refused_in_one_line(tmp_path, content, reason):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=f"manifest.json: not a manifest of format 1: {reason}") as caught:
        TeacherMaps(tmp_path)
    assert "\n" not in str(caught.value)


def test_frames_without_a_map_are_counted_and_the_first_named(tmp_path):
    maps = export(tmp_path)
    maps.check(KEYS[:1])
    (tmp_path / f"{KEYS[2]}.png").unlink()  # still in the manifest
    with pytest.raises(UserError, match=r"5 of 7 frames have no map, first x0, x1, x2;"):
        maps.check([*KEYS, "x0", "x1", "x2", "x3"])
    with pytest.raises(UserError, match=r"no map for frame x0"):
        maps.load("x0", SIZE)


def test_a_map_of_the_wrong_size_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"teacher map of the wrong size: .*0000.png is 16x24, expected the frame's 352x1216"):
        export(tmp_path).load(KEYS[0], (352, 1216))


def test_an_eight_bit_map_is_refused(tmp_path):
    maps = export(tmp_path)
    Image.new("RGB", (24, 16)).save(tmp_path / f"{KEYS[0]}.png")
    with pytest.raises(UserError, match=r"teacher map .*0000.png: needed a 16-bit grayscale PNG, found RGB"):
        maps.load(KEYS[0], SIZE)
