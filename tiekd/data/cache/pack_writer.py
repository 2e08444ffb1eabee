"""Write packed data, and compare packed data with the files they were made from."""

import errno
import hashlib
import io
import os
import shutil
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from tiekd.config import RunConfig, override
from tiekd.data import check_inputs, open_frames
from tiekd.data.cache.pack_format import ALIGNMENT, ITEM_DTYPE, PACK_FORMAT, PackManifest, file_sha256, open_pack
from tiekd.data.cache.pack_reader import pack_name
from tiekd.data.frame_source import FrameSource
from tiekd.data.image_io import Size, StoredDepth, uint16_size
from tiekd.data.inputs import open_teacher
from tiekd.data.progress import track
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.errors import UserError
from tiekd.store.files import check_output_folder, nearest_existing, write_atomically

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PackItem(NamedTuple):
    """A frame or a map to be written."""

    image: np.ndarray | None  # None for a map
    depth: StoredDepth
    frame_size: Size = (0, 0)
    origin: tuple[int, int] = (0, 0)


class PackContent(NamedTuple):
    """The content of a pack, still in its files."""

    what: Literal["frames", "maps"]
    digest: str
    name: str
    made_from: str
    files: list[list[Path]]  # of each item
    load: Callable[[int], PackItem]


def write_packs(config: RunConfig, out: Path) -> dict[str, Any]:
    """Pack the frames of a run and, if it reads a teacher, the maps. Existing packs are kept.

    Returns the number of items and bytes of each pack, and whether it is new. Raises UserError for a mistake or a full disk,
    and leaves no unfinished pack behind.
    """
    config = override(config, {"execution.packed": None})
    check_inputs(config)
    check_output_folder(out, "--out")
    contents = _contents(config)
    new = [content for content in contents if not (out / content.name).is_dir()]
    _check_free_space(out, new)
    parts = {}
    for content in contents:
        if content in new:
            _write_pack(out, content)
        pack = open_pack(out, content.name)
        pack.check_sources(dict(enumerate(content.files)))  # an older pack may be of other files with the same names
        manifest = pack.manifest
        parts[content.name] = {"items": manifest.items, "bytes": manifest.n_bytes, "new": content in new}
    return {"out": str(out), "parts": parts}


