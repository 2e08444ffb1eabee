"""Depth maps in all formats are read as they are stored."""

import io
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from tiekd.data.depth_files import compact, depth_header, read_depth
from tiekd.errors import UserError

MILLIMETERS = np.arange(6, dtype=np.uint16).reshape(2, 3) * 1000
METERS = MILLIMETERS.astype(np.float32) / 1000


def write(path, values):
    match path.suffix:
        case ".npy":
            np.save(path, values)
        case ".npz":
            np.savez(path, depth=values)
        case ".h5":
            h5py = pytest.importorskip("h5py", reason="the extra `formats` reads HDF5")
            with h5py.File(path, "w") as file:
                file["depth"] = values
        case ".exr":
            exr = pytest.importorskip("OpenEXR", reason="the extra `formats` reads EXR")
            exr.File({"type": exr.scanlineimage}, {"Z": values}).write(str(path))
        case _:
            Image.fromarray(values).save(path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("d.png", MILLIMETERS),
        ("d.png", MILLIMETERS.astype(np.uint8)),
        ("d.tif", MILLIMETERS),
        ("d.tiff", METERS),
        ("d.pfm", METERS),
        ("d.tif", MILLIMETERS.astype(np.int32) * 100),
        ("d.npy", METERS),
        ("d.npy", METERS.astype(np.float64)[..., None]),
        ("d.npy", MILLIMETERS.astype(np.int64)),
        ("d.npz", METERS),
        ("d.h5", METERS),
        ("d.exr", METERS),
    ],
    ids=str,
)
def test_every_format_gives_what_is_stored(tmp_path, name, values):
    write(tmp_path / name, values)
    found = read_depth(tmp_path / name)
    np.testing.assert_array_equal(found, values.reshape(2, 3))
    assert depth_header(tmp_path / name) == ((2, 3), found.dtype)
    assert found.dtype == values.dtype
    assert compact(found).dtype == (np.float32 if values.dtype.kind == "f" or values.max() >= 2**16 else np.uint16)
    np.testing.assert_allclose(compact(found), values.reshape(2, 3), rtol=1e-7)


@pytest.mark.parametrize("start", [b"P5 3 2 ", b"P2 3 2 "], ids=["binary", "text"])
@pytest.mark.parametrize("maximum", [65535, 5000, 300, 255, 5])
def test_a_pgm_is_read_as_it_is_stored_whatever_its_maximum(tmp_path, start, maximum):
    values = np.array([[0, 1, 2], [3, 4, maximum]], np.uint16)
    if start.startswith(b"P2"):
        content = " ".join(map(str, values.ravel())).encode()
    else:
        content = values.astype(np.uint8 if maximum < 256 else ">u2").tobytes()
    (tmp_path / "d.pgm").write_bytes(start + b"%d\n" % maximum + content)
    np.testing.assert_array_equal(read_depth(tmp_path / "d.pgm"), values)


def test_a_tiff_of_32_bits_without_sign_is_read_as_it_is_stored(tmp_path):
    values = np.array([[1, 2**31 + 5]], np.uint32)
    entries = [(256, 2), (257, 1), (258, 32), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, values.nbytes), (339, 1)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    header = b"II*\0" + struct.pack("<I", 8 + values.nbytes)
    (tmp_path / "d.tif").write_bytes(header + values.tobytes() + struct.pack("<H", len(entries)) + directory + bytes(4))
    np.testing.assert_array_equal(read_depth(tmp_path / "d.tif"), values)
    assert depth_header(tmp_path / "d.tif") == ((1, 2), np.dtype(np.uint32))


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("d.png", {"bits": 4}, "found Pillow's layout L;4"),
        ("d.tif", {"exif": {0x0112: 3}}, "needed an upright map, found one with the orientation 3"),
        ("d.tif", {"save_all": True, "append_images": [Image.new("L", (3, 2))]}, "holds 2 pictures"),
    ],
    ids=["stretched", "turned", "several pages"],
)
def test_a_map_that_pillow_would_change_is_refused(tmp_path, name, options, reason):
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    if "bits" in options:
        image.putpalette([value for gray in range(16) for value in [17 * gray] * 3])  # Pillow writes a gray one as it is
    if "exif" in options:
        exif = Image.Exif()
        exif.update(options["exif"])
        options = options | {"exif": exif}
    image.save(tmp_path / name, **options)
    if "bits" in options:
        content = bytearray((tmp_path / name).read_bytes())
        content[25] = 0  # gray
        content[29:33] = struct.pack(">I", zipfile.crc32(content[12:29]))
        (tmp_path / name).write_bytes(content)
    for read in (read_depth, depth_header):
        with pytest.raises(UserError, match=reason):
            read(tmp_path / name)


