"""Image files: RGB as uint8, depth as 16-bit PNG. What cannot be read is a `UserError` that names the file.

RGB and 16-bit PNGs are decoded by kornia-rs, in a third to two thirds of Pillow's time (benchmarks/data.py). Pillow reads
everything else, and has the last word on what is refused.
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

SIXTEEN_BIT = ("I;16", "I;16B", "I")  # Pillow's modes of a 16-bit grayscale PNG, which differ between its releases
EIGHT_BIT = {"1": "1-bit", "L": "8-bit grayscale", "P": "8-bit palette", "RGB": "RGB", "RGBA": "RGBA", "LA": "8-bit with alpha"}

PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"  # then width, height, and what the pixels are
RGB_PNG, UINT16_PNG = b"\x08\x02\x00\x00\x00", b"\x10\x00\x00\x00\x00"  # bit depth, colour type, ..., not interlaced


class StoredDepth(NamedTuple):
    """A depth map as it lies in a file, exact and small. Depth in m = value * unit; 0 where there is none."""

    values: np.ndarray  # uint16 or float32 [H, W]; may be a read-only view
    unit: float = 1.0  # m

    def metres(self) -> np.ndarray:
        """A new array, float32 [H, W] m."""
        return np.multiply(self.values, self.unit, out=np.empty(self.values.shape, np.float32), casting="same_kind")


class MissingFile(UserError):
    """A file that should be there is not."""


def pixels(size: Size) -> str:
    """A size as people write it: 352x1216."""
    return f"{size[0]}x{size[1]}"


def read_rgb(path: Path) -> np.ndarray:
    """uint8 [H, W, 3]."""
    content = _content(path, "image")
    if (decoded := _decoded(content, RGB_PNG, decode_image_png_u8, "rgb")) is not None:
        return decoded
    with _opened(path, "image", content) as image:
        return np.array(image.convert("RGB"))


def read_photo(path: Path) -> np.ndarray:
    """uint8 [H, W, 3] of any image, upright as its camera noted; of a 16-bit one the upper eight bits."""
    with _opened(path, "image") as image:
        if image.mode in SIXTEEN_BIT:
            image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def read_uint16(path: Path, what: str) -> np.ndarray:
    """uint16 [H, W] of a 16-bit grayscale PNG; `what` it is, for messages ("depth map", "teacher map")."""
    content = _content(path, what)
    if (decoded := _decoded(content, UINT16_PNG, decode_image_png_u16, "mono")) is not None:
        return decoded[..., 0]
    with _opened_uint16(path, what, content) as image:
        return np.array(image).astype(np.uint16)


def rgb_size(path: Path) -> Size:
    """Height and width from the header alone."""
    with _opened(path, "image") as image:
        return image.height, image.width


def uint16_size(path: Path, what: str) -> Size:
    """Height and width from the header alone, of a 16-bit grayscale PNG."""
    with _opened_uint16(path, what) as image:
        return image.height, image.width


def missing_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of `names` (paths below `folder`) that are not there.

    One listing per folder: a few hundred instead of a stat for each of some 50,000 files.
    """
    below = defaultdict(list)
    for name in names:
        parent, _, file = name.rpartition("/")
        below[parent].append(file)
    missing = []
    for parent, files in below.items():
        place = folder / parent
        present = set(os.listdir(place)) if place.is_dir() else set()
        missing += [f"{parent}/{file}".lstrip("/") for file in files if file not in present]
    return missing


def encode_png(array: np.ndarray) -> bytes:
    """uint8 [H, W, 3] or uint16 [H, W] as a PNG; a low compression level, since depth hardly shrinks further."""
    return _encoded(array, format="PNG", compress_level=3)


def encode_jpeg(array: np.ndarray) -> bytes:
    return _encoded(array, format="JPEG", quality=95)


def _encoded(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, **options)
    return buffer.getvalue()


def _decoded(content: bytes, kind: bytes, decode: Callable[[bytes, Size, str], np.ndarray], mode: str) -> np.ndarray | None:
    """The pixels [H, W, C] of a PNG of a kind; None of every other file, and of a broken one, about which Pillow says more."""
    if not content.startswith(PNG_START) or content[24:29] != kind:
        return None
    width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
    if height * width > Image.MAX_IMAGE_PIXELS:
        return None
    try:
        return decode(content, (height, width), mode)
    except Exception:  # all that kornia-rs raises
        return None


def _content(path: Path, what: str) -> bytes:
    with _refusals(path, what):
        return path.read_bytes()


@contextmanager
def _refusals(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise MissingFile(f"{what} {path}: no such file") from None
    except UnidentifiedImageError:
        raise UserError(f"{what} {path}: not an image file") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow reports a broken PNG as a SyntaxError
        raise UserError(f"{what} {path}: cannot be read: {error}") from None


@contextmanager
def _opened(path: Path, what: str, content: bytes | None = None) -> Iterator[Image.Image]:
    """The image of a file, or of its content where that is at hand."""
    with _refusals(path, what), Image.open(path if content is None else io.BytesIO(content)) as image:
        yield image


@contextmanager
def _opened_uint16(path: Path, what: str, content: bytes | None = None) -> Iterator[Image.Image]:
    with _opened(path, what, content) as image:
        if image.mode not in SIXTEEN_BIT:
            found = EIGHT_BIT.get(image.mode, image.mode)
            raise UserError(f"{what} {path}: needed a 16-bit grayscale PNG, found {found} (Pillow mode {image.mode})")
        yield image
