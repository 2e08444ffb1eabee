r"""What reaches a terminal: no control characters of a foreign store, names as they are, and no failure for want of stderr."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tiekd.__main__ import StderrHandler
from tiekd.data.progress import track
from tiekd.errors import CONTROL, printable
from tiekd.store.run_store import RunStore

HOSTILE = "\x1b]0;owned\x07\x1b[2K\rdone\x9b1A\u202etxt.exe"
NAME = "st[b]x[/red]:cat:"


@pytest.fixture
def foreign(tmp_path) -> str:
    """A store of a failed run and a study, whose texts would steer a terminal."""
    store = RunStore(tmp_path / "foreign")
    store.run("a").write_json("status.json", {"state": "failed", "cause": HOSTILE})
    folder = Path(store.uri, "studies", "s")
    folder.mkdir(parents=True)
    base = {
        "data": {"dataset": "nyu"},
        "optim": {"epochs": 1},
        "loss": {"name": "si", "target": "teacher"},
        "execution": {"workers": 1},
    }
    cell = {"run_id": "a", "config": base, "factors": {"student.name": HOSTILE}}
    (folder / "study.json").write_text(json.dumps({"study": {"name": "s"}, "cells": [cell]}))
    return store.uri


@pytest.mark.parametrize(
    "words", [["status"], ["status", "--json"], ["status", "--study", "s"], ["report", "--out", "r"], ["measure"]]
)
@pytest.mark.parametrize("terminal", [False, True])
def test_texts_of_a_foreign_store_do_not_steer_the_terminal(foreign, tiekd, in_folder, monkeypatch, words, terminal):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    verb, *options = words
    outcome = tiekd(verb, foreign, *options)
    text = outcome.out + outcome.err
    assert [steering for steering in ("\x1b]", "\x07", "\x9b", "\u202e") if steering in text] == []
    assert terminal or CONTROL.search(text) is None
    if verb == "status":
        assert r"\u001b]0;owned" in outcome.out


def test_printable_text_is_the_same_json(foreign):
    text = (
        json.dumps({"cause": HOSTILE}, ensure_ascii=False)
        .replace("\\u001b", "\x1b")
        .replace("\\u0007", "\x07")
        .replace("\\r", "\r")
    )
    assert json.loads(printable(text)) == {"cause": HOSTILE}
    assert printable("a\tb\nü 深さ 🙂") == "a\tb\nü 深さ 🙂"


def test_a_warning_beside_a_bar_does_not_steer_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    for _ in track(range(1), "images"):
        StderrHandler().emit(logging.makeLogRecord({"msg": HOSTILE}))
    err = capsys.readouterr().err
    assert r"\u001b]0;owned" in err
    assert [steering for steering in ("\x1b]", "\x07", "\x9b", "\u202e") if steering in err] == []


def test_names_with_brackets_are_printed_as_they_are(tiekd, tiny, as_yaml, in_folder):
    config = as_yaml(in_folder / "run.yaml", {**tiny, "teacher": None, "loss": {"name": "si", "target": "ground_truth"}})
    out = tiekd("run", config, "--store", NAME).out
    assert out.splitlines()[-1].startswith(f"{NAME}/runs/")


def test_a_run_needs_no_stderr(tiny, in_folder):
    document = {**tiny, "teacher": None, "loss": {"name": "si", "target": "ground_truth"}}
    (in_folder / "run.yaml").write_text(yaml.safe_dump(document))
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "tiekd", "run", "run.yaml", "--store", "store", "--json"]
        done = subprocess.run(command, stderr=full, stdout=subprocess.PIPE, text=True)
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "done")
