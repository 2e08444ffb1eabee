"""The files of packed data: decoded frames and teacher maps, which all processes that read them map into memory.

FOLDER/frames-<digest>/   a pack of the frames of one split; the digest is that of `FrameSource.list_digest`
FOLDER/maps-<digest>/     a pack of a teacher's maps; the digest is that of `MapSource.digest`
    manifest.json         see PackManifest
    index.npy             one row per item, see ITEM_DTYPE
    pixels.bin            the items: image (frames only) and depth, which starts at a multiple of ALIGNMENT

A pack is created by one rename, so it is complete or absent. Its bytes are stored as they are used: without compression, and an
item is a slice of the file, so the pixels outside a crop are never read. Raise PACK_FORMAT when the canonical view of a data
set, or how an image is decoded, changes.
"""

import hashlib
import mmap
import shlex
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tiekd.data.cache.file_digests import file_digests, file_sha256
from tiekd.data.image_io import Size, StoredDepth
from tiekd.errors import UserError
from tiekd.store.files import stat_signature

PACK_FORMAT = 2
ALIGNMENT = 64  # bytes
FILE_DTYPE = np.dtype([("n_bytes", "<i8"), ("mtime_ns", "<i8"), ("sha256", "V32")])
ITEM_DTYPE = np.dtype(
    [
        ("offset", "<i8"),  # in pixels.bin
        ("n_bytes", "<i8"),
        ("size", "<i4", 2),  # height, width of the view
        ("frame_size", "<i4", 2),  # of the frame before it was cropped to this view; 0 for maps
        ("origin", "<i4", 2),
        ("sha256", "V32"),  # of the item's bytes
        ("sources", FILE_DTYPE, 2),  # the files it was decoded from: image and depth, or map; 0 if there is none
    ]
)


class PackManifest(BaseModel):
    """The manifest of a pack."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    format: int = Field(ge=PACK_FORMAT, le=PACK_FORMAT, description="version of this layout")
    what: Literal["frames", "maps"]
    digest: str = Field(description="of the list of frames, or of the maps")
    made_from: str = Field(description="location of the packed files, for information")
    depth_type: Literal["uint16", "float32"]
    unit: float = Field(gt=0, description="m per value of a depth")
    items: int = Field(ge=1)
    n_bytes: int = Field(ge=1, description="of pixels.bin")
    index: str = Field(description="sha256 of index.npy")
    pixels: str | None = Field(None, description="sha256 of pixels.bin; missing in older packs")


class Pack:
    """The items of a pack, as read-only views of its file."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            self.manifest = self._read_manifest()
            found = file_sha256(folder / "index.npy").hex(), (folder / "pixels.bin").stat().st_size
        except FileNotFoundError as error:
            raise UserError(f"{self}: {Path(error.filename).name} is missing; {self.remedy}") from None
        if found != (self.manifest.index, self.manifest.n_bytes):
            raise UserError(f"{self}: index.npy or pixels.bin does not match the manifest; {self.remedy}")
        self.index = np.load(folder / "index.npy", mmap_mode="r").view(np.ndarray)  # rows of a memmap take 8 times as long
        with (folder / "pixels.bin").open("rb") as stream:
            self._bytes = np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

    def __str__(self) -> str:
        return f"packed data {self.folder}"

    @property
    def remedy(self) -> str:
        """What to do about an unusable pack, for messages."""
        return f"delete the folder, then `tiekd data pack CONFIG.yaml --out {shlex.quote(str(self.folder.parent))}`"

    def _read_manifest(self) -> PackManifest:
        try:
            return PackManifest.model_validate_json((self.folder / "manifest.json").read_bytes())
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = "".join(f"{part}: " for part in first["loc"])
            problem = f"not a manifest of format {PACK_FORMAT}: {where}{first['msg']}"
            raise UserError(f"{self}: {problem}; {self.remedy}") from None

    def pair(self, column: Literal["size", "frame_size", "origin"], index: int) -> tuple[int, int]:
        """Read a column of two numbers for an item."""
        first, second = self.index[column][index].tolist()
        return first, second

    def size(self, index: int) -> Size:
        """Return height and width of an item."""
        return self.pair("size", index)

    def image(self, index: int) -> np.ndarray:
        """Return the image of a frame, uint8 [H, W, 3]."""
        height, width = self.size(index)
        return self._item(index)[: height * width * 3].reshape(height, width, 3)

    def depth(self, index: int) -> StoredDepth:
        """Return the depth of a frame or map, [H, W]."""
        size, dtype = self.size(index), np.dtype(self.manifest.depth_type)
        values = self._item(index)[-size[0] * size[1] * dtype.itemsize :].view(dtype)
        return StoredDepth(values.reshape(size), self.manifest.unit)

    def sha256(self, index: int) -> bytes:
        """Hash the bytes of an item as they are now; the index has the hash of the bytes that were written."""
        return hashlib.sha256(self._item(index).data).digest()

    def _item(self, index: int) -> np.ndarray:
        return self._bytes[self.index["offset"][index] :][: self.index["n_bytes"][index]]

    def source_digests(self) -> list[list[str]]:
        """Return the SHA-256 of the files that each item was decoded from, as they were when it was packed."""
        return [[file["sha256"].tobytes().hex() for file in files if file["n_bytes"]] for files in self.index["sources"]]

    def check_pixels(self) -> None:
        """Raise UserError if pixels.bin has changed since it was packed. It is read once, as other inputs are."""
        if self.manifest.pixels and file_digests(self.folder, ["pixels.bin"]) != [self.manifest.pixels]:
            raise UserError(f"{self}: pixels.bin has changed since it was packed; {self.remedy}")

    def check_sources(self, files: Mapping[int, list[Path]]) -> None:
        """Raise UserError if a file (by the index of its item) has changed since it was packed. Files may be missing."""
        for index, paths in files.items():
            for path, packed in zip(paths, self.index["sources"][index], strict=False):
                if not is_unchanged(path, packed):
                    raise UserError(f"{self}: {path} has changed since it was packed; {self.remedy}")


def is_unchanged(path: Path, packed: np.void) -> bool:
    """Compare size and time; if only the time differs, as for a copy, compare the content."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return True
    if found.st_size != packed["n_bytes"]:
        return False
    return found.st_mtime_ns == packed["mtime_ns"] or file_sha256(path) == packed["sha256"].tobytes()


def open_pack(folder: Path, name: str) -> Pack:
    """Open a pack by name; a process opens it once, and again when its manifest has changed.

    Raises UserError if it is missing or unusable.
    """
    if not folder.is_dir():
        raise UserError(
            f"packed data {folder}: no such folder; `tiekd data pack CONFIG.yaml --out {shlex.quote(str(folder))}` creates it"
        )
    pack = folder / name
    if not pack.is_dir():
        found = ", ".join(sorted(path.parent.name for path in folder.glob("[!.]*/manifest.json"))) or "nothing"
        command = f"tiekd data pack CONFIG.yaml --out {shlex.quote(str(folder))}"
        raise UserError(f"packed data {folder}: needed {name}, found {found}; `{command}` adds it")
    manifest = pack / "manifest.json"
    return _open(pack, stat_signature(manifest) if manifest.is_file() else 0)


@lru_cache(maxsize=16)
def _open(folder: Path, signature: int) -> Pack:
    return Pack(folder)
