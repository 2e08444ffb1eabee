"""Depth maps in the formats of data sets, as they are stored. A file that cannot be read raises a UserError that names it.

PNG, JPEG and TIFF of 8 or 16 bits, TIFF of 32 bits, .npy, .npz; EXR and HDF5 with the extra `formats`. No pickle is read.
"""

import importlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tiekd.data.image_io import MODE_NAMES, Size, open_image, read_uint16, user_errors
from tiekd.errors import UserError

UINT16 = ("I;16", "I;16B", "I;16L")


def read_depth(path: Path, array: str | None = None) -> np.ndarray:
    """Read the stored values of a depth map: uint16 or float32 [H, W].

    array: the name of the array in a .npz or HDF5 file; default: the only one.
    """
    if path.suffix.lower() == ".png" and _png_has_16_bits(path):
        return read_uint16(path, "depth map")
    with user_errors(path, "depth map"), _opened(path, array) as values:
        return _plane(np.asarray(values), path)


def depth_size(path: Path, array: str | None = None) -> Size:
    """Read height and width of a depth map without its values, where the format allows."""
    with user_errors(path, "depth map"), _opened(path, array, header=True) as values:
        shape = values if isinstance(values, tuple) else values.shape
    return _two_sides(shape, path)


def _png_has_16_bits(path: Path) -> bool:
    with open_image(path, "depth map") as image:
        return image.mode.startswith("I")


@contextmanager
def _opened(path: Path, array: str | None, header: bool = False) -> Any:
    """Open what a file holds: an array, something that converts to one, or with `header` perhaps only its shape."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        yield np.load(path, mmap_mode="r", allow_pickle=False)
    elif suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            yield archive[_only(list(archive.files), array, path)]
    elif suffix in (".h5", ".hdf5"):
        h5py = _library("h5py", path)
        with h5py.File(path, "r") as file:
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            yield file[_only(names, array, path)]
    elif suffix == ".exr":
        yield _exr(path, array)
    else:
        with open_image(path, "depth map") as image:
            yield image.size[::-1] if header else _pixels(image, path)


def _only(names: list[str], array: str | None, path: Path) -> str:
    """The array that is read of several."""
    if array is not None and array in names:
        return array
    if array is None and len(names) == 1:
        return names[0]
    wanted = "data.folder.array names one of them" if array is None else f"no {array!r}"
    raise UserError(f"depth map {path}: holds {', '.join(names) or 'no arrays'}; {wanted}")


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
        raise UserError(f"depth map {path}: reading {path.suffix} needs {name}; pip install 'tiekd[formats]'") from None


def _pixels(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode not in ("L", "I", "F", *UINT16):
        found = MODE_NAMES.get(image.mode, image.mode)
        raise UserError(f"depth map {path}: needed one channel of depth, found {found} (Pillow mode {image.mode})")
    return np.array(image)


def _plane(values: np.ndarray, path: Path) -> np.ndarray:
    """Bring values to uint16 or float32 [H, W]; integers that need more than 16 bits become float32."""
    height, width = _two_sides(values.shape, path)
    values = values.reshape(height, width)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() < 2**16:
        return values.astype(np.uint16)
    if values.dtype.kind in "iub":
        return values.astype(np.float32)
    raise UserError(f"depth map {path}: needed numbers, found {values.dtype}")


def _two_sides(shape: tuple[int, ...], path: Path) -> Size:
    sides = [side for side in shape if side != 1] if len(shape) > 2 else list(shape)
    if len(sides) != 2 or min(sides) < 1:
        raise UserError(f"depth map {path}: needed one depth per pixel, [H, W], got an array of shape {list(shape)}")
    return sides[0], sides[1]
