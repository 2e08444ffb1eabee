"""Launches that train teachers, make their maps and train students: in order, once, and after an end in every stage."""

import json
import re
import shlex
import shutil
import zipfile
from typing import Any

import pandas as pd
import pytest
from support.runs import compute

from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.data.inputs import made_maps_id, maps_folder, open_teacher, run_id_of
from tiekd.deploy.export_maps import make_maps
from tiekd.distill.preflight import ready_record
from tiekd.distill.run import execute
from tiekd.distill.runtime import LocalRuntime
from tiekd.store.run_store import RunStore

TEACHER = {"teacher": {"name": "own", "run": {"student.name": "small", "optim.epochs": 2}}}
BASELINE = {"loss.name": "si", "loss.target": "ground_truth"}
VARIANTS = {"variant": {"baseline": BASELINE, "mse": {"loss.name": "mse"}, "si": {"loss.name": "si"}}}


def run_ids(store: RunStore) -> set[str]:
    return {record.run_id for record in store.runs()}


def test_one_launch_trains_the_teacher_makes_its_maps_and_trains_the_students(
    tiekd, study_file, tiny, tmp_path, shared_cluster, monkeypatch
):
    path = study_file(base=tiny | TEACHER, factors=VARIANTS)
    words = "ablate", path, "--store", tmp_path / "store", "--address", shared_cluster
    first = tiekd(*words)
    assert first.code == 0, first.out + first.err
    ended = [line.split("  ")[0:] for line in first.out.splitlines() if line.startswith("done ")]
    names = [" ".join(" ".join(words).split()[1:3]) for words in ended]
    assert names.index("teacher=own, seed=0") < names.index("maps of") < names.index("variant=mse, seed=0")
    assert "3 cells: 3 done; computed 4, " in first.out
    again = tiekd(*words)
    assert (again.code, again.out.splitlines()[-1]) == (0, "3 cells: 3 done; nothing to compute")
    assert "belong to no study" not in tiekd("status", tmp_path / "store").out
    assert tiekd("bundle", "demo", "--store", tmp_path / "store", "--out", tmp_path / "paper.zip").code == 0
    with zipfile.ZipFile(tmp_path / "paper.zip") as archive:
        archive.extractall(tmp_path / "paper")
    (teacher,) = (tmp_path / "paper/teachers/runs").iterdir()
    assert {teacher.name} == run_ids(RunStore(tmp_path / "store")) - run_ids(RunStore(tmp_path / "paper/store"))
    # A second study finds teacher and maps in the store.
    other = study_file(name="other", base=tiny | TEACHER, factors={"loss.name": ["ssim_mse"]})
    plan = json.loads(tiekd("ablate", other, "--store", tmp_path / "store", "--dry-run", "--json").out)
    assert ([maps["made"] for maps in plan["maps"]], len(plan["to_compute"])) == ([True], 1)
    # The recipe makes teacher, maps and tables again in an empty folder.
    empty = tmp_path / "empty"
    shutil.copytree(tmp_path / "paper/report/recipe", empty / "recipe")
    (tmp_path / "store").rename(tmp_path / "gone")
    monkeypatch.chdir(empty)
    text = (tmp_path / "paper/report/report.md").read_text()
    launch, report = map(shlex.split, re.findall(r"^tiekd .*", text, flags=re.MULTILINE))
    assert tiekd(*launch[1:], "--address", shared_cluster).code == 0
    assert tiekd(*report[1:]).code == 0
    assert run_ids(RunStore("store")) == run_ids(RunStore(tmp_path / "gone"))
    before, after = (pd.read_parquet(folder / "report/tables.parquet") for folder in (tmp_path / "paper", empty))
    assert before["mean"].notna().any()
    columns = ["loss", "metric", "mean", "n_seeds", "run_ids"]
    pd.testing.assert_frame_equal(before[columns], after[columns], check_exact=True)


def test_students_of_a_teacher_that_diverges_are_missing_and_the_others_are_computed(
    tiekd, study_file, tiny, tmp_path, shared_cluster
):
    teacher = {"name": "wild", "run": {"loss": {"name": "mse", "target": "ground_truth"}, "optim.lr": 1e30}}
    path = study_file(base=tiny | {"teacher": teacher}, factors=VARIANTS)
    outcome = tiekd("ablate", path, "--store", tmp_path / "store", "--address", shared_cluster)
    assert outcome.code == 1
    assert "3 cells: 1 done, 2 missing; computed 4, " in outcome.out
    assert "missing teacher wild: its run " in outcome.out
    assert " diverged: not finite at step " in outcome.out
    assert len(run_ids(RunStore(tmp_path / "store"))) == 2


