import io

import numpy as np
import pytest
from PIL import Image

from tiekd.data.image_io import MissingFileError, encode_png, missing_files, read_rgb, read_uint16, rgb_size, uint16_size
from tiekd.errors import UserError


def test_uint16_round_trip(tmp_path):
    values = np.array([[0, 1, 255], [256, 40000, 65535]], np.uint16)
    (tmp_path / "depth.png").write_bytes(encode_png(values))
    read = read_uint16(tmp_path / "depth.png", "depth map")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, values)
    assert uint16_size(tmp_path / "depth.png", "depth map") == (2, 3)


def test_rgb_round_trip_and_gray_becomes_rgb(tmp_path):
    colours = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    (tmp_path / "colour.png").write_bytes(encode_png(colours))
    np.testing.assert_array_equal(read_rgb(tmp_path / "colour.png"), colours)
    Image.fromarray(colours[..., 0]).save(tmp_path / "grey.png")
    assert read_rgb(tmp_path / "grey.png").shape == (2, 4, 3)
    assert rgb_size(tmp_path / "grey.png") == (2, 4)


COLORS = np.random.default_rng(2).integers(0, 2**8, (5, 7, 3), np.uint8)
GRAY = COLORS[..., 0]
TURNS = [  # by EXIF's orientation, from 2: how a camera that was held so sees an upright image
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_270,
]


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_photos_are_turned_upright(tmp_path, suffix, orientation):
    exif, path = Image.Exif(), tmp_path / f"photo.{suffix}"
    exif[0x0112] = orientation
    Image.fromarray(COLORS).transpose(TURNS[orientation - 2]).save(path, exif=exif, lossless=True)
    np.testing.assert_array_equal(read_rgb(path), COLORS)
    assert rgb_size(path) == (5, 7)


