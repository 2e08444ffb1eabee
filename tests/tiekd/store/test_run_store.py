import os
import signal
import socket
import threading
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from tiekd.config import build
from tiekd.errors import StoreError, UserError
from tiekd.store import object_store
from tiekd.store.run_status import STATES, Status
from tiekd.store.run_store import OBJECT_STORE_THREADS, RunRecord, RunStore


@pytest.fixture(params=["folder", "uri", "s3"])
def store(request, tmp_path) -> RunStore:
    folder = tmp_path / "store"
    if request.param == "s3":
        return RunStore(f"s3://{request.getfixturevalue('bucket')}/some/prefix")
    return RunStore(folder if request.param == "folder" else folder.as_uri())


@pytest.fixture
def local(tmp_path) -> RunStore:
    return RunStore(tmp_path / "store")


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
    status = Status(state, "loss nan", epoch=2, epochs=5, device_seconds=1.5, started=1.0, updated=2.0)
    store.run("0123").write_status(status)
    assert store.run("0123").status() == status


def test_a_status_of_an_older_store_is_read(store):
    """It told of the process, too, which has a file of its own now."""
    status = Status("done", epochs=5, started=1.0, updated=2.0)
    store.run("0123").write_json("status.json", asdict(status) | {"host": "node", "pid": 4711, "attempt": "a"})
    assert (store.run("0123").status(), store.run("0123").last_attempt()) == (status, None)


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


def test_a_number_that_json_does_not_have_is_not_written(store):
    with pytest.raises(ValueError, match="JSON"):
        store.run("0123").write_json("summary.json", {"rmse": float("nan")})
    assert store.run("0123").read_file("summary.json") is None


def test_many_runs_are_read_in_the_order_asked_for(store):
    for number in range(20):
        store.run(f"{number:02}").write_status(Status("done", epoch=number))
    backwards = sorted(store.runs(), key=lambda record: record.run_id, reverse=True)
    assert [status.epoch for status in store.read_each(RunRecord.status, backwards)] == list(range(19, -1, -1))


def test_the_first_error_of_many_reads_is_told(store):
    store.run("b").write_file("status.json", b"{")
    with pytest.raises(StoreError, match=r"runs/b/status.json in store .* is damaged"):
        store.read_each(RunRecord.status, [store.run(name) for name in "abc"])


def test_of_many_runs_few_are_read_before_they_are_taken(store):
    for number in range(4 * OBJECT_STORE_THREADS):
        store.run(f"{number:03}").write_status(Status("done"))
    read = []
    found = store.stream_each(lambda record: read.append(record) or record.run_id, store.runs())
    assert next(found) == "000"
    assert len(read) <= 2 * OBJECT_STORE_THREADS + 1
    assert list(found) == [f"{number:03}" for number in range(1, 4 * OBJECT_STORE_THREADS)]


def test_a_table_is_read_as_arrow_by_the_columns_that_it_has(store):
    store.write_table("a.parquet", pd.DataFrame({"image": ["x", "y"], "rmse": [0.5, float("nan")]}))
    found = store.read_arrow("a.parquet", ["rmse", "silog"])
    assert found.to_pydict() == {"rmse": [0.5, None]}
    assert store.read_arrow("b.parquet") is None


# -- atomic writes --------------------------------------------------------------------------------------------------------


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


def test_a_write_that_breaks_off_leaves_the_old_file_and_no_other(store, tmp_path):
    store.write_bytes("file", b"old")
    with pytest.raises(TypeError):
        store.write_bytes("file", object())  # opened, then not written
    assert store.read_bytes("file") == b"old"
    assert files(tmp_path) == (["store/file"] if store.local else [])


