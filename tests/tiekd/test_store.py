import threading
from pathlib import Path

import pandas as pd
import pytest

from tiekd.config import build
from tiekd.errors import StoreError, UserError
from tiekd.store import STATES, RunStore, Status


@pytest.fixture(params=["folder", "uri"])
def store(request, tmp_path) -> RunStore:
    folder = tmp_path / "store"
    return RunStore(folder if request.param == "folder" else folder.as_uri())


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def config():
    return build({"data": {"dataset": "nyu", "root": "data"}, "loss": {"name": "si", "target": "ground_truth"}})


# -- what comes back ------------------------------------------------------------------------------------------------------


def test_an_empty_store_has_no_runs_and_makes_no_folders(store, tmp_path):
    record = store.run("0123")
    assert record.status().state == "missing"
    assert (record.config(), record.read_file("x"), record.read_json("x"), record.read_table("x")) == (None,) * 4
    assert (list(store.runs()), store.studies(), store.read_study("s")) == ([], [], None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("state", STATES)
def test_a_status_comes_back(store, state):
    status = Status(state, "loss nan", epoch=2, epochs=5, device_seconds=1.5, host="node", started=1.0, updated=2.0)
    store.run("0123").write_status(status)
    assert store.run("0123").status() == status


def test_a_config_comes_back_as_the_same_run(store, config):
    store.run("0123").write_config(config)
    assert store.run("0123").config().document() == config.document()


def test_a_table_comes_back_with_its_types_and_by_column(store):
    table = pd.DataFrame({"image": ["a", "b"], "n_valid": [3, 0], "rmse": [0.5, float("nan")]})
    record = store.run("0123")
    record.write_table("images.parquet", table)
    pd.testing.assert_frame_equal(record.read_table("images.parquet"), table, check_dtype=True)
    assert list(record.read_table("images.parquet", ["rmse"])) == ["rmse"]


def test_runs_and_studies_are_listed_by_name(store):
    for run_id in ("b", "a"):
        store.run(run_id).write_status(Status("done"))
    store.write_study("kitti", {"study": {"seeds": 3}})
    assert [record.run_id for record in store.runs()] == ["a", "b"]
    assert store.studies() == ["kitti"]
    assert store.read_study("kitti") == {"study": {"seeds": 3}}


def test_a_folder_and_its_uri_are_one_store(tmp_path):
    RunStore(tmp_path.as_uri()).run("0123").write_file("checkpoint/state.pt", b"state")
    assert RunStore(tmp_path).run("0123").read_file("checkpoint/state.pt") == b"state"
    assert (tmp_path / "runs/0123/checkpoint/state.pt").read_bytes() == b"state"


def test_deleting_a_file_that_is_not_there_is_no_mistake(store):
    record = store.run("0123")
    record.write_file("error.txt", b"trace")
    record.delete_file("error.txt")
    record.delete_file("error.txt")
    assert record.read_file("error.txt") is None


def test_a_number_that_json_does_not_have_is_not_written(store, tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        store.run("0123").write_json("summary.json", {"rmse": float("nan")})
    assert files(tmp_path) == []


# -- atomic writes --------------------------------------------------------------------------------------------------------


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path):
    store, size = RunStore(tmp_path), 2**20
    store.write_bytes("file", b"0" * size)
    seen, done = [], threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(store.read_bytes("file"))

    reader = threading.Thread(target=read)
    reader.start()
    for version in range(50):
        store.write_bytes("file", b"%d" % (version % 10) * size)
    done.set()
    reader.join()
    assert len(seen) > 1
    assert all(len(content) == size and content == content[:1] * size for content in seen)


def test_a_write_that_breaks_off_leaves_the_old_file_and_no_other(tmp_path):
    store = RunStore(tmp_path)
    store.write_bytes("file", b"old")
    with pytest.raises(TypeError):
        store.write_bytes("file", object())  # opened, then not written
    assert store.read_bytes("file") == b"old"
    assert files(tmp_path) == ["file"]


def test_a_write_that_cannot_take_its_place_leaves_nothing(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(StoreError, match="cannot write file in store"):
        RunStore(tmp_path).write_bytes("file", b"new")
    assert files(tmp_path) == []


# -- stores that are none -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["below a file", "a file"])
def test_a_store_that_cannot_be_written_is_refused_and_nothing_is_made(tmp_path, place):
    (tmp_path / "file").write_bytes(b"content")
    folder = tmp_path / "file" / "store" if place == "below a file" else tmp_path / "file"
    with pytest.raises(UserError, match=r"store .*file is a file|store .*: not writable: ") as caught:
        RunStore(folder).check_writable()
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == ["file"]


def test_checking_a_store_leaves_nothing_behind(store, tmp_path):
    store.check_writable()
    assert list(tmp_path.iterdir()) == []
    store.run("0123").write_status(Status("done"))
    store.check_writable()
    assert files(tmp_path) == ["store/runs/0123/status.json"]


def test_a_uri_of_no_known_kind_is_refused():
    with pytest.raises(UserError, match=r"store nowhere://x: not a folder or a URI that pyarrow reads"):
        RunStore("nowhere://x")


def test_a_file_that_cannot_be_read_is_an_error_of_the_store(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(StoreError, match="cannot read file in store"):
        RunStore(tmp_path).read_bytes("file")
