"""Teacher maps that are made block by block."""

import numpy as np
import pytest

from tiekd.data.teacher_maps import MapWriter, TeacherMaps
from tiekd.data.teacher_maps.blocks import BLOCK_FRAMES, MapBlocks
from tiekd.store.run_store import RunStore

KEYS = [f"scene/{index:04d}" for index in range(2 * BLOCK_FRAMES + 5)]


def depth_of(key: str) -> np.ndarray:
    return np.full((4, 6), 1 + KEYS.index(key) / 100, np.float32)


def blocks_in(folder, maps_id="id", keys=KEYS) -> MapBlocks:
    return MapBlocks(RunStore(folder), "maps/id", keys, 10.0, maps_id)


def write(blocks: MapBlocks, *numbers: int) -> None:
    for number in numbers:
        for key in blocks.keys(number):
            blocks.write(key, depth_of(key))


def test_maps_made_in_blocks_are_those_that_are_written_at_once(tmp_path):
    blocks = blocks_in(tmp_path)
    write(blocks, 0, 1, 2)
    assert blocks.close({"teacher": "t"})
    with MapWriter(tmp_path / "whole", 10.0, {"teacher": "t"}) as writer:
        for key in KEYS:
            writer.write(key, depth_of(key))
    made, whole = TeacherMaps(tmp_path / "maps/id"), TeacherMaps(tmp_path / "whole")
    assert made.digest() == whole.digest()
    assert made.manifest == whole.manifest
    assert not list((tmp_path / "maps/id/parts").glob("*"))


def test_there_is_no_manifest_before_the_last_block(tmp_path):
    blocks = blocks_in(tmp_path)
    write(blocks, 2, 0)
    assert not blocks.close({})
    assert not blocks.complete
    assert blocks_in(tmp_path).unfinished() == [1]
    write(blocks, 1)
    assert blocks.close({})
    assert blocks_in(tmp_path).complete


def test_an_interrupted_block_is_made_again_and_finished_ones_are_kept(tmp_path):
    blocks = blocks_in(tmp_path)
    write(blocks, 0)
    for key in blocks.keys(1)[:-1]:  # then the process is killed
        blocks.write(key, depth_of(key))
    finished = tmp_path / f"maps/id/{KEYS[0]}.png"
    before = finished.stat().st_mtime_ns
    again = blocks_in(tmp_path)
    assert again.unfinished() == [1, 2]
    write(again, *again.unfinished())
    assert again.close({})
    assert finished.stat().st_mtime_ns == before
    assert TeacherMaps(tmp_path / "maps/id").keys == KEYS


@pytest.mark.parametrize("damage", [b"", b"{", b'{"maps_id": "id", "sizes": {}, "frames": {}}'])
def test_a_block_whose_record_is_damaged_is_made_again(tmp_path, damage):
    blocks = blocks_in(tmp_path)
    write(blocks, 0, 1)
    (tmp_path / "maps/id/parts/000001.json").write_bytes(damage)
    assert blocks_in(tmp_path).unfinished() == [1, 2]


def test_blocks_of_other_maps_or_other_frames_do_not_count(tmp_path):
    write(blocks_in(tmp_path), 0, 1)
    assert blocks_in(tmp_path, maps_id="other").unfinished() == [0, 1, 2]
    assert blocks_in(tmp_path, keys=["new", *KEYS]).unfinished() == [0, 1, 2]
    assert blocks_in(tmp_path).unfinished() == [2]


def test_a_block_that_other_maps_have_replaced_in_part_does_not_count(tmp_path):
    """They begin afresh, and are killed while they write the files of their first block."""
    write(blocks_in(tmp_path), 0, 1)
    blocks_in(tmp_path, maps_id="other").start_afresh()
    assert blocks_in(tmp_path).unfinished() == [0, 1, 2]


def test_of_two_processes_that_share_the_blocks_the_last_writes_the_manifest(tmp_path):
    first, second = blocks_in(tmp_path), blocks_in(tmp_path)
    write(second, 1)
    assert not second.close({})
    write(first, 0, 2)
    assert first.close({})
    assert second.close({})  # finds that the other one has finished
    assert TeacherMaps(tmp_path / "maps/id").keys == KEYS