def test_a_write_that_cannot_take_its_place_leaves_nothing(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(StoreError, match="cannot write file in store"):
        RunStore(tmp_path).write_bytes("file", b"new")
    assert files(tmp_path) == []


@pytest.fixture
def gated(bucket, gate, monkeypatch) -> RunStore:
    """A store in a bucket behind the gate, with a file in it."""
    RunStore(f"s3://{bucket}").write_bytes("file", b"old")
    monkeypatch.setenv("AWS_ENDPOINT_URL", gate.url)
    monkeypatch.setattr(object_store, "MAX_ATTEMPTS", 1)
    return RunStore(f"s3://{bucket}")


LARGE = b"new" * 2**23  # goes up in parts


@pytest.mark.parametrize("request_", ["POST ?uploads", "PUT ?partNumber=1", "PUT ?partNumber=2", "POST ?uploadId"])
def test_an_upload_that_fails_half_way_leaves_the_old_object(gated, gate, bucket, s3, request_):
    gate.refuse(request_.replace(" ", f" /{bucket}/file").encode())
    with pytest.raises(StoreError, match=r"cannot write file in store s3://bucket-\d+: AWS Error NETWORK_CONNECTION"):
        gated.write_bytes("file", LARGE)
    gate.open()
    assert s3.objects(bucket) == {"file": 3}
    gated.write_bytes("file", LARGE)
    assert gated.read_bytes("file") == LARGE


def test_ctrl_c_completes_no_upload_that_has_no_content_yet(gated, gate, bucket):
    def interrupt() -> None:
        gate.caught.wait()
        os.kill(os.getpid(), signal.SIGINT)
        gate.open()

    gate.delay(f"POST /{bucket}/file?uploads".encode())
    threading.Thread(target=interrupt).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
    try:
        with pytest.raises(KeyboardInterrupt):
            gated.write_bytes("file", LARGE)
    finally:
        signal.signal(signal.SIGINT, before)
    assert gated.read_bytes("file") == LARGE


def test_files_that_stand_for_folders_are_no_runs(bucket, s3):
    store = RunStore(f"s3://{bucket}/prefix")
    store.check_writable()
    store.run("0123").write_status(Status("done"))
    store.run("0123").write_file("error.txt", b"trace")
    store.run("0123").delete_file("error.txt")
    for key in ("prefix/", "prefix/runs/", "prefix/studies/"):
        s3.client.put_object(Bucket=bucket, Key=key)
    assert [record.run_id for record in store.runs()] == ["0123"]
    assert store.studies() == []
    assert {key for key, size in s3.objects(bucket).items() if size} == {"prefix/runs/0123/status.json"}


# -- stores that are none -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["below a file", "a file"])
def test_a_store_that_cannot_be_written_is_refused_and_nothing_is_made(tmp_path, place):
    (tmp_path / "file").write_bytes(b"content")
    folder = tmp_path / "file" / "store" if place == "below a file" else tmp_path / "file"
    with pytest.raises(UserError, match=r"store .*file is a file|store .*: not writable: ") as caught:
        RunStore(folder).check_writable()
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == ["file"]


def test_checking_a_store_leaves_nothing_behind(local, tmp_path):
    local.check_writable()
    assert list(tmp_path.iterdir()) == []
    local.run("0123").write_status(Status("done"))
    local.check_writable()
    assert files(tmp_path) == ["store/runs/0123/status.json"]


def test_a_store_that_has_disappeared_is_not_begun_again(local, tmp_path):
    local.run("0123").write_status(Status("running"))
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    for of_it in (local, RunStore(tmp_path / "store", must_exist=True)):
        for touch in (of_it.studies, of_it.run("0123").status, lambda: local.write_study("kitti", {})):
            with pytest.raises(StoreError, match=r"store .* has disappeared: its folder is gone; is its disk mounted\?"):
                touch()
    (tmp_path / "store").mkdir()  # the mount point that an unmounted disk leaves
    with pytest.raises(StoreError, match="its folder is empty"):
        local.run("0123").write_status(Status("done"))
    assert files(tmp_path) == ["elsewhere/runs/0123/status.json"]


def test_a_uri_of_no_known_kind_is_refused():
    with pytest.raises(UserError, match=r"store nowhere://x: not a folder or a URI that pyarrow reads"):
        RunStore("nowhere://x")


def test_a_file_that_cannot_be_read_is_an_error_of_the_store(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(StoreError, match="cannot read file in store"):
        RunStore(tmp_path).read_bytes("file")


# -- buckets that cannot be a store -------------------------------------------------------------------------------------------


def refusal(uri: str) -> str:
    with pytest.raises(UserError) as caught:
        RunStore(uri)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bucket_that_is_not_there_is_refused(bucket, s3):
    assert refusal("s3://no-bucket/prefix") == f"store s3://no-bucket/prefix: there is no bucket 'no-bucket' at {s3.url}"


def test_a_server_that_does_not_answer_is_refused(bucket, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setattr(object_store, "FAIL_FAST_TIMEOUT_S", 1.0)
        assert f"transferred the last 1 seconds ({address}, by AWS_ENDPOINT_URL)" in refusal(f"s3://{bucket}")
    assert refusal(f"s3://{bucket}").endswith(f"({address}, by AWS_ENDPOINT_URL)")  # nobody listens there any more


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("s3://", "store s3://: needed s3://BUCKET/PREFIX"),
        (
            "s3://key:secret@bucket/p",
            "store s3://bucket/p: the store's URI is saved with its runs, so it must not contain keys",
        ),
        ("s3://bucket?regoin=x", "query: unknown 'regoin'; did you mean region?"),
    ],
)
def test_a_uri_of_no_bucket_is_refused(uri, told):
    assert told in refusal(uri)
    assert "secret" not in refusal(uri)


def test_wrong_keys_are_refused_and_nothing_is_written(bucket, s3):
    store = RunStore(f"s3://{bucket}/prefix")
    with s3.refusing_keys():
        told = refusal(f"s3://{bucket}/prefix")
        with pytest.raises(UserError, match="credentials: AWS_ACCESS_KEY_ID"):
            store.check_writable()
    assert told.endswith("(credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile)")
    assert s3.objects(bucket) == {}
