"""Which of several launches computes a run."""

import os
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import pytest

from tiekd.store import claims
from tiekd.store.claims import CLAIMS, LAUNCHES, STALE_S, Claims, Launch, announced, claimed, open_launch
from tiekd.store.run_store import RunStore

ELSEWHERE = replace(Launch.current(), machine="another")
RUN = "0123456789abcdef"


def of_another_machine(store: RunStore) -> Claims:
    """The claims of a launch on another machine, whose last beat is now."""
    store.write_bytes(f"{LAUNCHES}/{ELSEWHERE.id}.json", b"{}")
    return Claims(store, ELSEWHERE)


def test_a_run_belongs_to_one_launch_until_that_releases_it(store):
    with open_launch(store) as first, open_launch(store) as second:
        assert first.take(RUN) is None
        assert first.take(RUN) is None  # as when its trial is started again
        assert second.take(RUN) == first.launch
        assert (first.of_others([RUN]), second.of_others([RUN]), second.of_others(["b"])) == (set(), {RUN}, set())
        second.release(RUN)
        assert (first.holds(RUN), second.holds(RUN)) == (True, False)
        first.release(RUN)
        assert second.take(RUN) is None
        assert first.of_others([RUN, "b"]) == {RUN}
    assert store.list_files(LAUNCHES) == {}


def test_of_many_launches_one_gets_a_run(store):
    with ExitStack() as stack, ThreadPoolExecutor(6) as threads:
        launches = [stack.enter_context(open_launch(store)) for _ in range(6)]
        for number in range(3):
            start = threading.Barrier(6)

            def take(each: Claims, key: str = f"run{number}", start: threading.Barrier = start) -> Launch | None:
                start.wait()
                return each.take(key)

            holders = list(threads.map(take, launches))
            assert holders.count(None) <= 1
            if None in holders:  # none, if two had different numbers for a moment
                assert {holder.id for holder in holders if holder} == {launches[holders.index(None)].launch.id}


def test_claims_of_a_launch_that_has_ended_are_free(store):
    with open_launch(store) as first:
        first.take(RUN)
    with open_launch(store) as second:
        assert second.of_others([RUN]) == set()
        assert second.take(RUN) is None
        second.release(RUN)
    assert store.list_files(CLAIMS) == {}


def test_claims_of_a_killed_process_on_this_machine_are_free_at_once(store):
    process = subprocess.Popen(["sleep", "infinity"])
    killed = replace(Launch.current(), pid=process.pid, started=claims._start_of(process.pid))
    store.write_bytes(f"{LAUNCHES}/{killed.id}.json", b"{}")
    Claims(store, killed).take(RUN)
    with open_launch(store) as launch:
        assert launch.take(RUN) == killed
        process.kill()
        wait_until(lambda: launch.take(RUN) is None)  # its parent, this process, has not looked yet
        process.wait()
        assert launch.holds(RUN)
        assert not Claims(store, killed).holds(RUN)


def test_another_process_with_the_number_of_a_killed_one_is_not_its_launch(store):
    killed = replace(Launch.current(), started="1")
    store.write_bytes(f"{LAUNCHES}/{killed.id}.json", b"{}")
    Claims(store, killed).take(RUN)
    with open_launch(store) as launch:
        assert launch.take(RUN) is None


def test_claims_of_another_machine_are_free_when_it_was_silent_for_long(local):
    other = of_another_machine(local)
    other.take(RUN)
    beat = os.path.join(local.uri, LAUNCHES, f"{ELSEWHERE.id}.json")
    with open_launch(local) as launch:
        for silent in (0, STALE_S - 10):
            os.utime(beat, (time.time() - silent,) * 2)
            assert launch.take(RUN) == ELSEWHERE
        os.utime(beat, (time.time() - STALE_S - 10,) * 2)
        assert launch.take(RUN) is None
        assert not other.holds(RUN)
    with open_launch(local):
        assert f"{ELSEWHERE.id}.json" not in local.list_files(LAUNCHES)


def test_the_clock_of_the_storage_counts(store, monkeypatch):
    """Not that of a machine, which may be wrong by hours."""
    other = of_another_machine(store)
    other.take(RUN)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    with open_launch(store) as launch:
        assert launch.take(RUN) == ELSEWHERE


def test_a_launch_beats(store, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_S", 0.01)
    with open_launch(store) as launch:
        name = f"{LAUNCHES}/{launch.launch.id}.json"
        store.delete(name)
        wait_until(lambda: store.read_bytes(name))
    time.sleep(0.05)
    assert store.read_bytes(name) is None


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_launch_that_is_asked_to_takes_over_what_others_compute_at_its_start(store):
    with open_launch(store) as first:
        first.take(RUN)
        with open_launch(store, take_over=True) as second:
            first.take("later")
            assert second.take(RUN) is None
            assert second.take("later") == first.launch
            assert (first.holds(RUN), second.holds(RUN)) == (False, True)
            assert first.take(RUN).id == second.launch.id
            first.release(RUN)
            assert second.holds(RUN)
            second.release(RUN)
        assert first.take(RUN) is None


def test_a_run_claimed_by_a_command_is_left_to_it(store):
    with open_launch(store) as launch:
        launch.take(RUN)
        with claimed(store, RUN):
            assert launch.take(RUN).pid == os.getpid()
        assert launch.take(RUN) is None


@pytest.mark.parametrize("content", [b"", b"{", b"{}"])
def test_a_damaged_claim_is_free(store, content):
    store.write_bytes(f"{CLAIMS}/{RUN}.000001.json", content)
    store.write_bytes(f"{LAUNCHES}/damaged.json", content)
    with open_launch(store) as launch:
        assert launch.of_others([RUN]) == set()
        assert launch.take(RUN) is None
        launch.release(RUN)
    assert store.list_files(CLAIMS) == {}


def test_commands_of_the_launches_of_a_study_are_announced(store):
    command = ["tiekd", "ablate", "demo.yaml"]
    with open_launch(store, "demo", command) as launch, open_launch(store, "other"):
        assert [each.command for each in announced(store, "demo")] == [tuple(command)]
        launch.take(RUN)
    assert announced(store, "demo") == []