def test_an_array_that_states_a_huge_size_is_refused_before_memory_is_taken(tmp_path):
    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("depth.npy", header.getvalue())
    for read in (read_depth, depth_header):
        with pytest.raises(UserError, match=r"d\.npz: needed at most \d+ px, got 1000000x1000000"):
            read(tmp_path / "d.npz")


def test_hdf5_whose_values_are_in_other_files_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py", reason="the extra `formats` reads HDF5")
    (tmp_path / "values").write_bytes(METERS.tobytes())
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.create_dataset("depth", METERS.shape, METERS.dtype, external=[(str(tmp_path / "values"), 0, METERS.nbytes)])
    with pytest.raises(UserError, match=r"d\.h5: its values are in other files"):
        read_depth(tmp_path / "d.h5")


def test_a_jpeg_is_read_as_its_gray_values(tmp_path):
    Image.fromarray(np.full((16, 16), 40, np.uint8)).save(tmp_path / "d.jpg")
    assert read_depth(tmp_path / "d.jpg").dtype == np.uint8
    assert np.all(np.abs(read_depth(tmp_path / "d.jpg").astype(int) - 40) <= 1)


def test_one_of_several_arrays_is_named(tmp_path):
    np.savez(tmp_path / "d.npz", depth=METERS, color=METERS + 1)
    np.testing.assert_array_equal(read_depth(tmp_path / "d.npz", "color"), METERS + 1)
    with pytest.raises(UserError, match=r"d\.npz: holds depth, color; needed one, or for data set folder its name"):
        read_depth(tmp_path / "d.npz")
    with pytest.raises(UserError, match=r"d\.npz: holds depth, color; no 'z'"):
        read_depth(tmp_path / "d.npz", "z")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("d.png", b"", "not an image file"),
        ("d.npy", b"\x93NUMPY", "cannot be read"),
        ("d.npz", b"PK", "cannot be read"),
        ("d.xyz", b"depth", "not an image file of a supported format"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    for read in (read_depth, depth_header):
        with pytest.raises(UserError, match=rf"depth map .*{name}: .*{reason}") as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    for name in ("d.png", "d.npy", "d.npz", "d.tif"):
        with pytest.raises(UserError, match=rf"depth map .*{name}: no such file"):
            read_depth(tmp_path / name)


def test_no_pickle_is_read(tmp_path):
    np.save(tmp_path / "d.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"d\.npy: cannot be read: "):
        read_depth(tmp_path / "d.npy")


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 2), (0, 3), (2, 2, 3)])
def test_only_one_depth_per_pixel_is_read(tmp_path, shape):
    np.save(tmp_path / "d.npy", np.zeros(shape, np.float32))
    with pytest.raises(UserError, match=r"needed one depth per pixel, \[H, W\], got an array of shape"):
        read_depth(tmp_path / "d.npy")


def test_a_color_picture_is_no_depth_map(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "d.png")
    with pytest.raises(UserError, match=r"needed one channel of depth, found RGB"):
        read_depth(tmp_path / "d.png")
