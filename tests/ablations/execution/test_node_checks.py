"""Comparison of a node with the launching one: version, store and data; no Ray is started."""

from typing import Any

import pytest

from ablations.execution.node_checks import Expected, differences
from tiekd.config import build
from tiekd.data.inputs import METHOD_VERSION, run_id_of
from tiekd.store.run_store import RunStore


@pytest.fixture
def expected(tiny, tmp_path) -> dict[str, Any]:
    """What the launching process sees: version, store, and a run with teacher maps."""
    store = RunStore(tmp_path / "store")
    store.write_bytes("probe", b"")
    config = build(tiny)
    here = next(differences(Expected("", store.uri, "probe", {}))).split(" ")[1]
    version = f"{here} (method {METHOD_VERSION})"
    return {"tiekd": version, "store": store.uri, "probe": "probe", "runs": {run_id_of(config): config.document()}}


def found(expected: dict[str, Any], **changes: Any) -> list[str]:
    return list(differences(Expected(**expected | changes)))


def test_equal_node_has_no_difference(expected):
    assert found(expected) == []


def test_other_version_is_reported(expected):
    (line,) = found(expected, tiekd="0.0.1 (method 1)")
    assert line == f"tiekd {expected['tiekd']}, expected 0.0.1 (method 1)"


def test_store_without_the_probe_file_is_another_store(expected, tmp_path):
    (line,) = found(expected, store=str(tmp_path / "elsewhere"))
    assert line.startswith(f"{tmp_path}/elsewhere is another store there")
    assert not (tmp_path / "elsewhere").exists()


def test_missing_file_is_reported(expected, tmp_path):
    assert found(expected, files=(str(tmp_path), str(tmp_path / "photos"))) == [f"{tmp_path}/photos: no such file or folder"]


def test_other_or_missing_data_is_reported(expected, tiny, tmp_path):
    ((run_id, document),) = expected["runs"].items()
    (line,) = found(expected, runs={"0123": document})
    assert line.startswith("data at ")
    moved = document | {"teacher": document["teacher"] | {"maps": str(tmp_path / "nowhere")}}
    (line,) = found(expected, runs={run_id: moved})
    assert f"teacher maps {tmp_path}/nowhere: no such folder" in line
