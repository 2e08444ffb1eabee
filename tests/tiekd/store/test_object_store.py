import os
import signal
import socket
import threading

import pytest

from tiekd.errors import StoreError, UserError
from tiekd.store import object_store
from tiekd.store.object_store import describe_endpoint, profile_keys, s3_options
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")


@pytest.mark.parametrize(
    ("uri", "environment", "expected"),
    [
        ("s3://b/p", {"AWS_REGION": "eu-west-1"}, {"scheme": "https", "region": "eu-west-1"}),
        ("s3://b/p", {"AWS_DEFAULT_REGION": "eu-west-1"}, {"scheme": "https", "region": "eu-west-1"}),
        ("s3://b/p?region=ap-east-1", {"AWS_REGION": "eu-west-1"}, {"scheme": "https", "region": "ap-east-1"}),
        (
            "s3://b/p/",
            {"AWS_ENDPOINT_URL": "http://minio:9000/"},
            {"scheme": "http", "region": "us-east-1", "endpoint_override": "minio:9000"},
        ),
        (
            "s3://b/p",
            {"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_S3": "https://objects"},
            {"scheme": "https", "region": "us-east-1", "endpoint_override": "objects"},
        ),
        (
            "s3://b/p?endpoint_override=minio:9000&scheme=http",
            {"AWS_ENDPOINT_URL": "https://all"},
            {"scheme": "http", "region": "us-east-1", "endpoint_override": "minio:9000"},
        ),
    ],
    ids=str,
)
def test_s3_options_from_uri_and_environment(uri, environment, expected, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert s3_options(uri) == (expected, "b/p")
    where = expected.get("endpoint_override")
    assert describe_endpoint(uri) == (f"{expected['scheme']}://{where}" if where else "AWS")


# -- uploads -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def gated(bucket, gate, monkeypatch) -> RunStore:
    """A store with a file in a bucket behind the gate."""
    RunStore(f"s3://{bucket}").write_bytes("file", b"old")
    monkeypatch.setenv("AWS_ENDPOINT_URL", gate.url)
    monkeypatch.setattr(object_store, "MAX_ATTEMPTS", 1)
    return RunStore(f"s3://{bucket}")


LARGE = b"new" * 2**23  # uploaded in several parts


@pytest.mark.parametrize("request_", ["POST ?uploads", "PUT ?partNumber=1", "PUT ?partNumber=2", "POST ?uploadId"])
def test_a_failed_upload_leaves_the_old_object(gated, gate, bucket, s3, request_):
    gate.refuse(request_.replace(" ", f" /{bucket}/file").encode())
    with pytest.raises(StoreError, match=r"cannot write file in store s3://bucket-\d+: [^\n]+$"):
        gated.write_bytes("file", LARGE)
    gate.open()
    assert s3.objects(bucket) == {"file": 3}
    gated.write_bytes("file", LARGE)
    assert gated.read_bytes("file") == LARGE


def test_a_store_works_at_a_server_that_is_often_busy_or_drops_connections(gated, gate, monkeypatch):
    """Of its requests, 30 % get the answer 503 and 10 % none."""
    monkeypatch.setattr(object_store, "MAX_ATTEMPTS", 12)
    monkeypatch.setattr(object_store, "FIRST_WAIT_S", 0.01)
    store = RunStore(gated.uri)
    gate.disturb(b" HTTP/1.1", busy=0.3, dropped=0.1)
    for number in range(20):
        content = b"%d" % number * 1000
        store.write_bytes("again", content)
        assert store.read_bytes("again") == content
        assert store.create(f"once/{number}", content)
        assert not store.create(f"once/{number}", b"other")
        assert store.read_bytes(f"once/{number}") == content
        if number % 2:
            store.delete(f"once/{number}")
    assert len(store.list_files("once")) == 10
    assert store.read_bytes("once/1") is None
    assert gate.caught.is_set()


def test_ctrl_c_does_not_complete_an_empty_upload(gated, gate, bucket):
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


def test_objects_that_mark_folders_are_not_runs(bucket, s3):
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


# -- requests -----------------------------------------------------------------------------------------------------------------


def test_each_operation_is_one_request(bucket, s3):
    store = RunStore(f"s3://{bucket}/prefix")
    operations = {
        "PUT": [lambda: store.write_bytes("folder/a", b"1" * 2**20), lambda: store.create("folder/b", b"2")],
        "GET": [lambda: store.read_bytes("folder/a"), lambda: store.read_bytes("none")],
        "LIST": [lambda: store.list_files("folder"), lambda: store.list_folders("")],
        "POST": [lambda: store.delete("folder/a")],
    }
    for kind, calls in operations.items():
        for call in calls:
            with s3.count() as counted:
                call()
            assert counted == {kind: 1}


@pytest.mark.parametrize(
    ("profile", "keys", "expected"),
    [
        (None, "[default]\naws_access_key_id = a\naws_secret_access_key = b", ("a", "b")),
        ("lab", "[default]\naws_access_key_id = a\n[lab]\naws_access_key_id = c\naws_secret_access_key = d%", ("c", "d%")),
        (None, "", None),
    ],
)
def test_keys_of_a_profile_are_found(profile, keys, expected, monkeypatch, tmp_path):
    (tmp_path / "credentials").write_text(keys)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", profile) if profile else monkeypatch.delenv("AWS_PROFILE", raising=False)
    assert profile_keys() == ({"access_key_id": expected[0], "secret_access_key": expected[1]} if expected else {})


def test_a_profile_without_keys_is_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "sso")
    with pytest.raises(UserError, match=r"^AWS_PROFILE=sso: has no keys in .*/credentials; valid: "):
        profile_keys()


# -- invalid buckets ---------------------------------------------------------------------------------------------------------


def refusal(uri: str) -> str:
    with pytest.raises(UserError) as caught:
        RunStore(uri)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_bucket_is_refused(bucket, s3):
    assert refusal("s3://no-bucket/prefix") == f"store s3://no-bucket/prefix: there is no bucket 'no-bucket' at {s3.url}"


def test_an_unresponsive_server_is_refused(bucket, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setattr(object_store, "FAIL_FAST_TIMEOUT_S", 1.0)
        assert f"{bucket}: no connection, or no answer in time ({address}, by AWS_ENDPOINT_URL)" in refusal(f"s3://{bucket}")
    assert refusal(f"s3://{bucket}").endswith(f"({address}, by AWS_ENDPOINT_URL)")  # nothing listens there any more


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://", "store s3://: needed s3://BUCKET/PREFIX"),
        (
            "s3://key:secret@bucket/p",
            "store s3://bucket/p: the store's URI is saved with its runs, so it must not contain keys",
        ),
        ("s3://bucket?regoin=x", "query: unknown 'regoin'; did you mean region?"),
    ],
)
def test_an_invalid_s3_uri_is_refused(uri, message):
    assert message in refusal(uri)
    assert "secret" not in refusal(uri)


def test_wrong_credentials_are_refused_and_nothing_is_written(bucket, s3):
    store = RunStore(f"s3://{bucket}/prefix")
    with s3.refusing_keys():
        message = refusal(f"s3://{bucket}/prefix")
        with pytest.raises(UserError, match="credentials: AWS_ACCESS_KEY_ID"):
            store.check_writable()
    assert message.endswith("(credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile)")
    assert s3.objects(bucket) == {}
