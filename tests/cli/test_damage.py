"""Damage of every kind to every file of a store: all reading commands answer for the other runs and name the bad file.

`STATES` are generated: each kind of file, damaged in each way that applies to it. Commands that only read documents are tried
on all of them, those that run a network on `FEW`: on the files that they read. Maps and the database of a search, which only
launches read, are damaged at the end.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

import reports
from ablations.search.prepared_search import open_search, prepare_search, start_search
from tiekd.config import build
from tiekd.data.inputs import made_maps_id, maps_folder
from tiekd.deploy.export_maps import make_maps
from tiekd.deploy.hub import load_student
from tiekd.deploy.profile_records import Cost, cost_path, network_id, network_name, write_cost
from tiekd.errors import UserError
from tiekd.store.run_store import RunStore

pytestmark = pytest.mark.slow

RUN_FILES = (
    "config.yaml",
    "attempt.json",
    "status.json",
    "epochs.parquet",
    "images.parquet",
    "summary.json",
    "provenance.json",
    "efficiency.json",
    "student.safetensors",
    "checkpoint/state.pt",
    "error.txt",
)
STUDY_FILES = ("study.json", "findings.json", "best.yaml", "optuna.db", "launch.log")
COST, STUDY, SEARCH = "cost", "studies/other/", "studies/other-search/"
KINDS = (*RUN_FILES, STUDY + "study.json", *(SEARCH + name for name in STUDY_FILES), COST)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def random_bytes(content: bytes) -> bytes:
    return os.urandom(64)


def with_an_unknown_key(content: bytes) -> bytes:
    return json.dumps(json.loads(content) | {"of_a_newer_version": [1]}).encode()


def of_another_type(content: bytes) -> bytes:
    return json.dumps({key: {"a": None} for key in json.loads(content)}).encode()


def with_other_leaves(content: bytes) -> bytes:
    """Every value within a list or an object becomes a list, such as a teacher's run of a study and the label of a cell."""

    def change(value: object) -> object:
        if isinstance(value, dict):
            return {key: change(each) for key, each in value.items()}
        return [change(each) for each in value] if isinstance(value, list) else [1]

    top = json.loads(content)
    return json.dumps({key: change(value) if isinstance(value, list | dict) else value for key, value in top.items()}).encode()


# A content for the file, or None: the file is missing, or a folder is in its place.
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda content: b"",
    "cut": cut,
    "random": random_bytes,
    "missing": lambda content: None,
    "a folder": lambda content: None,
    "a list": lambda content: b"[1]",
    "nested": lambda content: b"[" * 50_000,
    "unknown key": with_an_unknown_key,
    "other types": of_another_type,
    "other leaves": with_other_leaves,
}
JSON_ONLY = ("a list", "nested", "unknown key", "other types", "other leaves")
FLAT = ("attempt.json", "status.json")  # without lists and objects, whose values "other leaves" changes
STATES = [(k, d) for k in KINDS for d in DAMAGES if d not in JSON_ONLY or k.endswith(".json") or k == COST]
STATES = [(kind, damage) for kind, damage in STATES if damage != "other leaves" or kind not in FLAT]
UNREAD = ("error.txt", "checkpoint/state.pt", *(SEARCH + name for name in ("best.yaml", "optuna.db", "launch.log")))
STATES = [(kind, damage) for kind, damage in STATES if damage in ("a folder", "missing") or kind not in UNREAD]
READ = (
    "config.yaml",
    "status.json",
    "images.parquet",
    "summary.json",
    "provenance.json",
    "student.safetensors",
    STUDY + "study.json",
)
FEW = [*((k, "cut") for k in READ), ("student.safetensors", "a folder")]


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiekd, tiny, as_yaml) -> RunStore:
    """Two runs, one of them of a study, a search and a measured network: a store with every kind of file."""
    folder = tmp_path_factory.mktemp("damage")
    store = RunStore(folder / "store")
    documents = {}
    for loss in ("si", "mse"):
        document = tiny | {"loss": {"name": loss}, "optim": {"epochs": 1, "batch_size": 4}}
        config = as_yaml(folder / f"{loss}.yaml", document)
        outcome = tiekd("run", config, "--store", store.uri, "--json", "--set", "execution.keep_checkpoint=true")
        assert outcome.code == 0, outcome
        documents[loss] = json.loads(outcome.out)["run_id"], document
    for loss, (run_id, document) in documents.items():
        record, name = store.run(run_id), {"si": "other", "mse": "whole"}[loss]
        study = as_yaml(folder / f"{name}.yaml", {"name": name, "base": document})
        outcome = tiekd("ablate", study, "--store", store.uri, "--json")
        assert outcome.code == 0, outcome
        record.write_json("efficiency.json", {"milliseconds": 1.0, "parameters": 7})
        record.write_file("error.txt", b"trace")
        config = record.config()
        write_cost(store, Cost(network_id(config), network_name(config), [64, 96], "fp32", "cpu", 7, 7, 1.0, 1.0, 1.0, 5, 9))
    search = store.read_study("other")
    search["study"] |= {"name": "other-search", "kind": "search", "search": {"space": "dpm.yaml", "objectives": ["abs_rel"]}}
    store.write_study("other-search", search)
    store.write_json(f"{SEARCH}findings.json", {"importance": {"loss.sigma": 1.0}})
    for name in ("best.yaml", "optuna.db", "launch.log"):
        store.write_bytes(SEARCH + name, b"content of a file")
    return store


