"""A worker process reads the same images as this process, from any program, and never hangs."""

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reports.loading import per_image_worker
from reports.loading.per_image_worker import open_image_reader
from tiekd.errors import StoreError

UNGUARDED = """
import sys
from reports.loading import per_image_worker
from reports.loading.per_image_worker import open_image_reader
from tiekd.store.run_store import RunStore
print("started")
store, run_id = sys.argv[1:]
with open_image_reader(RunStore(store), per_image_worker.MANY_RUNS, None) as images:
    images.add(run_id)
    groups, unreadable = images.result()
print(groups.num_rows, unreadable)
"""

ENDLESS = """
import multiprocessing, sys, time
from reports.loading import per_image_worker
from reports.loading.per_image_worker import open_image_reader
from tiekd.store.run_store import RunStore
with open_image_reader(RunStore(sys.argv[1]), per_image_worker.MANY_RUNS, None) as images:
    print(multiprocessing.active_children()[0].pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def worker(monkeypatch):
    monkeypatch.setattr(per_image_worker, "MANY_RUNS", 2)
    return 2


def test_a_worker_reads_what_this_process_reads(demo, tmp_path, worker):
    """From the same runs, one of them unreadable and one without images."""
    ids = [record.run_id for record in demo.runs()]
    demo.run(ids[0]).write_file("images.parquet", b"PAR1, cut off")
    found = []
    for n_runs in (worker - 1, worker):
        with open_image_reader(demo, n_runs, tmp_path / f"{n_runs}.parquet") as images:
            for run_id in ids:
                images.add(run_id)
            found.append(images.result())
    (here, unreadable_here), (there, unreadable_there) = found
    assert there.equals(here)
    assert unreadable_there == unreadable_here
    assert list(unreadable_here) == [f"runs/{ids[0]}/images.parquet"]
    assert (tmp_path / "2.parquet").read_bytes() == (tmp_path / "1.parquet").read_bytes()


def test_an_error_of_the_worker_is_reported(demo, tmp_path, worker):
    with open_image_reader(demo, worker, tmp_path / "nowhere" / "images.parquet") as images:
        for number in range(10_000):  # more than fit in a pipe
            images.add(f"{number:016}")
        with pytest.raises(StoreError, match=r"could not read the images of the runs: .*nowhere"):
            images.result()


def test_the_worker_ends_when_its_caller_fails(demo, worker):
    reader = open_image_reader(demo, worker, None)
    reader.__enter__().add("a")
    assert reader.__exit__(RuntimeError, RuntimeError("no more"), None) is False
    assert not multiprocessing.active_children()


def test_the_worker_does_not_rerun_a_script_without_a_main_guard(demo, tmp_path):
    (tmp_path / "script.py").write_text(UNGUARDED)
    run_id = next(record.run_id for record in demo.runs() if record.status().state == "done")
    command = [sys.executable, str(tmp_path / "script.py"), demo.uri, run_id]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (done.stdout, done.stderr) == ("started\n1 {}\n", "")


def test_a_killed_worker_is_reported(demo, worker):
    with open_image_reader(demo, worker, None) as images:
        (process,) = multiprocessing.active_children()
        process.kill()
        with pytest.raises(StoreError, match=r"could not read the images of the runs: .* was killed"):
            images.result()


def test_the_worker_ends_when_its_caller_is_killed(demo, tmp_path):
    (tmp_path / "script.py").write_text(ENDLESS)
    caller = subprocess.Popen([sys.executable, str(tmp_path / "script.py"), demo.uri], stdout=subprocess.PIPE, text=True)
    assert caller.stdout
    worker = int(caller.stdout.readline())
    caller.kill()
    caller.communicate()
    deadline = time.monotonic() + 60
    while is_running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
