import errno
import os
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tiekd.errors import StoreError, UserError
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_reader_sees_the_old_file_or_the_new_one(store):
    store.write_bytes("file", b"0" * 2**20)
    seen, done = [], threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(store.read_bytes("file"))

    reader = threading.Thread(target=read)
    reader.start()
    written = [b"%d" % (version % 10) * (2**20 - version) for version in range(50)]
    for content in written:
        store.write_bytes("file", content)
    done.set()
    reader.join()
    assert len(seen) > 1
    assert set(seen) <= {b"0" * 2**20, *written}


def test_of_many_writers_one_creates_a_file(store):
    with ThreadPoolExecutor(8) as threads:
        for number in range(5):
            contents = [b"%d" % writer for writer in range(8)]
            created = list(threads.map(partial(store.create, f"folder/{number}"), contents))
            assert created.count(True) == 1
            assert store.read_bytes(f"folder/{number}") == contents[created.index(True)]


def test_files_are_listed_with_their_times(store):
    before = time.time()
    store.write_bytes("folder/a", b"1")
    store.write_bytes("folder/below/b", b"2")
    listed = store.list_files("folder")
    assert list(listed) == ["a"]
    assert before - 2 < listed["a"] < time.time() + 2
    assert store.list_files("none") == {}


def test_a_file_is_created_without_hard_links(local, monkeypatch):
    def link(*paths: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert [local.create("folder/file", content) for content in (b"1", b"2")] == [True, False]
    assert local.read_bytes("folder/file") == b"1"
    assert files_in(Path(local.uri)) == ["folder/file"]


def test_an_interrupted_write_leaves_only_the_old_file(store, tmp_path):
    store.write_bytes("file", b"old")
    with pytest.raises(TypeError):
        store.write_bytes("file", object())  # opened, then not written
    assert store.read_bytes("file") == b"old"
    assert files_in(tmp_path) == (["store/file"] if store.local else [])


def test_a_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(StoreError, match="cannot write file in store"):
        RunStore(tmp_path).write_bytes("file", b"new")
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("place", ["below a file", "a file"])
def test_an_unwritable_store_is_refused(tmp_path, place):
    (tmp_path / "file").write_bytes(b"content")
    folder = tmp_path / "file" / "store" if place == "below a file" else tmp_path / "file"
    with pytest.raises(UserError, match=r"store .*file is a file|store .*: not writable: ") as caught:
        RunStore(folder).check_writable()
    assert "\n" not in str(caught.value)
    assert files_in(tmp_path) == ["file"]


def test_checking_a_store_leaves_nothing_behind(local, tmp_path):
    local.check_writable()
    assert list(tmp_path.iterdir()) == []
    local.run("0123").write_status(Status("done"))
    local.check_writable()
    assert files_in(tmp_path) == ["store/runs/0123/status.json"]


def test_a_store_that_has_disappeared_is_not_created_again(local, tmp_path):
    local.run("0123").write_status(Status("running"))
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    for of_it in (local, RunStore(tmp_path / "store", must_exist=True)):
        for touch in (of_it.studies, of_it.run("0123").status, lambda: local.write_study("kitti", {})):
            with pytest.raises(StoreError, match=r"store .* has disappeared: its folder is gone; is its disk mounted\?"):
                touch()
    (tmp_path / "store").mkdir()  # the empty mount point of an unmounted disk
    with pytest.raises(StoreError, match="its folder is empty"):
        local.run("0123").write_status(Status("done"))
    assert files_in(tmp_path) == ["elsewhere/runs/0123/status.json"]


def test_an_unknown_uri_scheme_is_refused():
    with pytest.raises(UserError, match=r"store nowhere://x: not a folder or the URI of an object store \(s3, gs, az\): "):
        RunStore("nowhere://x")


def test_an_unreadable_file_is_a_store_error(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(StoreError, match="cannot read file in store"):
        RunStore(tmp_path).read_bytes("file")


def test_a_process_without_file_handles_finds_no_damage(tmp_path):
    """The file itself is intact, and a run must not start afresh because of it."""
    store = RunStore(tmp_path)
    store.write_bytes("file", b"content")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(StoreError, match="Too many open files"):
            store.read_as("file", bytes.decode)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert store.damaged == {}
    assert store.read_as("file", bytes.decode) == "content"
