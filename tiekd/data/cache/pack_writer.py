"""Decoded frames and teacher maps into packed data, and packed data against what they were made from."""

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
from rich.console import Console
from rich.progress import track

from tiekd.config import RunConfig, override
from tiekd.data import check_inputs, open_inputs
from tiekd.data.cache.pack_format import ALIGNED, FORMAT, ITEM, Manifest, digest_of, find_part
from tiekd.data.cache.pack_reader import part_name
from tiekd.data.frame_source import FrameSource
from tiekd.data.image_io import Size, StoredDepth, uint16_size
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.errors import UserError
from tiekd.store.files import check_output_folder, nearest_existing, write_atomically

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Item(NamedTuple):
    """A frame or a map on its way into a part."""

    image: np.ndarray | None  # of a frame
    depth: StoredDepth
    frame_size: Size = (0, 0)
    origin: tuple[int, int] = (0, 0)


class Content(NamedTuple):
    """What a part is made from."""

    what: Literal["frames", "maps"]
    packed: FrameSource | TeacherMaps
    place: str
    files: list[list[Path]]  # of each item
    load: Callable[[int], Item]

    @property
    def name(self) -> str:
        return part_name(self.what, self.packed)


def pack(config: RunConfig, out: Path, quiet: bool = False) -> dict[str, Any]:
    """Pack the run's frames and, where it reads a teacher, its maps. Parts that are there already are not made again.

    Returns items and bytes of each part, and whether it was made now. A mistake, or a disk without room, is a `UserError` and
    leaves nothing that looks finished.
    """
    config = override(config, {"execution.packed": None})
    check_inputs(config)
    check_output_folder(out, "--out")
    contents = _contents(config)
    new = [content for content in contents if not (out / content.name).is_dir()]
    _check_room(out, new)
    parts = {}
    for content in contents:
        if content in new:
            _write_part(out, content, quiet)
        manifest = find_part(out, content.name).manifest
        parts[content.name] = {"items": manifest.items, "bytes": manifest.n_bytes, "new": content in new}
    return {"out": str(out), "parts": parts}


def check_pack(config: RunConfig, folder: Path, quiet: bool = False) -> dict[str, Any]:
    """Read every byte of a run's packed data, and of those files that they were made from and that are there still.

    Returns items and files of each part; the first difference is a `UserError`.
    """
    parts = {}
    for content in _contents(override(config, {"execution.packed": None})):
        part, found = find_part(folder, content.name), 0
        for number, files in enumerate(_shown(content.files, content.name, quiet)):
            row = part.index[number]
            if part.digest(number) != row["sha256"].tobytes():
                raise UserError(f"{part}: item {number} is not what was packed; {part.again}")
            sources = [(path, source) for path, source in zip(files, row["sources"], strict=False) if path.is_file()]
            found += len(sources)
            for path, source in sources:
                if digest_of(path) != source["sha256"].tobytes():
                    raise UserError(f"{part}: {path} has changed since it was packed; {part.again}")
        parts[content.name] = {"items": len(content.files), "files": found}
    return {"out": str(folder), "parts": parts}


def _contents(config: RunConfig) -> list[Content]:
    """The parts of a run's packed data; what is in two splits is there once."""
    train, test, maps = open_inputs(config)
    place = config.data.root or config.data.dataset
    found = [
        Content("frames", source, place, [source.files(i) for i in range(len(source))], partial(_frame, source))
        for source in (train, test)
    ]
    if maps:
        keys = sorted(maps.keys)
        found.append(Content("maps", maps, str(maps.folder), [[maps.path(k)] for k in keys], lambda i: _map(maps, keys[i])))
    return list({content.name: content for content in found}.values())


def _frame(source: FrameSource, index: int) -> Item:
    frame = source.load(index)
    return Item(frame.image, frame.depth, frame.frame_size, frame.origin)


def _map(maps: TeacherMaps, key: str) -> Item:
    path = maps.path(key)
    depth = maps.stored(key, uint16_size(path, "teacher map"))
    if digest_of(path).hex() != maps.manifest.frames[key]:
        raise UserError(f"teacher map {path}: not the one that manifest.json names; export the teacher again")
    return Item(None, depth)


# -- writing ---------------------------------------------------------------------------------------------------------------


def _write_part(out: Path, content: Content, quiet: bool) -> None:
    """A part, through a folder that is renamed when it is whole."""
    is_new = not out.exists()
    partial_folder = out / f".{content.name}.{uuid.uuid4().hex}"
    try:
        partial_folder.mkdir(parents=True)
        _write_items(partial_folder, content, quiet)
        _rename(partial_folder, out / content.name)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(f"--out {out}: {content.name}: {error.strerror}; needed a place with more room") from None
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
        if is_new and not any(out.iterdir()):
            out.rmdir()


def _rename(folder: Path, part: Path) -> None:
    try:
        folder.rename(part)
    except OSError:
        if not part.is_dir():  # else another process was faster
            raise


def _check_room(out: Path, contents: list[Content]) -> None:
    """Raise a `UserError` unless there is room for parts whose items are all as large as their first."""
    needed = 0
    for content in contents:
        item = content.load(0)
        needed += len(content.files) * sum(array.nbytes for array in (item.image, item.depth.values) if array is not None)
    free = shutil.disk_usage(nearest_existing(out)).free
    if free < needed:
        raise UserError(f"--out {out}: needs {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free there")


def _write_items(folder: Path, content: Content, quiet: bool) -> None:
    index = np.zeros(len(content.files), ITEM)
    first = content.load(0).depth
    with (folder / "pixels.bin").open("wb") as stream:
        for number, files in enumerate(_shown(content.files, content.name, quiet)):
            for source, path in zip(index["sources"][number], files, strict=False):
                status = path.stat()
                source["n_bytes"], source["mtime_ns"], source["sha256"] = status.st_size, status.st_mtime_ns, digest_of(path)
            item = content.load(number)
            assert (item.depth.values.dtype, item.depth.unit) == (first.values.dtype, first.unit)
            _write_item(stream, index[number], item)
        n_bytes = stream.tell()
        os.fsync(stream.fileno())
    buffer = io.BytesIO()
    np.save(buffer, index)
    write_atomically(folder / "index.npy", buffer.getvalue())
    manifest = Manifest(
        format=FORMAT,
        what=content.what,
        digest=content.packed.digest(),
        made_from=content.place,
        depth_type=first.values.dtype.name,
        unit=first.unit,
        items=len(index),
        n_bytes=n_bytes,
        index=hashlib.sha256(buffer.getvalue()).hexdigest(),
    )
    write_atomically(folder / "manifest.json", (manifest.model_dump_json(indent=1) + "\n").encode())


def _write_item(stream: BinaryIO, row: np.void, item: Item) -> None:
    image = b"" if item.image is None else item.image.tobytes()
    content = image + bytes(-len(image) % ALIGNED) + item.depth.values.tobytes()
    row["offset"], row["n_bytes"], row["sha256"] = stream.tell(), len(content), hashlib.sha256(content).digest()
    row["size"], row["frame_size"], row["origin"] = item.depth.values.shape, item.frame_size, item.origin
    stream.write(content + bytes(-len(content) % ALIGNED))


def _shown(files: list[list[Path]], name: str, quiet: bool) -> Any:
    """The files of each item, with a progress bar on a terminal."""
    console = Console(stderr=True)
    return track(files, name, console=console, transient=True, disable=quiet or not console.is_terminal)
