"""Write packed data, and compare packed data with the files they were made from."""

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from tiekd.config import RunConfig, override
from tiekd.data import check_inputs, open_frames
from tiekd.data.cache.pack_format import ALIGNMENT, ITEM_DTYPE, PACK_FORMAT, PackManifest, file_sha256, is_unchanged, open_pack
from tiekd.data.cache.pack_reader import pack_name
from tiekd.data.frame_source import FrameSource
from tiekd.data.image_io import Size, StoredDepth, uint16_size
from tiekd.data.inputs import open_teacher
from tiekd.data.progress import Pool, in_this_process, track
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.errors import UserError
from tiekd.store.files import check_output_folder, nearest_existing, write_atomically

BLOCK_ITEMS = 64
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
    size: Callable[[int], Size]  # of an item, from the headers of its files
    load: Callable[[int], PackItem]


def write_packs(config: RunConfig, out: Path, pool: Pool = in_this_process) -> dict[str, Any]:
    """Pack the frames of a run and, if it reads a teacher, the maps. Existing packs are kept.

    Goes on with what a killed process has left. The packs are the same for any pool. Returns the number of items and bytes of
    each pack, and whether it is new. Raises UserError for a mistake or a full disk, and then leaves no unfinished pack behind.
    """
    config = override(config, {"execution.packed": None})
    check_packing(config, out)
    contents = _contents(config)
    new = [content for content in contents if not (out / content.name).is_dir()]
    _check_free_space(out, new)
    parts = {}
    for content in contents:
        if content in new:
            _write_pack(config, out, content, pool)
        pack = open_pack(out, content.name)
        pack.check_sources(dict(enumerate(content.files)))  # an older pack may be of other files with the same names
        manifest = pack.manifest
        parts[content.name] = {"items": manifest.items, "bytes": manifest.n_bytes, "new": content in new}
    return {"out": str(out), "parts": parts}


def check_packing(config: RunConfig, out: Path) -> None:
    """Raise UserError if an input of a run is missing, or if nothing can be written to `out`."""
    check_inputs(override(config, {"execution.packed": None}))
    check_output_folder(out, "--out")


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
    name = pack_name("frames", digest)
    return PackContent("frames", digest, name, made_from, files, source.size, partial(_load_frame, source))


