import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tiekd.data.cache import file_digests as module
from tiekd.data.cache.file_digests import file_digests
from tiekd.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two files, with a cache of their own; and what is read from them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "SETTLING_TIME", 0)  # otherwise new files are read again for two seconds
    folder = tmp_path / "data"
    (folder / "room").mkdir(parents=True)
    for name in ("a.png", "room/b.png"):
        (folder / name).write_bytes(name.encode())
    time.sleep(0.02)  # more than the resolution of a file's times
    return folder


@pytest.fixture
def read(monkeypatch):
    """The files that are read."""
    names, sha256 = [], module.file_sha256
    monkeypatch.setattr(module, "file_sha256", lambda path: names.append(os.path.basename(path)) or sha256(path))
    return names


def new_process():
    module._known.clear()


NAMES = ["room/b.png", "a.png"]


def digests_of(folder):
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in NAMES]


def test_a_file_is_read_once_by_all_processes(folder, read):
    assert file_digests(folder, NAMES) == digests_of(folder)
    assert sorted(read) == ["a.png", "b.png"]
    new_process()
    assert file_digests(folder, NAMES) == digests_of(folder)
    assert len(read) == 2


def test_a_changed_file_is_read_again_whatever_its_time_and_size(folder, read):
    before = (folder / "a.png").stat()
    file_digests(folder, NAMES)
    (folder / "a.png").write_bytes(b"A.png")  # as long as it was
    os.utime(folder / "a.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        assert file_digests(folder, NAMES) == digests_of(folder)
        new_process()
    assert sorted(read) == ["a.png", "a.png", "b.png"]


def test_a_file_that_has_just_changed_is_not_trusted(folder, read, monkeypatch):
    monkeypatch.setattr(module, "SETTLING_TIME", 10**12)
    for _ in range(2):
        file_digests(folder, ["a.png"])
    assert read == ["a.png", "a.png"]


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"a.png": [[1, 2], "00"]}', b"\xff\x00", b'{"a.png": 3'], ids=repr)
def test_a_damaged_cache_is_made_again(folder, read, content):
    file_digests(folder, NAMES)
    (cache,) = (folder.parent / "cache/tiekd/digests").iterdir()
    cache.write_bytes(content)
    for _ in range(2):
        new_process()
        assert file_digests(folder, NAMES) == digests_of(folder)
    assert len(read) == 4


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
def test_a_process_without_a_cache_reads_files_once(folder, read, monkeypatch, variable):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative, which does not count")
    monkeypatch.setenv(variable, "/proc/none")
    for _ in range(2):
        assert file_digests(folder, NAMES) == digests_of(folder)
    assert len(read) == 2


def test_processes_that_write_at_the_same_time_leave_a_cache_that_can_be_read(folder):
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: (new_process(), file_digests(folder, NAMES))[1], range(40)))
    assert found == [digests_of(folder)] * 40
    assert [path.suffix for path in (folder.parent / "cache/tiekd/digests").iterdir()] == [".json"]


def test_a_long_reading_is_announced_and_a_missing_cache_too(folder, monkeypatch, caplog):
    monkeypatch.setattr(module, "ANNOUNCE", 3)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    file_digests(folder, NAMES)
    first, second = caplog.messages
    assert first == f"{folder}: reading 2 files, 0.0 GB, to know their content; digests are kept"
    assert second.startswith("digests cannot be kept, so every launch reads all files: /proc/none/tiekd/digests/")


def test_an_unreadable_file_is_named(folder):
    with pytest.raises(UserError, match=r"data/c\.png: no such file"):
        file_digests(folder, ["a.png", "c.png"])
    with pytest.raises(UserError, match=r"data/room: cannot be read: Is a directory"):
        file_digests(folder, ["room"])
