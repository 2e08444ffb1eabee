"""Depth maps in the formats of data sets, as they are stored. A file that cannot be read raises a UserError that names it.

PNG, JPEG, PGM and TIFF of 8 or 16 bits, TIFF of 32 bits, PFM, .npy, .npz; EXR and HDF5 with the extra `formats`. No pickle is
read. This is the one reader of ground truth and of other programs' maps; maps in our own format are 16-bit PNGs (image_io.py).
"""

import importlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tiekd.data.image_io import MODE_NAMES, ORIENTATION, Size, decode_uint16_png, format_size, open_image, user_errors
from tiekd.errors import UserError

WHAT = "depth map"
ARRAYS = (".npy", ".npz", ".h5", ".hdf5", ".exr")  # suffixes; all other files are images
MAX_PIXELS = 2 * 89_478_485  # of an array; Pillow refuses larger images
SAMPLE_FORMAT, UNSIGNED = 339, (1,)  # a tag of TIFF, and its default
MODE_TYPES = {"L": np.uint8, "I": np.int32, "F": np.float32, "I;16": np.uint16, "I;16B": np.uint16, "I;16L": np.uint16}


class DepthHeader(NamedTuple):
    """What a depth map holds, without its values."""

    size: Size
    dtype: np.dtype


def read_depth(path: Path, array: str | None = None) -> np.ndarray:
    """Read the stored values of a depth map, [H, W], in the type in which they are stored.

    array: the name of the array in a .npz or HDF5 file; default: the only one.
    """
    with user_errors(path, WHAT):
        if path.suffix.lower() not in ARRAYS:
            return _image(path, path.read_bytes())
        with _opened(path, array) as stored:
            _require_numbers(path, stored.dtype)
            size = _two_sides(stored.shape, path)
            return np.asarray(stored).reshape(size)


def depth_header(path: Path, array: str | None = None) -> DepthHeader:
    """Read size and type of a depth map without its values, where the format allows."""
    with user_errors(path, WHAT):
        if path.suffix.lower() not in ARRAYS:
            with open_image(path, WHAT) as image:
                return DepthHeader((image.height, image.width), _type(image, path))
        with _opened(path, array) as stored:
            shape, dtype = stored.shape, stored.dtype
    _require_numbers(path, dtype)
    return DepthHeader(_two_sides(shape, path), dtype)


def compact(values: np.ndarray) -> np.ndarray:
    """Bring stored values to uint16 or float32; integers that need more than 16 bits become float32."""
    if values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() < 2**16:
        return values.astype(np.uint16, copy=False)
    return values.astype(np.float32, copy=False)


def require_integers(path: Path, dtype: np.dtype, meaning: str) -> None:
    """Raise UserError unless a depth map holds integers of 16 or more bits; `meaning` says what they are taken for.

    8 bits cannot hold depth by a data set's scale, and floats may be in any unit.
    """
    if dtype.kind not in "iu" or dtype.itemsize < 2:
        found = f"{8 * dtype.itemsize}-bit {'floats' if dtype.kind == 'f' else 'integers'}"
        raise UserError(f"{WHAT} {path}: needed 16-bit or 32-bit integers, {meaning}; found {found}")


def _image(path: Path, content: bytes) -> np.ndarray:
    if (decoded := decode_uint16_png(content)) is not None:
        return decoded
    with open_image(path, WHAT, content) as image:
        dtype = _type(image, path)
        maximum = _pgm_maximum(image)
        values = np.array(image)
    if maximum is not None:  # undo what Pillow has done
        values = np.rint(values * (maximum / (255 if dtype == np.uint8 else 65535)))
    return values.astype(dtype, copy=False)


