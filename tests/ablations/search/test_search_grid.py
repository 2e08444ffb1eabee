"""`tiekd search` on a cluster: a grid with a condition, two seeds, two objectives, a warm start and PostgreSQL."""

import json
import statistics
import subprocess
import sys

import pytest

from tiekd.store.run_store import RunStore

SEEDS = [0, 1]
SPACE = {
    "loss.name": {"type": "categorical", "choices": ["si", "mse"]},
    "loss.mse_weight": {"type": "float", "low": 0.5, "high": 2.0, "points": 2, "when": {"loss.name": ["mse"]}},
}
POINTS = [{"loss.name": "si"}, {"loss.name": "mse", "loss.mse_weight": 0.5}, {"loss.name": "mse", "loss.mse_weight": 2.0}]
SEARCH = {
    "space": "losses.yaml",
    "sampler": "grid",
    "scheduler": "none",
    "objectives": ["abs_rel", "milliseconds"],
    "seeds": SEEDS,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny, as_yaml):
    """A folder with a study, its search space and the config of a run."""
    folder = tmp_path_factory.mktemp("grid")
    as_yaml(folder / "losses.yaml", {"parameters": SPACE})
    as_yaml(folder / "study.yaml", {"name": "demo", "base": tiny | {"optim": {"epochs": 1}}, "search": SEARCH})
    as_yaml(folder / "run.yaml", tiny | {"optim": {"epochs": 1}})
    return folder


@pytest.fixture(scope="module")
def command(folder, postgresql):
    return "search", folder / "study.yaml", "--store", folder / "store", "--storage", postgresql, "--warm-start"


@pytest.fixture(scope="module")
def store(folder):
    return RunStore(folder / "store")


@pytest.fixture(scope="module")
def known(folder, tiekd):
    """The runs of the first point, computed before the search."""
    for seed in SEEDS:
        assert tiekd("run", folder / "run.yaml", "--set", f"seed={seed}", "--store", folder / "store").code == 0
    return {record.run_id for record in RunStore(folder / "store").runs()}


@pytest.fixture(scope="module")
def searched(known, command, tiekd, shared_cluster):
    """The outcome of the launch."""
    return tiekd(*command, "--json", "--address", shared_cluster)


@pytest.fixture(scope="module")
def found(searched):
    """The JSON object that the launch printed last."""
    assert searched.code == 0, searched.err
    return json.loads(searched.out.splitlines()[-1])


def test_every_point_has_one_trial_and_the_finished_one_is_warm(found, known):
    assert sorted((t["params"] for t in found["best"]), key=str) == sorted(POINTS, key=str)
    (warm,) = [t for t in found["best"] if t["warm"]]
    assert (warm["params"], set(warm["run_ids"])) == (POINTS[0], known)
    assert found["trials"] == len(POINTS)


def test_values_are_means_over_the_runs_of_the_seeds(found, store):
    for trial in found["best"]:
        runs = [store.run(run_id) for run_id in trial["run_ids"]]
        assert [run.config().seed for run in runs] == SEEDS
        abs_rel = [run.read_json("summary.json")["metrics"]["abs_rel"] for run in runs]
        milliseconds = [run.read_json("efficiency.json")["milliseconds"] for run in runs]
        assert trial["by_seed"] == {"abs_rel": abs_rel, "milliseconds": milliseconds}
        assert trial["values"] == pytest.approx(
            {"abs_rel": statistics.fmean(abs_rel), "milliseconds": statistics.fmean(milliseconds)}
        )
        assert trial["spread"]["abs_rel"] == pytest.approx(statistics.stdev(abs_rel))
    assert len(list(store.runs())) == len(POINTS) * len(SEEDS)


def test_front_has_the_trials_that_no_other_dominates(found):
    def surpassed(trial):
        values = list(trial["values"].values())
        others = [list(t["values"].values()) for t in found["best"]]
        return any(o != values and all(a <= b for a, b in zip(o, values, strict=True)) for o in others)

    assert found["front"] == [t for t in found["best"] if not surpassed(t)]


def test_best_config_is_a_run_that_is_done(found, store, tiekd):
    assert found["best_config"] == f"{store.uri}/studies/demo-search/best.yaml"
    outcome = tiekd("run", found["best_config"], "--json")
    assert (outcome.code, json.loads(outcome.out)["run_id"]) == (0, found["best"][0]["run_ids"][0])
    assert len(list(store.runs())) == len(POINTS) * len(SEEDS)


def test_every_run_is_a_cell_of_the_study_in_the_store(found, store):
    cells = store.read_study("demo-search")["cells"]
    assert {(c["run_id"], c["seed"]) for c in cells} == {
        (run_id, seed) for t in found["best"] for run_id, seed in zip(t["run_ids"], SEEDS, strict=True)
    }


def test_password_is_neither_stored_nor_printed(found, searched, folder):
    texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert not any(b"not-a-secret" in text for text in [*texts, searched.out.encode(), searched.err.encode()])


def test_same_command_runs_nothing_and_imports_neither_ray_nor_torch(found, folder, command, files):
    before = files(folder / "store" / "runs")
    heavy = "atexit.register(lambda: print(sorted({'ray', 'torch'} & set(sys.modules))))"
    code = f"import atexit, sys, tiekd.__main__ as t; {heavy}; t.main()"
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True, timeout=240)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, lines[-1]) == (0, "", "[]")
    assert lines[0] == "search demo-search: added 0 finished points of the store as trials"
    assert lines[1] == "search demo-search: 0 of 3 trials to run, objectives abs_rel, milliseconds, mean over seeds 0, 1"
    assert files(folder / "store" / "runs") == before


def test_results_are_written_to_the_store(found, store):
    told = {name: value for name, value in found.items() if name not in ("event", "time")}
    assert store.read_json("studies/demo-search/findings.json") == told
