"""Image files: photos as RGB in uint8, depth in 16 bits. A file that cannot be read raises a UserError that names it.

Every command reads photos with `read_rgb`, and our own depth maps with `read_uint16` (those of others: depth_files.py). RGB and
16-bit PNGs are decoded by kornia-rs, in a third to two thirds of Pillow's time (benchmarks/data.py). Pillow reads all other
files, and decides which files are refused.
"""

import io
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from kornia_rs.io import decode_image_png_u8, decode_image_png_u16
from PIL import Image, ImageOps, UnidentifiedImageError

from tiekd.errors import UserError

Size = tuple[int, int]  # height, width in px

MODE_NAMES = {
    "1": "1-bit",
    "L": "8-bit grayscale",
    "P": "8-bit palette",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "LA": "8-bit with alpha",
    "I": "integers of up to 32 bits",
    "F": "floating point",
}

PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"  # then width, height and pixel format
RGB_PNG, UINT16_PNG = b"\x08\x02\x00\x00\x00", b"\x10\x00\x00\x00\x00"  # bit depth, color type, ..., not interlaced
# How the chunks start that state an orientation or more pictures.
PNG_SPECIAL = (b"acTL", b"eXIf", b"tEXtRaw profile type", b"zTXtRaw profile type", b"iTXtXML:com.adobe.xmp")
SEVERAL = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")  # formats with frames or pages; an MPO's further pictures are previews
ORIENTATION, ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that exchange height and width


class StoredDepth(NamedTuple):
    """A depth map as a file stores it, exact and small. Depth in m = value * unit; 0 where there is none."""

    values: np.ndarray  # uint16 or float32 [H, W]; may be a read-only view
    unit: float = 1.0  # m

    def to_meters(self) -> np.ndarray:
        """Convert to a new array, float32 [H, W] m."""
        return np.multiply(self.values, self.unit, out=np.empty(self.values.shape, np.float32), casting="same_kind")


class MissingFileError(UserError):
    """A required file does not exist."""


def format_size(size: Size) -> str:
    """Format a size as height x width, such as 352x1216."""
    return f"{size[0]}x{size[1]}"


def read_rgb(path: Path) -> np.ndarray:
    """Read a photo as uint8 [H, W, 3] RGB, upright by its EXIF orientation.

    Gray becomes RGB, alpha is dropped, and of 16 bits the upper 8 are kept. Raises UserError for what has no 8-bit equivalent,
    such as floating point.
    """
    content = _read(path, "image")
    decoded = _decode_png(content, RGB_PNG, decode_image_png_u8, "rgb")
    if decoded is not None and not any(chunk.startswith(PNG_SPECIAL) for chunk in _png_chunks(content)):
        return decoded
    with open_image(path, "image", content) as image:
        return np.array(_to_rgb(ImageOps.exif_transpose(_to_8_bits(image, path))))


def _to_8_bits(image: Image.Image, path: Path) -> Image.Image:
    """Convert 16-bit gray, which Pillow would clip at 255, and refuse what has more bits."""
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise UserError(f"image {path}: needed 8 or 16 bits per channel, found {MODE_NAMES[image.mode]}")
    if not image.mode.startswith("I"):
        return image
    n_bits = getattr(image, "tag_v2", {}).get(258, (16,))[0]  # BitsPerSample of a TIFF, which may be 12
    gray = Image.fromarray((np.array(image) >> (n_bits - 8)).astype(np.uint8))
    gray.info = image.info  # the orientation
    return gray


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "P":  # whose transparent colors Pillow only converts without a warning to RGBA
        image = image.convert("RGBA")
    return image.convert("RGB")


def read_uint16(path: Path, what: str) -> np.ndarray:
    """Read 16-bit grayscale as it is stored, uint16 [H, W]; `what` names it in messages ("depth map", "teacher map")."""
    content = _read(path, what)
    if (decoded := decode_uint16_png(content)) is not None:
        return decoded
    with _open_uint16(path, what, content) as image:
        return np.array(image).astype(np.uint16)


