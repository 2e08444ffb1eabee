"""A report ends with the commands that reproduce it."""

import pytest
from support.made_store import BASE, CELLS, fill, write_run

from reports.loading.collect import collect
from reports.pages.recipe import make_recipe
from reports.pages.reproduce import reproduction_blocks
from reports.render.blocks import Bullets, Commands
from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.store.run_status import Status

LAUNCHES = [["tiekd", "ablate", "my study.yaml", "--store", "s"], ["tiekd", "ablate", "my study.yaml", "--seeds", "3"]]


@pytest.fixture
def blocks(store):
    fill(store, CELLS[:2], 2, {"name": "demo"})
    store.write_study("demo", store.read_study("demo") | {"commands": LAUNCHES})
    fill(store, CELLS[:1], 1, {"name": "old"})
    for sigma in (0.1, 0.2, 0.3, 0.4, 0.6, 0.7):
        write_run(store, build(with_values(BASE, {"loss.sigma": sigma})), Status("done"), 0)
    record = store.run(store.read_study("demo")["cells"][0]["run_id"])
    record.write_json("provenance.json", {"git_commit": "def456", "dirty": "77", "hardware": {"cpus": 2}})
    return reproduction_blocks(collected := collect(store), make_recipe(collected, store), "tiekd report store --out r")


def commands(blocks) -> list[str]:
    (found,) = [block.lines for block in blocks if isinstance(block, Commands)]
    return found


def facts(blocks) -> str:
    (found,) = [block.items for block in blocks if isinstance(block, Bullets)]
    return "\n".join(item if isinstance(item, str) else f"{item[0]}: {'; '.join(item[1])}" for item in found)


def test_the_commands_are_the_recipe_and_the_report(blocks):
    lines = commands(blocks)
    runs = [line for line in lines if line.startswith("tiekd run recipe/students/")]
    assert len(runs) == 6
    assert lines[-3:] == [
        "tiekd ablate recipe/studies/demo.yaml --store store",
        "tiekd ablate recipe/studies/old.yaml --store store",
        "tiekd report store --out r",
    ]


def test_facts_are_listed_with_their_number_of_runs(blocks):
    text = facts(blocks)
    assert "Commits of the runs: commit abc123 (9 runs); commit def456 + uncommitted changes 77 (1 run)" in text
    assert "Versions: torch 2.9 (9 runs)\n" in text
    assert "Lock, and installed versions that differ from it: constraints.txt ab12, torch 2.9 (9 runs)\n" in text
    assert "Hardware: cpus 2 (1 run)" in text
    assert "Digests of inputs: test d1 (9 runs)\n" in text
    assert "Seeds: 0, 1\n" in text
    assert "Evaluation protocols: adabins-kb-garg\n" in text
    assert "Device-hours: 0.07 demo, 0.02 old, 0.10 (no study)\n" in text
    assert "This report: commit " in text or "This report: no git" in text


def test_missing_provenance_is_reported(store):
    store.write_study(
        "later",
        {"study": {}, "cells": [{"run_id": None, "config": build(BASE).document(), "factors": {}, "missing": "no maps"}]},
    )
    assert "Commits of the runs: not recorded" in facts(
        reproduction_blocks(collect(store), make_recipe(collect(store), store), "tiekd report")
    )