def test_a_search_makes_the_maps_that_its_trials_read(tiekd, study_file, tiny, tmp_path, shared_cluster):
    space = tmp_path / "space.yaml"
    space.write_text("parameters:\n  loss.mse_weight: {type: float, low: 0.5, high: 2.0}\n")
    base = tiny | TEACHER | {"loss": {"name": "mse"}}
    search = {"space": "space.yaml", "sampler": "random", "trials": 2, "objectives": ["abs_rel"]}
    path = study_file(base=base, search=search)
    words = "search", path, "--store", tmp_path / "store", "--address", shared_cluster
    outcome = tiekd(*words)
    assert outcome.code == 0, outcome.out + outcome.err
    assert "best trial: abs_rel " in outcome.out
    assert len(run_ids(RunStore(tmp_path / "store"))) == 3


def test_a_search_whose_teacher_diverges_says_so_each_time(tiekd, study_file, tiny, tmp_path, shared_cluster):
    teacher = {"name": "wild", "run": {"loss": {"name": "mse", "target": "ground_truth"}, "optim.lr": 1e30}}
    search = {"space": "dpm.yaml", "sampler": "random", "trials": 2, "objectives": ["abs_rel"]}
    path = study_file(base=tiny | {"teacher": teacher, "loss": {"name": "tie_kd"}}, search=search)
    for _ in range(2):
        outcome = tiekd("search", path, "--store", tmp_path / "store", "--address", shared_cluster)
        assert outcome.code == 2
        last = outcome.err.splitlines()[-1]
        assert last.startswith("tiekd: search demo-search: no trial can begin: teacher wild: its run ")
        assert " diverged: not finite at step " in last


def test_tiekd_run_trains_the_teacher_first(tiekd, as_yaml, tiny, tmp_path):
    path = as_yaml(tmp_path / "run.yaml", tiny | TEACHER | {"loss": {"name": "mse"}})
    outcome = tiekd("run", path, "--store", tmp_path / "store")
    assert outcome.code == 0, outcome.err
    config = build(tiny | TEACHER | {"loss": {"name": "mse"}, "execution": {"store": str(tmp_path / "store")}})
    assert run_ids(RunStore(tmp_path / "store")) == {run_id_of(config), run_id_of(config.teacher_run)}
    assert open_teacher(config).manifest.made_by["teacher"] == "own"


FRAMES = {"train_frames": 66, "test_frames": 2}  # two blocks of maps


@pytest.fixture(scope="session")
def long(tiny):
    """A base whose teacher, maps and students each take seconds."""
    teacher = {"name": "own", "run": {"student.name": "small", "optim.epochs": 3}}
    return tiny | {"data": tiny["data"] | FRAMES, "teacher": teacher}


@pytest.fixture(scope="session")
def uninterrupted(long, tmp_path_factory):
    """Metrics by run id and the digest of the maps, computed in this process."""
    store = RunStore(tmp_path_factory.mktemp("uninterrupted"))
    base = long | {"execution": {"store": store.uri}}
    configs = [build(with_values(base, changes)) for changes in VARIANTS["variant"].values()]
    compute(configs[1].teacher_run, store)
    assert make_maps(configs[1])
    for config in configs:
        compute(config, store)
    return {r.run_id: r.read_json("summary.json")["metrics"] for r in store.runs()}, open_teacher(configs[1]).digest()


class StopsAfterAnEpoch(LocalRuntime):
    def report(self, *epoch: Any) -> None:
        super().report(*epoch)
        raise KeyboardInterrupt


def test_a_launch_that_ends_in_every_stage_of_its_graph_ends_like_one_that_did_not(
    driver, tiekd, study_file, long, uninterrupted, tmp_path, shared_cluster
):
    store = RunStore(tmp_path / "store")
    path = study_file(base=long, factors=VARIANTS)
    words = "ablate", path, "--store", store.uri, "--address", shared_cluster
    student = build(with_values(long | {"execution": {"store": store.uri}}, VARIANTS["variant"]["mse"]))
    maps = tmp_path / "store" / maps_folder(made_maps_id(student))
    teacher = ready_record(student.teacher_run, store)
    with pytest.raises(KeyboardInterrupt):
        execute(student.teacher_run, teacher, lambda: StopsAfterAnEpoch(student.execution, teacher))
    assert (teacher.status().state, teacher.status().epoch) == ("running", 1)
    stages = [lambda: list(maps.glob("parts/*.json")), lambda: store.run(run_id_of(student)).status().epoch >= 1]
    for reached in stages:
        with driver(*words) as launch:
            launch.until(reached)
            launch.kill()
    assert teacher.status().state == "done"
    outcome = tiekd(*words)
    assert outcome.code == 0, outcome.out + outcome.err
    metrics, digest = uninterrupted
    assert {r.run_id: r.read_json("summary.json")["metrics"] for r in store.runs()} == metrics
    assert open_teacher(student).digest() == digest
