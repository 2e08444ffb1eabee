"""Runs that share a process: what a second one does again, and what it notices."""

import sys

import numpy as np
import pytest

from tiekd.data.cache.pack_writer import write_packs
from tiekd.data.teacher_maps import MapWriter
from tiekd.models import registry
from tiekd.store.provenance import code_state

pytestmark = pytest.mark.slow

happened: list[tuple[str, str]] = []  # what Python told of files opened and processes started, while `watching`
watching = False


def _hook(event: str, arguments: tuple) -> None:
    if watching and event in ("open", "os.listdir", "os.scandir", "subprocess.Popen"):
        happened.append((event, str(arguments[0])))


@pytest.fixture(scope="module")
def _hooked():
    sys.addaudithook(_hook)  # for good: Python takes none away


@pytest.fixture
def watched(_hooked, monkeypatch):
    """Carry a run out and tell which of its inputs it opened or listed, how many networks it built, processes it started."""

    def look(execute_run, config):
        built = []
        build = registry.build_depth_student
        monkeypatch.setattr(registry, "build_depth_student", lambda config: built.append(1) or build(config))
        monkeypatch.setattr(sys.modules[__name__], "watching", True)
        happened.clear()
        _, status = execute_run(config)
        monkeypatch.setattr(sys.modules[__name__], "watching", False)
        monkeypatch.setattr(registry, "build_depth_student", build)
        assert status.state == "done"
        inputs = [name for event, name in happened if event != "subprocess.Popen" and name.startswith(config.teacher.maps)]
        return inputs, len(built), sum(event == "subprocess.Popen" for event, _ in happened)

    return look


def test_a_second_run_reads_no_input_again_and_builds_its_student_alone(tiny, execute_run, watched, monkeypatch):
    code_state.cache_clear()
    monkeypatch.setattr("tiekd.models.registry._checked", set())
    monkeypatch.setattr("tiekd.data.cache.file_digests.SETTLING_TIME", 0)  # the maps may have been written just now
    widths = {"student.decoder_channels": [24, 16, 8, 8]}  # of no preset: whether the network can be built is tried
    inputs, built, started = watched(execute_run, tiny({"execution.cache_gb": 0} | widths))
    assert len([name for name in inputs if name.endswith(".png")]) >= 2 * 8  # every map in each of two epochs
    assert built == 2  # to see that it can be, and to be trained
    assert started >= 1  # git
    watched(execute_run, tiny({"seed": 1} | widths))
    assert watched(execute_run, tiny({"seed": 2, "loss.temperature": 0.5} | widths)) == ([], 1, 0)


@pytest.fixture(scope="module")
def plain(tiny_in, execute_run, tmp_path_factory):
    """A run that keeps nothing in memory."""
    return execute_run(tiny_in(tmp_path_factory.mktemp("plain"), {"execution.cache_gb": 0, "optim.epochs": 3}))[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_frames_kept_in_memory_change_no_number(plain, tiny, execute_run, workers):
    for attempt in ("decodes", "finds all decoded"):
        execution = {"execution.data_workers": workers, "execution.store": str(plain.store.uri) + attempt + str(workers)}
        record, _ = execute_run(tiny({"optim.epochs": 3, **execution}))
        assert record.run_id == plain.run_id
        rows, expected = (r.read_table("epochs.parquet").drop(columns="seconds") for r in (record, plain))
        assert rows.equals(expected)
        assert record.read_table("images.parquet").equals(plain.read_table("images.parquet"))


@pytest.mark.parametrize("workers", [0, 2])
def test_packed_frames_change_no_number(plain, tiny, execute_run, tmp_path, workers):
    config = tiny({"optim.epochs": 3, "execution.data_workers": workers, "execution.packed": str(tmp_path / "packed")})
    write_packs(config, tmp_path / "packed")
    record, _ = execute_run(config)
    assert record.run_id == plain.run_id
    rows, expected = (r.read_table("epochs.parquet").drop(columns="seconds") for r in (record, plain))
    assert rows.equals(expected)
    assert record.read_table("images.parquet").equals(plain.read_table("images.parquet"))


def test_maps_that_change_between_two_runs_make_another_run_with_other_numbers(tiny, execute_run, tmp_path):
    def carry(depth, store, **execution):
        keys = [f"train/scene_{scene:03d}/{frame:04d}" for scene in range(8) for frame in range(8)]
        with MapWriter(tmp_path / "maps", 10.0, {}) as writer:
            for key in keys:
                writer.write(key, np.full((64, 96), depth, np.float32))
        settings = {"teacher.maps": str(tmp_path / "maps"), "execution.store": str(tmp_path / store)}
        return execute_run(tiny(settings | {f"execution.{name}": value for name, value in execution.items()}))[0]

    near, far = carry(2.0, "kept"), carry(6.0, "kept")
    unkept = carry(6.0, "plain", cache_gb=0)
    assert near.run_id != far.run_id == unkept.run_id
    near, far, unkept = (record.read_table("epochs.parquet").drop(columns="seconds") for record in (near, far, unkept))
    assert not near.equals(far)
    assert far.equals(unkept)