def test_depth_maps_are_not_turned(tmp_path):
    exif, values = Image.Exif(), GRAY.astype(np.uint16)
    exif[0x0112] = 6
    Image.fromarray(values).save(tmp_path / "depth.png", exif=exif)
    np.testing.assert_array_equal(read_uint16(tmp_path / "depth.png", "depth map"), values)
    assert uint16_size(tmp_path / "depth.png", "depth map") == (5, 7)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("8.png", Image.fromarray(GRAY)),
        ("16.png", Image.fromarray(GRAY.astype(np.uint16) * 257)),
        ("16.tif", Image.fromarray(GRAY.astype(np.uint16) * 257)),
        ("16_other_byte_order.tif", Image.fromarray((GRAY.astype(np.uint16) * 256 + 9).astype(">u2"))),
        ("16.pgm", Image.fromarray(GRAY.astype(np.int32) * 257)),
        ("alpha.png", Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(COLORS[..., 1])])),
    ],
)
def test_gray_is_the_same_in_any_depth(tmp_path, name, image):
    image.save(tmp_path / name)
    np.testing.assert_array_equal(read_rgb(tmp_path / name), np.repeat(GRAY[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("name", "image", "options"),
    [
        ("alpha.png", Image.fromarray(np.dstack([COLORS, GRAY])), {}),
        ("key.png", Image.fromarray(COLORS), {"transparency": tuple(COLORS[0, 0].tolist())}),
        ("palette.png", Image.fromarray(COLORS).quantize(256), {"transparency": bytes([0, 99] + [255] * 254)}),
        ("cmyk.tif", Image.fromarray(COLORS).convert("CMYK"), {}),
    ],
)
def test_other_kinds_of_images_become_rgb(tmp_path, name, image, options):
    image.save(tmp_path / name, **options)
    np.testing.assert_array_equal(read_rgb(tmp_path / name), np.array(image.convert("RGB")))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_images_without_an_8_bit_equivalent_are_refused(tmp_path, dtype):
    path = tmp_path / "deep.tif"
    Image.fromarray(GRAY.astype(dtype)).save(path)
    with pytest.raises(UserError, match=r"image .*deep.tif: needed 8 or 16 bits per channel, found (integers|floating)"):
        read_rgb(path)
    for read in (read_uint16, uint16_size):
        with pytest.raises(UserError, match=r"needed a 16-bit grayscale PNG, found (integers|floating)"):
            read(path, "depth map")


def test_a_pgm_is_refused_as_depth_because_its_values_are_scaled(tmp_path):
    (tmp_path / "depth.pgm").write_bytes(b"P5 1 1 10000\n" + bytes([0x13, 0x88]))
    with pytest.raises(UserError, match=r"needed a 16-bit grayscale PNG"):
        read_uint16(tmp_path / "depth.pgm", "depth map")


def test_plain_pngs_do_not_need_pillow(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    colours, values = rng.integers(0, 2**8, (5, 7, 3), np.uint8), rng.integers(0, 2**16, (5, 7), np.uint16)
    (tmp_path / "image.png").write_bytes(encode_png(colours))
    (tmp_path / "depth.png").write_bytes(encode_png(values))
    monkeypatch.delattr(Image, "open")
    np.testing.assert_array_equal(read_rgb(tmp_path / "image.png"), colours)
    np.testing.assert_array_equal(read_uint16(tmp_path / "depth.png", "depth map"), values)


@pytest.mark.parametrize("kind", ["rgb", "uint16"])
def test_damaged_pngs_are_refused_or_read_as_pillow_reads_them(tmp_path, kind):
    rng = np.random.default_rng(1)
    array = rng.integers(0, 2**8, (9, 11, 3), np.uint8) if kind == "rgb" else rng.integers(0, 2**16, (9, 11), np.uint16)
    whole, path, read = encode_png(array), tmp_path / "x.png", 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            found = read_rgb(path) if kind == "rgb" else read_uint16(path, "depth map")
        except UserError:
            continue
        with Image.open(path) as image:
            np.testing.assert_array_equal(found, np.array(image.convert("RGB") if kind == "rgb" else image))
        read += 1
    assert 0 < read < len(whole) / 2


@pytest.mark.parametrize(
    ("mode", "found"), [("L", "8-bit grayscale"), ("P", "8-bit palette"), ("RGBA", "RGBA"), ("1", "1-bit")]
)
def test_images_without_16_bits_are_refused_as_depth(tmp_path, mode, found):
    Image.new(mode, (3, 2)).save(tmp_path / "depth.png")
    for read in (read_uint16, uint16_size):
        with pytest.raises(UserError, match=rf"depth map .*depth.png: needed a 16-bit grayscale PNG, found {found}"):
            read(tmp_path / "depth.png", "depth map")


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"image .*absent.png: no such file"):
        read_rgb(tmp_path / "absent.png")
    (tmp_path / "page.png").write_text("<html>")
    with pytest.raises(UserError, match=r"page.png: not an image file"):
        rgb_size(tmp_path / "page.png")
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 2**16, (50, 50), dtype=np.uint16)
    Image.fromarray(noise).save(buffer, format="PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:1000])
    with pytest.raises(UserError, match=r"cut.png: cannot be read"):
        read_uint16(tmp_path / "cut.png", "depth map")


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_a_file_with_several_pictures_is_refused(tmp_path, name):
    pictures = [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
    for read in (read_rgb, rgb_size):
        with pytest.raises(UserError, match=rf"image \S+{name}: holds 2 pictures \(frames or pages\); needed one"):
            read(tmp_path / name)


def test_missing_files_keep_their_order(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("top.png", "a/one.png", "a/b/two.png"):
        (tmp_path / name).touch()
    wanted = ["a/one.png", "a/none.png", "top.png", "nowhere/x.png", "a/b/two.png", "gone.png", "a/also.png"]
    assert missing_files(tmp_path, wanted) == ["a/none.png", "a/also.png", "gone.png", "nowhere/x.png"]
    assert missing_files(tmp_path / "nowhere", wanted[:1]) == ["a/one.png"]
