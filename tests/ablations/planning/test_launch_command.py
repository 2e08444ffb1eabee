"""A study's record tells the commands that launched it, in words that launch it again."""

from pathlib import Path

from ablations.planning.launch_command import build_argv, launch_commands
from ablations.prepared_study import prepare_study
from ablations.search.prepared_search import SearchOptions
from ablations.search.prepared_search import prepare_search as prepare_search
from tiekd.store.run_store import RunStore


def test_options_that_were_not_given_are_left_out():
    found = build_argv("ablate", Path("s.yaml"), store=None, set=["a=1", "b=x y"], dry_run=True, retry_failed=False, seeds=0)
    assert found == ["tiekd", "ablate", "s.yaml", "--set", "a=1", "--set", "b=x y", "--dry-run", "--seeds", "0"]


def test_each_launch_is_kept_once_the_latest_last(tmp_path):
    store = RunStore(tmp_path / "store")
    first, second = ["tiekd", "ablate", "s.yaml"], ["tiekd", "ablate", "s.yaml", "--seeds", "3"]
    assert launch_commands(store, "s", first) == [first]
    store.write_study("s", {"study": {}, "cells": [], "commands": [first, second]})
    assert launch_commands(store, "s", first) == [second, first]


def test_a_study_knows_its_launch(tmp_path, tiny, as_yaml):
    study = as_yaml(tmp_path / "study.yaml", {"name": "demo", "base": tiny, "factors": {"loss.scale": [1.0, 2.0]}})
    prepared = prepare_study(study, str(tmp_path / "store"), ["optim.lr=0.01"], "other", 2, ["loss.scale=1.0"])
    options = ["--store", str(tmp_path / "store"), "--set", "optim.lr=0.01", "--name", "other", "--seeds", "2"]
    assert prepared.commands == [["tiekd", "ablate", str(study), *options, "--only", "loss.scale=1.0"]]


def test_a_search_knows_its_launch_without_its_database(tmp_path, tiny, as_yaml):
    search = {"space": "bins.yaml", "trials": 2, "scheduler": "none"}
    study = as_yaml(tmp_path / "study.yaml", {"name": "demo", "base": tiny, "search": search})
    options = SearchOptions(trials=5, warm_start=False, storage=f"sqlite:///{tmp_path}/secret.db")
    prepared = prepare_search(study, str(tmp_path / "store"), [], None, options)
    rest = ["--store", str(tmp_path / "store"), "--trials", "5", "--cold-start"]
    assert prepared.commands == [["tiekd", "search", str(study), *rest]]
