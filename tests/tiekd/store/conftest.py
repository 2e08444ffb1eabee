import pytest

from tiekd.store.run_store import RunStore


@pytest.fixture(params=["folder", "uri", "s3"])
def store(request, tmp_path) -> RunStore:
    """A new store of each kind."""
    folder = tmp_path / "store"
    if request.param == "s3":
        return RunStore(f"s3://{request.getfixturevalue('bucket')}/some/prefix")
    return RunStore(folder if request.param == "folder" else folder.as_uri())


@pytest.fixture
def local(tmp_path) -> RunStore:
    return RunStore(tmp_path / "store")
