"""The files of packed data: decoded frames and teacher maps, mapped into memory by all processes that read them.

FOLDER/frames-<digest>/   the frames of one split; the digest is that of `FrameSource.digest`
FOLDER/maps-<digest>/     a teacher's maps; the digest is that of `TeacherMaps.digest`
    manifest.json         what this is
    index.npy             a row per item, see ITEM
    pixels.bin            the items: image (of frames), then, from a multiple of ALIGNED on, depth

Such a part appears by one rename, so it is whole or absent. Bytes lie there as they are used: nothing is compressed, an item is
one offset, and what a crop does not show is never read. Raise FORMAT when the canonical view of a data set changes.
"""

import hashlib
import mmap
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tiekd.data.image_io import Size, StoredDepth
from tiekd.errors import UserError
from tiekd.store.files import stat_signature

FORMAT = 1
ALIGNED = 64  # bytes
SOURCE = np.dtype([("n_bytes", "<i8"), ("mtime_ns", "<i8"), ("sha256", "V32")])
ITEM = np.dtype(
    [
        ("offset", "<i8"),  # in pixels.bin
        ("n_bytes", "<i8"),
        ("size", "<i4", 2),  # height, width of the view
        ("frame_size", "<i4", 2),  # of the frame before it was cut to this view; 0 for maps
        ("origin", "<i4", 2),
        ("sha256", "V32"),  # of the item's bytes
        ("sources", SOURCE, 2),  # the files it was made from: image and depth, or map; all 0 where there is none
    ]
)


class Manifest(BaseModel):
    """What a part holds."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    format: int = Field(ge=FORMAT, le=FORMAT, description="version of this layout")
    what: Literal["frames", "maps"]
    digest: str = Field(description="of the frames or maps, as in a run's identity")
    made_from: str = Field(description="where they lay; for people")
    depth_type: Literal["uint16", "float32"]
    unit: float = Field(gt=0, description="m per value of a depth")
    items: int = Field(ge=1)
    n_bytes: int = Field(ge=1, description="of pixels.bin")
    index: str = Field(description="sha256 of index.npy")


class Part:
    """The items of a part; their arrays are read-only views of the file."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            self.manifest = self._read_manifest()
            found = digest_of(folder / "index.npy").hex(), (folder / "pixels.bin").stat().st_size
        except FileNotFoundError as error:
            raise UserError(f"{self}: {Path(error.filename).name} is missing; {self.again}") from None
        if found != (self.manifest.index, self.manifest.n_bytes):
            raise UserError(f"{self}: index.npy or pixels.bin is not the one of the manifest; {self.again}")
        self.index = np.load(folder / "index.npy", mmap_mode="r").view(np.ndarray)  # a memmap takes 8 times as long per row
        with (folder / "pixels.bin").open("rb") as stream:
            self._bytes = np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

    def __str__(self) -> str:
        return f"packed data {self.folder}"

    @property
    def again(self) -> str:
        """What to do about a part that is of no use."""
        return f"delete the folder, then `tiekd data pack CONFIG.yaml --out {self.folder.parent}`"

    def _read_manifest(self) -> Manifest:
        try:
            return Manifest.model_validate_json((self.folder / "manifest.json").read_bytes())
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = "".join(f"{part}: " for part in first["loc"])
            problem = f"not a manifest of format {FORMAT}: {where}{first['msg']}"
            raise UserError(f"{self}: {problem}; {self.again}") from None

    def size(self, index: int) -> Size:
        return self.pair("size", index)

    def pair(self, column: str, index: int) -> tuple[int, int]:
        """A column of two numbers."""
        first, second = self.index[column][index].tolist()
        return first, second

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3] of a frame."""
        height, width = self.size(index)
        return self._item(index)[: height * width * 3].reshape(height, width, 3)

    def depth(self, index: int) -> StoredDepth:
        """Of a frame or map, [H, W]."""
        size, kind = self.size(index), np.dtype(self.manifest.depth_type)
        return StoredDepth(self._item(index)[-size[0] * size[1] * kind.itemsize :].view(kind).reshape(size), self.manifest.unit)

    def digest(self, index: int) -> bytes:
        """Of an item's bytes as they are now; the index has that of when they were written."""
        return hashlib.sha256(self._item(index)).digest()

    def _item(self, index: int) -> np.ndarray:
        return self._bytes[self.index["offset"][index] :][: self.index["n_bytes"][index]]

    def check_sources(self, files: Mapping[int, list[Path]]) -> None:
        """Raise a `UserError` if one of the files is not what an item was made from. They need not be there any more."""
        for index, paths in files.items():
            for path, packed in zip(paths, self.index["sources"][index], strict=False):
                if not _unchanged(path, packed):
                    raise UserError(f"{self}: {path} has changed since it was packed; {self.again}")


def digest_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _unchanged(path: Path, packed: np.void) -> bool:
    """By size and time; where only the time differs, by content, since copies are younger."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return True
    if found.st_size != packed["n_bytes"]:
        return False
    return found.st_mtime_ns == packed["mtime_ns"] or digest_of(path) == packed["sha256"].tobytes()


def find_part(folder: Path, name: str) -> Part:
    """The part of a name, or a `UserError`; a process opens it once, and again when its manifest has changed."""
    if not folder.is_dir():
        raise UserError(f"packed data {folder}: no such folder; `tiekd data pack CONFIG.yaml --out {folder}` makes it")
    part = folder / name
    if not part.is_dir():
        held = ", ".join(sorted(path.parent.name for path in folder.glob("[!.]*/manifest.json"))) or "nothing"
        raise UserError(
            f"packed data {folder}: needed {name}, found {held}; `tiekd data pack CONFIG.yaml --out {folder}` adds it"
        )
    manifest = part / "manifest.json"
    return _opened(part, stat_signature(manifest) if manifest.is_file() else 0)


@lru_cache(maxsize=16)
def _opened(folder: Path, manifest_stamp: int) -> Part:
    return Part(folder)