def decode_uint16_png(content: bytes) -> np.ndarray | None:
    """Decode a 16-bit grayscale PNG to uint16 [H, W]. None for other and for broken files, which Pillow explains better."""
    decoded = _decode_png(content, UINT16_PNG, decode_image_png_u16, "mono")
    return None if decoded is None else decoded[..., 0]


def rgb_size(path: Path) -> Size:
    """Read height and width of the upright photo from the header of an image."""
    with open_image(path, "image") as image:
        size = image.height, image.width
        # The base class's method, since PNG's own decodes the image; a TIFF's size is upright.
        on_its_side = image.format != "TIFF" and Image.Image.getexif(image).get(ORIENTATION) in ON_ITS_SIDE
        return size[::-1] if on_its_side else size


def uint16_size(path: Path, what: str) -> Size:
    """Read height and width from the header of 16-bit grayscale."""
    with _open_uint16(path, what) as image:
        return image.height, image.width


def missing_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Return those of `names` (paths below `folder`) that do not exist.

    It lists each folder once, a few hundred system calls instead of some 50,000.
    """
    below: dict[str, list[str]] = defaultdict(list)
    for name in names:
        parent, _, file = name.rpartition("/")
        below[parent].append(file)
    missing = []
    for parent, files in below.items():
        path = folder / parent
        present = set(os.listdir(path)) if path.is_dir() else set()
        missing += [f"{parent}/{file}".lstrip("/") for file in files if file not in present]
    return missing


def encode_png(array: np.ndarray) -> bytes:
    """Encode uint8 [H, W, 3] or uint16 [H, W] as a PNG, at a low level because higher ones hardly shrink depth maps."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def encode_jpeg(array: np.ndarray) -> bytes:
    """Encode uint8 [H, W, 3] as a JPEG of quality 95."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


def _decode_png(
    content: bytes, pixel_format: bytes, decode: Callable[[bytes, Size, str], np.ndarray], mode: str
) -> np.ndarray | None:
    """Decode a PNG of a pixel format to [H, W, C]. None for other files, and for broken ones, which Pillow explains better."""
    if not content.startswith(PNG_START) or content[24:29] != pixel_format:
        return None
    width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
    if Image.MAX_IMAGE_PIXELS is not None and height * width > Image.MAX_IMAGE_PIXELS:
        return None
    try:
        return decode(content, (height, width), mode)
    except Exception:  # kornia-rs raises no narrower type
        return None


def _png_chunks(content: bytes) -> Iterator[bytes]:
    """The type and the first bytes of each chunk of a PNG."""
    position = len(PNG_START) - 8
    while position < len(content):
        yield content[position + 4 : position + 32]
        position += 12 + int.from_bytes(content[position : position + 4])


def _read(path: Path, what: str) -> bytes:
    with user_errors(path, what):
        return path.read_bytes()


@contextmanager
def user_errors(path: Path, what: str) -> Iterator[None]:
    """Turn the errors of reading a file into UserErrors that name it."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise MissingFileError(f"{what} {path}: no such file") from None
    except UnidentifiedImageError:
        raise UserError(f"{what} {path}: not an image file of a supported format") from None
    except MemoryError:
        raise
    except Exception as error:  # of any type: decoders fail on damaged files in many ways
        raise UserError(f"{what} {path}: cannot be read: {' '.join(str(error).split())}") from None


@contextmanager
def open_image(path: Path, what: str, content: bytes | None = None) -> Iterator[Image.Image]:
    """Open the image of a file, or of its `content` if that has been read. Raises UserError if a file holds several."""
    with user_errors(path, what), Image.open(path if content is None else io.BytesIO(content)) as image:
        if image.format in SEVERAL and (count := getattr(image, "n_frames", 1)) > 1:
            raise UserError(f"{what} {path}: holds {count} pictures (frames or pages); needed one")
        yield image


@contextmanager
def _open_uint16(path: Path, what: str, content: bytes | None = None) -> Iterator[Image.Image]:
    with open_image(path, what, content) as image:
        # Older Pillow releases call a 16-bit PNG "I", which in other formats may have 32 bits, a sign, or another scale.
        if not (image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")):
            found = MODE_NAMES.get(image.mode, image.mode)
            raise UserError(f"{what} {path}: needed a 16-bit grayscale PNG, found {found} (Pillow mode {image.mode})")
        yield image
