"""What the finished blocks of a command leave until it ends, so that a killed one loses only the open blocks.

FOLDER/parts/<number>.json  of a finished block, written after its other files; deleted once the command's result is written
"""

import re
from collections.abc import Callable
from typing import Generic, TypeVar

from pydantic import BaseModel

from tiekd.store.run_store import RunStore

PARTS = "parts"
P = TypeVar("P", bound=BaseModel)


class BlockParts(Generic[P]):
    """The parts of numbered blocks, below a folder of a store.

    parse: raises ValueError for what is damaged. fits: whether a part is of the block with this number, as it is made today.
    """

    def __init__(self, store: RunStore, folder: str, parse: Callable[[bytes], P], fits: Callable[[int, P], bool]):
        self._store, self._folder = store, f"{folder}/{PARTS}" if folder else PARTS
        self._parse, self._fits = parse, fits

    def read(self, block: int) -> P | None:
        """The part of a finished block; None if the block is not finished, or its part is damaged or of other work."""
        try:
            part = self._parse(self._store.read_bytes(self._name(block)) or b"")
        except ValueError:
            return None
        return part if self._fits(block, part) else None

    def write(self, block: int, content: bytes) -> None:
        """Finish a block, all other files of which are written."""
        self._store.write_bytes(self._name(block), content)

    def delete_others(self) -> None:
        """Delete what does not fit. Must come before a file of a block is replaced, which an old part would vouch for."""
        for block in self._numbers():
            if self.read(block) is None:
                self._store.delete(self._name(block))

    def delete(self) -> None:
        """Delete all parts."""
        for block in self._numbers():
            self._store.delete(self._name(block))

    def _numbers(self) -> list[int]:
        names = self._store.list_files(self._folder)
        return [int(found[1]) for name in names if (found := re.fullmatch(r"(\d{6,})\.json", name))]

    def _name(self, block: int) -> str:
        return f"{self._folder}/{block:06d}.json"
