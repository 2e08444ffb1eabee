"""`tiekd measure` from a store to the costs in it."""

import json
from pathlib import Path

from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.deploy.profile_records import network_id
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore


def test_what_can_be_measured_is_measured_once_and_what_cannot_is_told(tiny, tmp_path, tiekd, tree):
    store, sound = RunStore(tmp_path / "store"), build(tiny)
    broken = build(with_values(tiny, {"student.name": "timm", "student.encoder": "no_such_encoder"}))
    for number, config in enumerate((sound, broken)):
        record = store.run(f"run{number}")
        record.write_config(config)
        record.write_status(Status("done"))
    first = tiekd("measure", store.uri, "--device", "cpu")
    assert first.code == 1
    lines = first.out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:4]] == ["tiny, regression", "no_such_encoder, regression", "maps only"]
    assert [word in line for word, line in zip(("64x96", "failed", "teacher perfect"), lines[1:4], strict=True)] == [True] * 3
    assert lines[-1].startswith("no_such_encoder, regression: UserError: student.encoder")

    kept = tree(Path(store.uri))
    again = tiekd("measure", store.uri, "--device", "cpu", "--json")
    assert again.code == 1
    assert "tiny" not in again.err  # it was measured before
    found = json.loads(again.out)
    assert [(row["network"], row["roles"]) for row in found["networks"]] == [(network_id(sound), ["student"])]
    assert [row["network"] for row in found["failed"]] == [network_id(broken)]
    assert found["maps_only"] == ["perfect"]
    assert tree(Path(store.uri)) == kept


def test_user_mistakes(mistake, in_folder):
    assert "no such folder" in mistake("measure", "nowhere")
    assert "valid: auto, cpu, cuda" in mistake("measure", ".", "--device", "tpu")
    assert "valid: onnxruntime, onnxruntime-int8, pytorch" in mistake("measure", ".", "--runtime", "onnx")
    told = mistake("measure", ".", "--runtime", "onnxruntime", "--device", "cuda")
    assert told == "tiekd: --device cuda: --runtime onnxruntime is measured on the CPU"
    assert "no run or study with a network to measure" in mistake("measure", ".")