def _maps_content(maps: TeacherMaps) -> PackContent:
    keys = sorted(maps.keys)
    files = [[maps.path(key)] for key in keys]
    return PackContent(
        "maps",
        maps.digest(),
        pack_name("maps", maps.digest()),
        str(maps.folder),
        files,
        lambda index: uint16_size(maps.path(keys[index]), "teacher map"),
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


@dataclass(frozen=True)
class _Block:
    """Consecutive items of a pack, and their place in its file."""

    number: int
    items: range
    start: int  # bytes
    stop: int


@dataclass(frozen=True)
class _PackTask:
    """Writes blocks of a pack into a folder, in any process.

    FOLDER/pixels.bin          has its final size from the beginning
    FOLDER/parts/<number>.npy  the rows of the index of a finished block; deleted once the index is written
    """

    config: RunConfig
    name: str  # of the pack
    folder: Path

    def start(self) -> Callable[[_Block], Iterator[None]]:
        (content,) = (content for content in _contents(self.config) if content.name == self.name)
        return partial(self._write, content)

    def _write(self, content: PackContent, block: _Block) -> Iterator[None]:
        rows = np.zeros(len(block.items), ITEM_DTYPE)
        with (self.folder / "pixels.bin").open("r+b") as stream:
            stream.seek(block.start)
            for row, number in zip(rows, block.items, strict=True):
                for source, path in zip(row["sources"], content.files[number], strict=False):
                    status = path.stat()
                    source["n_bytes"], source["mtime_ns"], source["sha256"] = (
                        status.st_size,
                        status.st_mtime_ns,
                        file_sha256(path),
                    )
                _write_item(stream, row, content.load(number))
                yield
            if stream.tell() != block.stop:
                raise UserError(f"{content.name}: the files of items {block.items} have changed while they were packed")
            os.fsync(stream.fileno())
        write_atomically(self.part(block), _npy(rows))

    def rows(self, content: PackContent, block: _Block) -> np.ndarray | None:
        """The rows of a finished block; None if it is not finished, or if one of its files has changed since."""
        try:
            rows = np.load(self.part(block))
        except (FileNotFoundError, ValueError, EOFError):
            return None
        if rows.dtype != ITEM_DTYPE or len(rows) != len(block.items) or rows["offset"][0] != block.start:
            return None
        packed = ((content.files[number], row["sources"]) for number, row in zip(block.items, rows, strict=True))
        pairs = (pair for files, sources in packed for pair in zip(files, sources, strict=False))
        return rows if all(is_unchanged(path, source) for path, source in pairs) else None

    def part(self, block: _Block) -> Path:
        return self.folder / f"parts/{block.number:06d}.npy"


def _write_pack(config: RunConfig, out: Path, content: PackContent, pool: Pool) -> None:
    """Write a pack to a hidden folder, and rename that when it is complete. A killed process leaves the folder."""
    is_new = not out.exists()
    folder = out / f".{content.name}.{PACK_FORMAT}"
    try:
        _write_files(_PackTask(config, content.name, folder), content, pool)
        folder.rename(out / content.name)
    except Exception as error:
        if (out / content.name).is_dir():
            return  # another process was faster
        shutil.rmtree(folder, ignore_errors=True)
        if is_new and not any(out.iterdir()):
            out.rmdir()
        if not isinstance(error, OSError) or error.errno not in DISK_FULL:
            raise
        raise UserError(f"--out {out}: {content.name}: {error.strerror}; needed a disk with more space") from None


def _check_free_space(out: Path, contents: list[PackContent]) -> None:
    """Raise UserError unless there is space for the packs, assuming that all items are as large as the first."""
    needed = 0
    for content in contents:
        item = content.load(0)
        needed += len(content.files) * sum(array.nbytes for array in (item.image, item.depth.values) if array is not None)
    free = shutil.disk_usage(nearest_existing(out)).free
    if free < needed:
        raise UserError(f"--out {out}: needs {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free there")


def _write_files(task: _PackTask, content: PackContent, pool: Pool) -> None:
    """Write the three files of a pack, the manifest last."""
    folder, first = task.folder, content.load(0)
    blocks = _plan(content, first)
    pixels = folder / "pixels.bin"
    if not pixels.is_file() or pixels.stat().st_size != blocks[-1].stop:
        shutil.rmtree(folder / "parts", ignore_errors=True)  # of blocks whose pixels are lost
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    with pixels.open("ab") as stream:
        stream.truncate(blocks[-1].stop)
    todo = [block for block in blocks if task.rows(content, block) is None]
    for _ in track(pool(task.start, todo), content.name, sum(len(block.items) for block in todo)):
        pass
    index = _npy(np.concatenate([np.load(task.part(block)) for block in blocks]))
    write_atomically(folder / "index.npy", index)
    manifest = PackManifest.model_validate(
        {
            "format": PACK_FORMAT,
            "what": content.what,
            "digest": content.digest,
            "made_from": content.made_from,
            "depth_type": first.depth.values.dtype.name,
            "unit": first.depth.unit,
            "items": len(content.files),
            "n_bytes": blocks[-1].stop,
            "index": hashlib.sha256(index).hexdigest(),
            "pixels": file_sha256(pixels).hex(),
        }
    )
    write_atomically(folder / "manifest.json", (manifest.model_dump_json(indent=1) + "\n").encode())
    shutil.rmtree(folder / "parts")


def _plan(content: PackContent, first: PackItem) -> list[_Block]:
    """Divide the items of a pack into blocks, and find their places from the headers of their files."""
    channels, depth_bytes = 0 if first.image is None else 3, first.depth.values.dtype.itemsize
    areas = (height * width for height, width in map(content.size, range(len(content.files))))
    ends = [0, *accumulate(_padded(_padded(channels * area) + depth_bytes * area) for area in areas)]
    starts = range(0, len(content.files), BLOCK_ITEMS)
    items = [range(start, min(start + BLOCK_ITEMS, len(content.files))) for start in starts]
    return [_Block(number, each, ends[each.start], ends[each.stop]) for number, each in enumerate(items)]


def _padded(n_bytes: int) -> int:
    return n_bytes + -n_bytes % ALIGNMENT


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _write_item(stream: BinaryIO, row: np.void, item: PackItem) -> None:
    image = b"" if item.image is None else item.image.tobytes()
    content = image + bytes(-len(image) % ALIGNMENT) + item.depth.values.tobytes()
    row["offset"], row["n_bytes"], row["sha256"] = stream.tell(), len(content), hashlib.sha256(content).digest()
    row["size"], row["frame_size"], row["origin"] = item.depth.values.shape, item.frame_size, item.origin
    stream.write(content + bytes(-len(content) % ALIGNMENT))