@pytest.fixture(scope="module")
def runs(store) -> tuple[str, str]:
    """The run whose files are damaged, and the other one."""
    return tuple(store.read_study(name)["cells"][0]["run_id"] for name in ("other", "whole"))


@contextmanager
def damaged(store: RunStore, run_id: str, kind: str, damage: str) -> Iterator[str]:
    """Damage one file of the store; yields its name in the store, and mends it."""
    cost = network_id(store.run(run_id).config()), "cpu"
    name = f"runs/{run_id}/{kind}" if kind in RUN_FILES else cost_path(*cost[::-1]) if kind == COST else kind
    path = Path(store.uri, name)
    content = path.read_bytes()
    path.unlink()
    if (changed := DAMAGES[damage](content)) is not None:
        path.write_bytes(changed)
    elif damage == "a folder":
        path.mkdir()
    try:
        yield name
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(content)


def is_bad(name: str, damage: str) -> bool:
    """Whether a reader of this file has to say something: a missing file and an unknown key are no damage."""
    return damage not in ("missing", "unknown key")


NAMED_BY_STATUS = ("status.json", "summary.json", STUDY + "study.json", SEARCH + "study.json")
NAMED_BY_REPORT = (*NAMED_BY_STATUS, "epochs.parquet", "images.parquet", "provenance.json", SEARCH + "findings.json", COST)


@pytest.mark.parametrize(("kind", "damage"), STATES)
def test_readers_of_documents_answer_for_the_others_and_name_the_bad_file(tiekd, store, runs, kind, damage):
    bad, whole = runs
    with damaged(store, bad, kind, damage) as name:
        outcome = tiekd("status", store.uri, "--json")
        assert outcome.code == 0, outcome
        status = json.loads(outcome.out)
        assert status["studies"]["whole"]["states"] == {"done": 1}
        assert status["studies"]["whole"]["best"]["run_id"] == whole
        expected = {name} if kind in NAMED_BY_STATUS and is_bad(name, damage) else set()
        assert set(status["damaged"]) == expected
        assert all(file in outcome.err for file in expected)

        found = reports.load(store.uri)
        table = found.tables.query("table == 'whole' and metric == 'abs_rel'")
        assert table["mean"].notna().tolist() == [True]
        assert whole in set(found.epochs["run_id"])
        expected = {name} if kind in NAMED_BY_REPORT and is_bad(name, damage) else set()
        assert set(found.damaged) == expected

        outcome = tiekd("ablate", Path(store.uri).parent / "other.yaml", "--store", store.uri, "--dry-run", "--json")
        assert outcome.code == 0, outcome
        lost = kind == "status.json" and damage != "unknown key"
        assert json.loads(outcome.out)["to_compute"] == ([bad] if lost else [])

        if kind in ("config.yaml", STUDY + "study.json"):  # it reads costs, too, but would measure the network again, for long
            outcome = tiekd("measure", store.uri, "--json")
            assert (outcome.code, json.loads(outcome.out)["failed"]) == (0, []), outcome


@pytest.mark.parametrize(("kind", "damage"), FEW)
def test_users_of_networks_answer_for_the_others_and_name_the_bad_file(tiekd, store, runs, tmp_path, kind, damage):
    bad, whole = runs
    image = tmp_path / "image.png"
    Image.new("RGB", (96, 64)).save(image)
    viewer = Path(store.uri).parent / "viewer"
    if kind == "student.safetensors":
        shutil.rmtree(viewer, ignore_errors=True)  # else the pictures are there already
    with damaged(store, bad, kind, damage):
        outcome = tiekd("view", store.uri, "--out", viewer, "--json")
        assert outcome.code == 0, outcome
        shown = [run_id for dataset in json.loads(outcome.out)["datasets"].values() for run_id in dataset["runs"]]
        assert whole in shown
        needed = ("config.yaml", "status.json", "summary.json", "student.safetensors")
        assert (bad in shown) == (kind not in needed)

        for weights, intact in ((whole, True), (bad, kind != "student.safetensors")):
            folder = f"{store.uri}/runs/{weights}"
            words = [("export", folder, "--format", "hub", "--out", tmp_path / f"{weights}-hub")]
            if kind in ("config.yaml", "status.json", "student.safetensors"):  # which alone they could read
                words += [("predict", folder, image, "--out", tmp_path / weights), ("evaluate", weights, "--store", store.uri)]
            for command in words if intact or weights == bad else ():
                outcome = tiekd(*command)
                assert outcome.code == (0 if intact else 2), outcome
                assert intact or outcome.err.count("\n") == 1
        assert load_student(f"{store.uri}/runs/{whole}") is not None


