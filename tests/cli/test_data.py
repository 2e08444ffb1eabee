"""`tiekd data check` and `tiekd data pack`."""

import json
import re

import pytest
from support.paths import SHARED
from support.spoiled_kitti import cut_a_line, lose_images

REAL = SHARED / "data"


def test_data_check_describes_a_healthy_folder(tiekd, written):
    outcome = tiekd("data", "check", written)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0] == f"kitti in {written}"
    assert "train: 4 frames in 1 drives or scenes, 0 without ground truth" in lines
    assert "test: 2 frames in 1 drives or scenes, 1 without ground truth" in lines
    assert lines[-1] == "no problems"


def test_data_check_lists_problems_and_ends_in_code_2(tiekd, kitti, in_folder):
    lose_images(in_folder / "kitti")
    cut_a_line(in_folder / "kitti")
    outcome = tiekd("data", "check", "kitti", "--json")
    assert (outcome.code, outcome.err) == (2, "")
    found = json.loads(outcome.out)
    train, test = found["splits"]
    assert found["ok"] is False
    assert "line 2: needed 3 columns" in train["problems"][0]
    assert train["missing"]["images"] == 2  # the third is of the line that was cut
    assert test["problems"] == []


def test_data_pack_is_written_checked_and_read(tiekd, tiny, as_yaml, in_folder):
    config = as_yaml(in_folder / "run.yaml", {**tiny, "optim": {"epochs": 1, "batch_size": 4}})
    outcome = tiekd("data", "pack", config, "--out", "packed")
    assert outcome.code == 0, outcome.err
    assert re.fullmatch(
        r"(frames-\w{16}: [48] items, 0\.\d MB\n){2}maps-\w{16}: 12 items, 0\.\d MB\n"
        r"use it with --set execution.packed=packed\n",
        outcome.out,
    )
    assert tiekd("data", "pack", config, "--out", "packed").out.count("already packed") == 3
    refused = tiekd("data", "pack", config, "--out", "nowhere", "--check")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert refused.err.startswith("tiekd: packed data nowhere: no such folder; `tiekd data pack CONFIG.yaml --out nowhere`")
    checked = json.loads(tiekd("data", "pack", config, "--out", "packed", "--check", "--json").out)
    assert sorted(part["items"] for part in checked["parts"].values()) == [4, 8, 12]
    results = [
        json.loads(tiekd("run", config, "--store", store, "--json", *options).out)
        for store, options in (("files", []), ("from-pack", ["--set", "execution.packed=packed"]))
    ]
    assert results[0]["state"] == "done"
    assert results[0]["run_id"] == results[1]["run_id"]
    assert results[0]["summary"]["metrics"] == results[1]["summary"]["metrics"]


def test_data_check_tells_the_layout_of_real_frames(tiekd):
    if not REAL.is_dir():
        pytest.skip(f"the real frames are not beside this checkout ({REAL})")
    found = json.loads(tiekd("data", "check", REAL / "nyu", "--json").out)
    assert (found["dataset"], found["ok"]) == ("nyu", True)
    assert found["splits"][0]["sizes"] == {"480x640": found["splits"][0]["rows"]}
