"""The commands that launched a study, as they are recorded in the store."""

from pathlib import Path

from ablations.planning.launch_command import build_argv, launch_commands
from ablations.prepared_study import prepare_study
from ablations.search.prepared_search import SearchOptions
from ablations.search.prepared_search import prepare_search as prepare_search
from tiekd.config.documents import parse_overrides
from tiekd.store.claims import open_launch
from tiekd.store.run_store import RunStore


def test_argv_leaves_out_options_that_were_not_given():
    found = build_argv("ablate", Path("s.yaml"), store=None, set=["a=1", "b=x y"], dry_run=True, retry_failed=False, seeds=0)
    assert found == ["tiekd", "ablate", "s.yaml", "--set", "a=1", "--set", "b=x y", "--dry-run", "--seeds", "0"]


def test_argv_repeats_an_option_per_override_and_in_yaml():
    found = build_argv("ablate", "debug", set={"optim.lr": 1e-05, "data.root": None, "bins.spacing": "log", "crop": [1, 2]})
    overrides = ["optim.lr=1.0e-05", "data.root=null", "bins.spacing=log", "crop=[1, 2]"]
    assert found == ["tiekd", "ablate", "debug", *(word for text in overrides for word in ("--set", text))]
    assert parse_overrides(overrides) == {"optim.lr": 1e-05, "data.root": None, "bins.spacing": "log", "crop": [1, 2]}


def test_launch_commands_have_no_duplicates_and_the_latest_is_last(tmp_path):
    store = RunStore(tmp_path / "store")
    first, second = ["tiekd", "ablate", "s.yaml"], ["tiekd", "ablate", "s.yaml", "--seeds", "3"]
    assert launch_commands(store, "s", first) == [first]
    store.write_study("s", {"study": {}, "cells": [], "commands": [first, second]})
    assert launch_commands(store, "s", first) == [second, first]


def test_launch_commands_of_launches_that_go_on_are_not_lost(tmp_path):
    """Each writes the record with what it knows, the last one last."""
    store = RunStore(tmp_path / "store")
    commands = [["tiekd", "ablate", "s.yaml", "--shard", f"{number}/3"] for number in (1, 2, 3)]
    store.write_study("s", {"study": {}, "cells": [], "commands": commands[:1]})
    with open_launch(store, "s", commands[1]), open_launch(store, "other", ["tiekd", "ablate", "o.yaml"]):
        assert launch_commands(store, "s", commands[2]) == commands
        assert launch_commands(store, "s", commands[1]) == commands[:2]


def test_prepared_study_has_its_launch_command(tmp_path, tiny, as_yaml):
    study = as_yaml(tmp_path / "study.yaml", {"name": "demo", "base": tiny, "factors": {"loss.scale": [1.0, 2.0]}})
    prepared = prepare_study(study, str(tmp_path / "store"), ["optim.lr=0.01"], "other", 2, ["loss.scale=1.0"])
    options = ["--store", str(tmp_path / "store"), "--set", "optim.lr=0.01", "--name", "other", "--seeds", "2"]
    assert prepared.commands == [["tiekd", "ablate", str(study), *options, "--only", "loss.scale=1.0"]]


def test_prepared_search_has_its_launch_command_without_the_database(tmp_path, tiny, as_yaml):
    search = {"space": "loss.yaml", "trials": 2, "scheduler": "none"}
    study = as_yaml(tmp_path / "study.yaml", {"name": "demo", "base": tiny, "search": search})
    options = SearchOptions(trials=5, warm_start=False, storage=f"sqlite:///{tmp_path}/secret.db")
    prepared = prepare_search(study, str(tmp_path / "store"), [], None, options)
    rest = ["--store", str(tmp_path / "store"), "--trials", "5", "--cold-start"]
    assert prepared.commands == [["tiekd", "search", str(study), *rest]]
