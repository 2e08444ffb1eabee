"""A report contains what makes it again in an empty folder."""

import shlex
import shutil

import pandas as pd
import pytest
import yaml
from support.made_store import BASE, CELLS, fill, write_run

from ablations.planning.cells import expand_cells
from ablations.planning.study import load_study
from reports.loading.collect import collect
from reports.pages.recipe import make_recipe
from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

STUDY = {
    "name": "demo",
    "base": {**BASE, "teacher": {"name": "bts", "maps": "made/maps"}, "execution": {"packed": "packed"}},
    "factors": {"loss.name": ["si", "tie_kd"]},
    "seeds": [0],
}


def test_the_recipe_makes_the_same_tables_in_an_empty_folder(tiekd, tiny, as_yaml, in_folder, monkeypatch):
    ground_truth = {"loss": {"name": "si", "target": "ground_truth"}, "teacher": None, "optim.epochs": 1}
    teacher = as_yaml(in_folder / "my teacher.yaml", with_values(tiny, ground_truth))
    student = as_yaml(
        in_folder / "my student.yaml", with_values(tiny, {"optim.epochs": 1, "teacher.maps": str(in_folder / "maps")})
    )
    commands = [
        ["run", teacher, "--store", "mine"],
        ["teacher", "export", teacher, "--store", "mine", "--out", in_folder / "maps", "--name", "small"],
        ["run", student, "--store", "mine"],
        ["report", "mine", "--out", "report"],
    ]
    assert [tiekd(*words).code for words in commands] == [0] * 4
    mine = RunStore("mine")
    (trained,) = make_recipe(collect(mine), mine).teachers
    assert mine.run(trained).document()["loss"]["target"] == "ground_truth"
    empty = in_folder / "empty"
    shutil.copytree(in_folder / "report" / "recipe", empty / "recipe")
    page = (in_folder / "report" / "report.md").read_text()
    for path in ("maps", "mine", "my teacher.yaml", "my student.yaml"):
        (in_folder / path).rename(in_folder / f"gone {path}")
    monkeypatch.chdir(empty)
    lines = [line for line in page.splitlines() if line.startswith("tiekd ")]
    assert [tiekd(*shlex.split(line)[1:]).code for line in lines] == [0] * len(lines)
    assert [shlex.split(line)[1] for line in lines] == ["run", "teacher", "run", "run", "report"]
    before, after = (pd.read_parquet(folder / "report/tables.parquet") for folder in (in_folder, empty))
    assert before["mean"].notna().any()
    pd.testing.assert_frame_equal(*(table[["loss", "metric", "mean", "n_seeds"]] for table in (before, after)))


@pytest.fixture
def recipe(store):
    """The recipe of a study that was launched three times, and of runs without a study."""
    fill(store, CELLS[:1], 1, {"name": "demo"})
    launches = [
        ["tiekd", "ablate", "my.yaml", "--set", "seed=1", *options] for options in ([], ["--seeds", "2"], ["--only", "a=b"])
    ]
    store.write_study("demo", store.read_study("demo") | {"study": STUDY, "commands": launches})
    write_run(store, build(with_values(BASE, {"loss.sigma": 0.1})), Status("done"), 0)
    return make_recipe(collect(store), store)


def test_a_study_is_launched_from_its_document(recipe, tmp_path):
    launches = [line for line in recipe.commands if " ablate " in line]
    assert launches == [f"tiekd ablate recipe/studies/demo.yaml --store store{only}" for only in ("", " --only a=b")]
    (tmp_path / "demo.yaml").write_text(recipe.files["recipe/studies/demo.yaml"])
    assert len(expand_cells(load_study(tmp_path / "demo.yaml"))) == 2
    assert yaml.safe_load(recipe.files["recipe/studies/demo.yaml"])["base"]["execution"] == {}


def test_a_search_is_launched_from_its_study_and_its_space(store, in_folder):
    (in_folder / "own.yaml").write_text("parameters: {}\n")
    fill(store, CELLS[5:6], 1, {"name": "demo-search"})
    search = STUDY | {"name": "demo-search", "kind": "search", "search": {"space": "own.yaml", "trials": 3}}
    launch = ["tiekd", "search", "my.yaml", "--trials", "9", "--name", "demo", "--cold-start"]
    store.write_study("demo-search", store.read_study("demo-search") | {"study": search, "commands": [launch]})
    made = make_recipe(collect(store), store)
    assert made.commands[-1] == "tiekd search recipe/studies/demo-search.yaml --store store --trials 9 --cold-start"
    document = yaml.safe_load(made.files["recipe/studies/demo-search.yaml"])
    assert (document["name"], "kind" in document) == ("demo", False)
    assert made.files["recipe/studies/own.yaml"] == "parameters: {}\n"


def test_what_the_recipe_cannot_make_is_named(recipe):
    comments = [line for line in recipe.commands if line.startswith("#")]
    assert comments
    assert all("needs the maps of" in line for line in comments)


def test_many_runs_are_a_loop(store):
    for sigma in range(1, 23):
        write_run(store, build(with_values(BASE, {"loss.sigma": sigma})), Status("done"), 0)
    made = make_recipe(collect(store), store)
    (loop,) = [line for line in made.commands if not line.startswith("#")]
    assert loop == "for config in recipe/students/*.yaml; do tiekd run $config --store store; done"
    assert len([path for path in made.files if path.startswith("recipe/students/")]) == 22


def test_relative_maps_are_imported_and_aligned_again(tiekd, tiny, maps, as_yaml, in_folder):
    teacher = {"name": "relative", "maps": str(in_folder / "maps"), "align": "median"}
    student = as_yaml(in_folder / "student.yaml", tiny | {"teacher": teacher, "optim": {"epochs": 1, "batch_size": 4}})
    for words in (["teacher", "import", student, maps, "--out", in_folder / "maps", "--relative"], ["run", student]):
        outcome = tiekd(*words)
        assert outcome.code == 0, outcome.err
    found = make_recipe(collect(RunStore("store")), RunStore("store"))
    (imported,) = (line for line in found.commands if " import " in line)
    assert shlex.split(imported)[-1] == "--relative"
    assert any("align: median" in text for text in found.files.values())
