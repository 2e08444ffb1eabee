"""Teacher maps made block by block, by one process or by several that share the blocks; a killed one loses the open block.

Processes that know nothing of each other, as of two launches, may make the same maps: none makes a block that another one has
finished, and what the later of two makes of one block is dropped.

FOLDER/<key>.png            the maps
FOLDER/parts/<number>.json  what the manifest will say of a finished block; see `BlockParts`
FOLDER/manifest.json        written last
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from tiekd.data.image_io import format_size
from tiekd.data.teacher_maps import MANIFEST, encode_map, is_manifest, manifest_bytes
from tiekd.store.block_parts import BlockParts
from tiekd.store.run_store import RunStore

BLOCK_FRAMES = 64
T = TypeVar("T")


class _Part(BaseModel):
    """A finished block."""

    model_config = ConfigDict(frozen=True)

    maps_id: str
    sizes: dict[str, int]
    frames: dict[str, str]


def in_blocks(items: Sequence[T]) -> list[list[T]]:
    """Divide items into blocks of BLOCK_FRAMES; the last one may be smaller."""
    return [list(items[start : start + BLOCK_FRAMES]) for start in range(0, len(items), BLOCK_FRAMES)]


class MapBlocks:
    """The maps of `keys` below a folder of a store, made for `maps_id`: blocks that were made for another id are made again."""

    def __init__(self, store: RunStore, folder: str, keys: Sequence[str], max_depth: float, maps_id: str):
        self._store, self._folder, self._max_depth, self._maps_id = store, folder, max_depth, maps_id
        self._blocks = in_blocks(keys)
        self._block = {key: index // BLOCK_FRAMES for index, key in enumerate(keys)}
        self._parts = BlockParts(store, folder, _Part.model_validate_json, self._fits)
        self._open: dict[str, tuple[bytes, str]] = {}  # encoded maps of the open block, and their sizes

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def complete(self) -> bool:
        """Whether the manifest is written."""
        return is_manifest(self._store.read_bytes(self._name(MANIFEST)))

    def keys(self, block: int) -> list[str]:
        """The frames of a block."""
        return self._blocks[block]

    def number(self, key: str) -> int:
        """The block of a frame."""
        return self._block[key]

    def unfinished(self) -> list[int]:
        """The blocks that have to be made, by reading what the finished ones have left."""
        return [block for block in range(len(self)) if self._parts.read(block) is None]

    def is_finished(self, block: int) -> bool:
        """Whether a block is finished now, perhaps by another process, or the manifest has replaced what says so."""
        return self._parts.read(block) is not None or self.complete

    def start_afresh(self) -> None:
        """Delete the manifest, so that the folder counts as unfinished, and what blocks of other maps have left."""
        self._store.delete(self._name(MANIFEST))
        self._parts.delete_others()

    def write(self, key: str, depth: np.ndarray) -> None:
        """Add the map of a frame [H, W] m, finite; depths outside 0 .. max_depth are clamped. Frames of a block are in order.

        With the last one, the block is written, unless another process has finished it meanwhile: its maps may differ by a
        rounding, and those in the manifest must stay.
        """
        self._open[key] = encode_map(key, depth, self._max_depth), format_size((depth.shape[0], depth.shape[1]))
        block = self._block[key]
        if list(self._open) != self.keys(block):
            return
        if not self.is_finished(block):
            for name, (content, _) in self._open.items():
                self._store.write_bytes(self._name(f"{name}.png"), content)
            frames = {name: hashlib.sha256(content).hexdigest() for name, (content, _) in self._open.items()}
            part = _Part(maps_id=self._maps_id, sizes=Counter(size for _, size in self._open.values()), frames=frames)
            self._parts.write(block, part.model_dump_json().encode())
        self._open = {}

    def close(self, made_by: Mapping[str, Any]) -> bool:
        """Write the manifest if every block is finished; returns whether it is. Of several processes, the last one does it."""
        parts = [self._parts.read(block) for block in range(len(self))]
        frames: dict[str, str] = {}
        sizes: Counter[str] = Counter()
        for part in parts:
            if part is None:
                return self.complete
            frames |= part.frames
            sizes.update(part.sizes)
        self._store.write_bytes(self._name(MANIFEST), manifest_bytes(self._max_depth, made_by, sizes, frames))
        self._parts.delete()
        return True

    def _fits(self, block: int, part: _Part) -> bool:
        return part.maps_id == self._maps_id and block < len(self) and list(part.frames) == self.keys(block)

    def _name(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name
