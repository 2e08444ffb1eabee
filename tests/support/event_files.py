"""Read TensorBoard files."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event


def values_in(folder: Path) -> Iterator[tuple[Any, int]]:
    """Read all values and their steps of a folder's event files: records of length, checksum, event, checksum."""
    for path in folder.rglob("events*"):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (size,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + size])
            yield from ((value, event.step) for value in event.summary.value)
            place += 16 + size


def scalars_in(folder: Path) -> list[tuple[str, int, float]]:
    """All scalars as (tag, step, value)."""
    return [(v.tag, step, v.simple_value) for v, step in values_in(folder) if v.HasField("simple_value")]
