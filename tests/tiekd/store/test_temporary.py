"""Temporary folders and partial files, also those that killed processes leave."""

import contextlib
import fcntl
import signal
import subprocess
import sys

from tiekd.store.files import delete_partial_files, write_atomically
from tiekd.store.temporary import LOCK, short_link, temporary_folder

HOLD = """
import sys, time
from pathlib import Path
from tiekd.store.temporary import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(600)
"""
PARTIAL = ".state.pt." + "0123456789abcdef" * 2


def test_folder_is_deleted_at_the_end_also_after_an_error(tmp_path):
    with contextlib.suppress(RuntimeError), temporary_folder(tmp_path) as folder:
        (folder / "file").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_killed_process_is_deleted_by_the_next_and_others_stay(tmp_path):
    foreign = tmp_path / "tiekd-job"  # without a lock: not made here
    foreign.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        left = tmp_path / process.stdout.readline().strip()
        with temporary_folder(tmp_path):
            assert left.is_dir()  # in use
        process.send_signal(signal.SIGKILL)
    assert left.is_dir()
    with temporary_folder(tmp_path) as folder:
        assert sorted(tmp_path.iterdir()) == sorted([folder, foreign])


def test_link_is_short_and_deleted(tmp_path):
    with temporary_folder(tmp_path) as folder:
        with short_link(folder) as link:
            assert len(str(link)) < 20
            assert (link / LOCK).samefile(folder / LOCK)
        assert not link.is_symlink()


def test_partial_files_are_deleted_unless_they_are_being_written(tmp_path):
    for name in (PARTIAL, ".state.pt.0123", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / f"{PARTIAL[:-1]}e").touch()
    with (tmp_path / PARTIAL).open("rb+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        delete_partial_files(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".hidden", ".state.pt.0123", PARTIAL])
    write_atomically(tmp_path / "state.pt", b"content")
    delete_partial_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", ".state.pt.0123", "state.pt"]