@pytest.mark.parametrize("kind", ["summary.json", STUDY + "study.json"])
def test_a_report_lists_damaged_files(tiekd, store, runs, tmp_path, kind):
    with damaged(store, runs[0], kind, "cut") as name:
        outcome = tiekd("report", store.uri, "--out", tmp_path / "report", "--json")
        assert outcome.code == 0, outcome
        assert name in json.loads(outcome.out)["damaged"]
        assert name.rpartition("/")[2] in (tmp_path / "report/report.md").read_text().partition("Damaged files")[2]
        assert len(pd.read_parquet(tmp_path / "report/tables.parquet").query("table == 'whole'")) > 0


def test_a_study_whose_record_is_damaged_is_recorded_again(tiekd, store, runs):
    for kind in ("summary.json", STUDY + "study.json", "epochs.parquet"):
        with damaged(store, runs[0], kind, "cut"):
            outcome = tiekd("ablate", Path(store.uri).parent / "other.yaml", "--store", store.uri, "--json")
            assert outcome.code == 0, outcome
            assert store.read_study("other") is not None


# -- what launches read beside runs and studies -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_maps(store, runs, tiny, as_yaml) -> tuple[Path, Path, str]:
    """A study whose teacher is the weights of a run, the folder of the maps that they made in a store, and a map's name."""
    folder = Path(store.uri).parent
    weights = folder / "teacher.safetensors"
    shutil.copy(f"{store.uri}/runs/{runs[1]}/student.safetensors", weights)
    document = tiny | {"teacher": {"name": "own", "weights": str(weights)}, "loss": {"name": "mse"}}
    document |= {"execution": {"store": str(folder / "made")}}
    config = build(document)
    assert make_maps(config)
    maps = folder / "made" / maps_folder(made_maps_id(config))
    path = as_yaml(folder / "maps.yaml", {"name": "maps", "base": document})
    return path, maps, next((maps / "train").rglob("*.png")).relative_to(maps).as_posix()


def replace(path: Path, damage: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if (changed := DAMAGES[damage](content)) is not None:
        path.write_bytes(changed)
    elif damage == "a folder":
        path.mkdir()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["manifest.json", "parts/000000.json", "map"])
def test_damaged_maps_are_made_again_or_named(tiekd, with_maps, tmp_path, kind, damage):
    path, made, name = with_maps
    if kind == "map" and damage in JSON_ONLY:
        return
    maps = tmp_path / "store/maps" / made.name
    shutil.copytree(made, maps)
    if kind == "parts/000000.json":  # as a killed launch leaves them
        content = json.loads((maps / "manifest.json").read_bytes())
        (maps / "parts").mkdir(exist_ok=True)
        (maps / kind).write_text(json.dumps({"maps_id": made.name, "sizes": content["sizes"], "frames": content["frames"]}))
        (maps / "manifest.json").unlink()
    replace(maps / (name if kind == "map" else kind), damage)
    words = "ablate", path, "--store", tmp_path / "store", "--dry-run", "--json"
    outcome = tiekd(*words)
    assert outcome.code == 0, outcome
    found = json.loads(outcome.out)
    if kind == "map" or (kind == "manifest.json" and damage == "a folder"):
        assert found["to_compute"] == []
        assert [(name.removesuffix(".png") if kind == "map" else kind) in line for line in found["missing_inputs"]] == [True]
    else:
        assert len(found["to_compute"]) == 1
        whole = kind == "manifest.json" and damage == "unknown key"
        assert [each["made"] for each in found["maps"]] == [whole]


@pytest.mark.parametrize("damage", [damage for damage in DAMAGES if damage not in JSON_ONLY])
def test_a_damaged_database_of_a_search_is_named(as_yaml, tiny, tmp_path, damage):
    base = tiny | {"loss": {"name": "tie_kd"}}
    study = as_yaml(tmp_path / "study.yaml", {"name": "s", "base": base, "search": {"space": "sigma.yaml", "trials": 3}})
    prepared = prepare_search(study, str(tmp_path / "store"))
    with open_search(prepared):
        pass
    database = tmp_path / "store/studies/s-search/optuna.db"
    replace(database, damage)
    if damage in ("empty", "missing"):
        assert start_search(prepared, Console(quiet=True)) == 3
        return
    with pytest.raises(UserError, match=r"optuna\.db"):
        start_search(prepared, Console(quiet=True))