def _type(image: Image.Image, path: Path) -> np.dtype:
    """The type of an image's values. Raises UserError if it is no depth map."""
    if image.mode not in MODE_TYPES:
        found = MODE_NAMES.get(image.mode, image.mode)
        raise UserError(f"{WHAT} {path}: needed one channel of depth, found {found} (Pillow mode {image.mode})")
    if (layout := _pixel_layout(image)).startswith("L;"):  # 2 or 4 bits, which Pillow stretches, or inverted
        raise UserError(f"{WHAT} {path}: needed 8, 16 or 32 bits per value, found Pillow's layout {layout}")
    if image.format == "TIFF" and (turn := image.getexif().get(ORIENTATION, 1)) != 1:  # by which Pillow would turn the map
        raise UserError(f"{WHAT} {path}: needed an upright map, found one with the orientation {turn}")
    if image.mode == "I" and image.format == "TIFF" and getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, UNSIGNED) == UNSIGNED:
        return np.dtype(np.uint32)
    # Pillow calls a PGM, and in older releases a PNG of 16 bits "I".
    return np.dtype(np.uint16 if image.mode == "I" and image.format in ("PNG", "PPM") else MODE_TYPES[image.mode])


def _pixel_layout(image: Image.Image) -> str:
    """How Pillow calls the pixels in a file, such as "L;4"; empty if it does not tell."""
    tiles: Any = getattr(image, "tile", None)
    arguments = tiles[0][-1] if tiles else ""
    layout = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return layout if isinstance(layout, str) else ""


def _pgm_maximum(image: Image.Image) -> int | None:
    """The largest value that a PGM states, if Pillow will stretch its values to 8 or 16 bits."""
    tiles: Any = getattr(image, "tile", None) if image.format == "PPM" and image.mode != "F" else None
    if not tiles:
        return None
    decoder, *_, arguments = tiles[0]
    return arguments[-1] if decoder in ("ppm", "ppm_plain") else None


@contextmanager
def _opened(path: Path, array: str | None) -> Any:
    """Open the array of a file, or what converts to one and has its shape and type."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        yield np.load(path, mmap_mode="r", allow_pickle=False)
    elif suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            name = _only(list(archive.files), array, path)
            with archive.zip.open(f"{name}.npy") as member:
                _two_sides(_npy_shape(member), path)  # before memory is taken for it
            yield archive[name]
    elif suffix == ".exr":
        yield _exr(path, array)
    else:
        h5py = _library("h5py", path)
        with h5py.File(path, "r") as file:
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            found = file[_only(names, array, path)]
            if found.is_virtual or found.external:  # which belong to no frame, so that a change of them would not count
                raise UserError(f"{WHAT} {path}: its values are in other files; needed a file that holds them")
            yield found


def _npy_shape(file: Any) -> tuple[int, ...]:
    """Read the shape of an array from its header."""
    of_version_1 = np.lib.format.read_magic(file) == (1, 0)
    read_header = np.lib.format.read_array_header_1_0 if of_version_1 else np.lib.format.read_array_header_2_0
    return read_header(file)[0]


def _only(names: list[str], array: str | None, path: Path) -> str:
    """The array that is read of several."""
    if array is not None and array in names:
        return array
    if array is None and len(names) == 1:
        return names[0]
    wanted = "needed one, or for data set folder its name in data.folder.array" if array is None else f"no {array!r}"
    raise UserError(f"{WHAT} {path}: holds {', '.join(names) or 'no arrays'}; {wanted}")


def _exr(path: Path, array: str | None) -> np.ndarray:
    """The depth channel of an EXR file: Z, Y or R unless `array` names another."""
    channels = _library("OpenEXR", path).File(str(path), separate_channels=True).channels()
    names = [name for name in ("Z", "Y", "R") if name in channels]
    name = array if array in channels else names[0] if array is None and names else _only(list(channels), array, path)
    return channels[name].pixels


def _library(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"{WHAT} {path}: reading {path.suffix} needs {name}; pip install 'tiekd[formats]'") from None


def _require_numbers(path: Path, dtype: np.dtype) -> None:
    if dtype.kind not in "fiub":
        raise UserError(f"{WHAT} {path}: needed numbers, found {dtype}")


def _two_sides(shape: tuple[int, ...], path: Path) -> Size:
    sides = [side for side in shape if side != 1] if len(shape) > 2 else list(shape)
    if len(sides) != 2 or min(sides) < 1:
        raise UserError(f"{WHAT} {path}: needed one depth per pixel, [H, W], got an array of shape {list(shape)}")
    if sides[0] * sides[1] > MAX_PIXELS:
        raise UserError(f"{WHAT} {path}: needed at most {MAX_PIXELS} px, got {format_size((sides[0], sides[1]))}")
    return sides[0], sides[1]