def verify_packs(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Read every byte of a run's packed data and of those source files that still exist.

    Returns the number of items and files of each pack. Raises UserError at the first difference.
    """
    parts = {}
    for content in _contents(override(config, {"execution.packed": None})):
        pack, n_files = open_pack(folder, content.name), 0
        for number, files in enumerate(track(content.files, content.name)):
            row = pack.index[number]
            if pack.sha256(number) != row["sha256"].tobytes():
                raise UserError(f"{pack}: item {number} differs from what was packed; {pack.remedy}")
            sources = [(path, source) for path, source in zip(files, row["sources"], strict=False) if path.is_file()]
            n_files += len(sources)
            for path, source in sources:
                if file_sha256(path) != source["sha256"].tobytes():
                    raise UserError(f"{pack}: {path} has changed since it was packed; {pack.remedy}")
        parts[content.name] = {"items": len(content.files), "files": n_files}
    return {"out": str(folder), "parts": parts}


def _contents(config: RunConfig) -> list[PackContent]:
    """The packs of a run, without duplicates."""
    contents = [_frames_content(open_frames(config.data, split), config) for split in ("train", "test")]
    if config.reads_teacher:
        contents.append(_maps_content(open_teacher(config)))
    return list({content.name: content for content in contents}.values())


def _frames_content(source: FrameSource, config: RunConfig) -> PackContent:
    made_from = config.data.root or config.data.dataset
    files = [source.files(index) for index in range(len(source))]
    digest = source.list_digest()
    return PackContent("frames", digest, pack_name("frames", digest), made_from, files, partial(_load_frame, source))


def _maps_content(maps: TeacherMaps) -> PackContent:
    keys = sorted(maps.keys)
    files = [[maps.path(key)] for key in keys]
    return PackContent(
        "maps",
        maps.digest(),
        pack_name("maps", maps.digest()),
        str(maps.folder),
        files,
        lambda index: _load_map(maps, keys[index]),
    )


def _load_frame(source: FrameSource, index: int) -> PackItem:
    frame = source.load(index)
    return PackItem(frame.image, frame.depth, frame.frame_size, frame.origin)


def _load_map(maps: TeacherMaps, key: str) -> PackItem:
    path = maps.path(key)
    depth = maps.load_stored(key, uint16_size(path, "teacher map"))
    if file_sha256(path).hex() != maps.manifest.frames[key]:
        raise UserError(f"teacher map {path}: does not match manifest.json; export the teacher again")
    return PackItem(None, depth)


# -- writing ---------------------------------------------------------------------------------------------------------------


def _write_pack(out: Path, content: PackContent) -> None:
    """Write a pack to a temporary folder, and rename that when it is complete."""
    is_new = not out.exists()
    partial_folder = out / f".{content.name}.{uuid.uuid4().hex}"
    try:
        partial_folder.mkdir(parents=True)
        _write_files(partial_folder, content)
        _rename(partial_folder, out / content.name)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise UserError(f"--out {out}: {content.name}: {error.strerror}; needed a disk with more space") from None
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
        if is_new and not any(out.iterdir()):
            out.rmdir()


def _rename(folder: Path, pack: Path) -> None:
    try:
        folder.rename(pack)
    except OSError:
        if not pack.is_dir():  # otherwise another process was faster
            raise


def _check_free_space(out: Path, contents: list[PackContent]) -> None:
    """Raise UserError unless there is space for the packs, assuming that all items are as large as the first."""
    needed = 0
    for content in contents:
        item = content.load(0)
        needed += len(content.files) * sum(array.nbytes for array in (item.image, item.depth.values) if array is not None)
    free = shutil.disk_usage(nearest_existing(out)).free
    if free < needed:
        raise UserError(f"--out {out}: needs {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free there")


def _write_files(folder: Path, content: PackContent) -> None:
    """Write the three files of a pack, the manifest last."""
    index = np.zeros(len(content.files), ITEM_DTYPE)
    first = content.load(0).depth
    with (folder / "pixels.bin").open("wb") as stream:
        for number, files in enumerate(track(content.files, content.name)):
            for source, path in zip(index["sources"][number], files, strict=False):
                status = path.stat()
                source["n_bytes"], source["mtime_ns"], source["sha256"] = status.st_size, status.st_mtime_ns, file_sha256(path)
            item = content.load(number)
            assert (item.depth.values.dtype, item.depth.unit) == (first.values.dtype, first.unit)
            _write_item(stream, index[number], item)
        n_bytes = stream.tell()
        os.fsync(stream.fileno())
    buffer = io.BytesIO()
    np.save(buffer, index)
    write_atomically(folder / "index.npy", buffer.getvalue())
    manifest = PackManifest.model_validate(
        {
            "format": PACK_FORMAT,
            "what": content.what,
            "digest": content.digest,
            "made_from": content.made_from,
            "depth_type": first.values.dtype.name,
            "unit": first.unit,
            "items": len(index),
            "n_bytes": n_bytes,
            "index": hashlib.sha256(buffer.getvalue()).hexdigest(),
        }
    )
    write_atomically(folder / "manifest.json", (manifest.model_dump_json(indent=1) + "\n").encode())


def _write_item(stream: BinaryIO, row: np.void, item: PackItem) -> None:
    image = b"" if item.image is None else item.image.tobytes()
    content = image + bytes(-len(image) % ALIGNMENT) + item.depth.values.tobytes()
    row["offset"], row["n_bytes"], row["sha256"] = stream.tell(), len(content), hashlib.sha256(content).digest()
    row["size"], row["frame_size"], row["origin"] = item.depth.values.shape, item.frame_size, item.origin
    stream.write(content + bytes(-len(content) % ALIGNMENT))
