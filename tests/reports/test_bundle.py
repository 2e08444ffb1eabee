"""`tiekd bundle`, and `tiekd report` of its zip file on a machine that has nothing else."""

import json
import random
import shutil
import warnings
import zipfile
from pathlib import Path

import pytest
from support.made_store import CELLS, fill, write_costs, write_run

from reports.loading.stores import collect_stores, join_frames
from reports.loading.zipped import opened_store
from tiekd.config import build
from tiekd.store.provenance import LOCK
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

CHOSEN = [CELLS[number] for number in (0, 1, 8)]
TABLES = (
    "tables.parquet",
    "tables.csv",
    "tables.md",
    "tables.tex",
    "runs.parquet",
    "runs.md",
    "epochs.parquet",
    "images.parquet",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> tuple[RunStore, str]:
    """A store with the made study, the run of its teacher, another study, weights, and measured costs; the teacher's run id."""
    store = RunStore(tmp_path_factory.mktemp("source") / "store")
    fill(store, CHOSEN, 2, {"name": "demo", "title": "Demo study"}, {(1, 1): Status("failed", "no memory")}, (2, 1))
    fill(store, [{"loss.sigma": 0.3}], 1, {"name": "other"})
    write_costs(store, [*CHOSEN, {"student.name": "resnet50"}], [1, 1, 2, 3])
    teacher = write_run(
        store, build({"data": {"dataset": "nyu"}, "student": {"name": "bts"}, "teacher": None}), Status("done"), 0
    )
    store.write_study("demo", store.read_study("demo") | {"teachers": [teacher]})
    for record in store.runs():
        record.write_file("student.safetensors", b"weights")
    return store, teacher


@pytest.fixture(scope="module")
def zipped(source, tiekd, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "new" / "paper.zip"
    outcome = tiekd("bundle", "demo", "--store", source[0].uri, "--out", out)
    assert outcome.code == 0, outcome.err
    lock, told = outcome.out.splitlines()
    assert lock == "constraints.txt is the lock that 0 of 5 runs used"
    assert told.endswith("files; study demo, 5 runs, 1 of its teachers")
    return out


def files_of(report: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(report)): path.read_bytes()
        for path in (*(report / name for name in TABLES), *sorted((report / "paper").iterdir()))
    }


def test_a_report_of_the_zip_has_the_same_tables(source, zipped, tiekd, in_folder, monkeypatch):
    """Without the store, in another folder."""
    original = in_folder / "original"
    assert tiekd("report", source[0].uri, "--study", "demo", "--out", original).code == 0
    (in_folder / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(in_folder / "temporary"))
    Path(source[0].uri).rename(f"{source[0].uri} gone")
    try:
        outcome = tiekd("report", zipped, "--out", "again")
    finally:
        Path(f"{source[0].uri} gone").rename(source[0].uri)
    assert outcome.code == 0, outcome.err
    expected = files_of(original)
    assert {name for name in expected if name.startswith("paper/")} == {
        f"paper/demo.{kind}" for kind in ("tex", "md", "csv", "xlsx")
    }
    assert files_of(in_folder / "again") == expected
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(in_folder / "by hand")
    assert files_of(in_folder / "by hand" / "report") == expected
    assert list((in_folder / "temporary").iterdir()) == []


def test_the_zip_holds_what_a_report_reads_and_no_weights(source, zipped):
    store, teacher = source
    with zipfile.ZipFile(zipped) as archive:
        names = archive.namelist()
        for name in names:
            if name.startswith("store/"):
                assert archive.read(name) == store.read_bytes(name.removeprefix("store/"))
        assert archive.read("constraints.txt") == LOCK.read_bytes()
    costs = [name for name in names if name.startswith("store/efficiency/cpu/")]
    planned = {cell["run_id"] for cell in store.read_study("demo")["cells"]}
    runs = {name.split("/")[2] for name in names if name.startswith("store/runs/")}
    assert (len(planned), len(planned - runs), runs - planned) == (6, 1, set())
    assert {name.split("/")[2] for name in names if name.startswith("teachers/")} == {teacher}
    assert {name.split("/")[-1] for name in names if "/runs/" in name} == {
        *("config.yaml", "status.json", "summary.json", "provenance.json", "epochs.parquet", "images.parquet")
    }
    assert (len(list(Path(store.uri).glob("efficiency/cpu/*"))), len(costs)) == (3, 2)
    assert {"report/report.html", "report/recipe/studies/demo.yaml", "store/studies/demo/study.json"} <= set(names)
    assert not any(name.startswith("store/studies/other") for name in names)


def test_the_crate_describes_it(zipped):
    with zipfile.ZipFile(zipped) as archive:
        names, crate = archive.namelist(), json.loads(archive.read("ro-crate-metadata.json"))
    assert names[0] == "ro-crate-metadata.json"
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(entities) == len(crate["@graph"])
    assert entities["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    assert crate["@context"] == entities["ro-crate-metadata.json"]["conformsTo"]["@id"] + "/context"
    root = entities["./"]
    assert (root["@type"], root["name"]) == ("Dataset", "Demo study")
    assert {"description", "datePublished", "license", "hasPart"} <= set(root)
    assert "CC BY-NC-SA 3.0" in entities[root["license"][0]["@id"]]["description"]
    files = {name for name in names if not name.startswith(("store/", "teachers/", "ro-crate"))}
    assert {part["@id"] for part in root["hasPart"]} == {"report/", "store/", "teachers/", *files}
    assert entities["#input-test-d1"] | {"@id": ""} == {
        **{"@id": "", "@type": "PropertyValue", "name": "digest of test", "value": "d1", "description": "read by 5 runs"}
    }
    referred = [value for entity in crate["@graph"] for value in entity.values() if isinstance(value, dict | list)]
    targets = {one["@id"] for value in referred for one in (value if isinstance(value, list) else [value])}
    assert targets - set(entities) == {"https://w3id.org/ro/crate/1.1"}


def test_the_same_store_gives_the_same_zip(source, zipped, tiekd, tmp_path):
    shutil.copytree(source[0].uri, tmp_path / "copy")
    (tmp_path / "paper.zip").write_bytes(b"old")
    outcome = tiekd("bundle", "demo", "--store", tmp_path / "copy", "--out", tmp_path / "paper.zip", "--json")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "paper.zip").read_bytes() == zipped.read_bytes()
    assert json.loads(outcome.out) | {"files": 0} == {
        **{"out": str(tmp_path / "paper.zip"), "bytes": zipped.stat().st_size, "runs": 5, "teachers": 1, "files": 0},
        "lock": "constraints.txt is the lock that 0 of 5 runs used",
    }


def test_a_zip_stands_beside_a_store(zipped, store):
    fill(store, [{"loss.name": "mse"}], 1, {"name": "third"})
    with opened_store(str(zipped)) as unpacked, opened_store(store.uri) as other:
        runs = join_frames(collect_stores([unpacked, other]), [unpacked, other]).runs
        assert Path(unpacked.uri).name == "paper.zip"  # which messages show
    assert runs["study"].tolist() == ["demo"] * 6 + ["third"]
    assert not Path(unpacked.uri).exists()


STUDY = {"store/studies/demo/study.json": b'{"study": {}, "cells": []}'}
BAD = {
    "text": (None, "expected a folder, a URI or a zip file of `tiekd bundle`: BadZipFile: File is not a zip file"),
    "empty": ({}, "has no store/studies/NAME/study.json"),
    "no study": ({"store/runs/a/status.json": b"{}"}, "has no store/studies/NAME/study.json"),
    "above": (STUDY | {"store/runs/../../../x": b""}, "has the name 'store/runs/../../../x', expected a path below one folder"),
    "absolute": (STUDY | {"/etc/x": b""}, "has the name '/etc/x'"),
    "backslash": (STUDY | {"..\\x": b""}, "has the name '..\\\\x'"),
    "a bomb": (STUDY | {"store/runs/a/epochs.parquet": bytes(2**27)}, "more than 100 times as many"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_zip_is_a_mistake(mistake, in_folder, kind):
    members, told = BAD[kind]
    if members is None:
        (in_folder / "bad.zip").write_text("no zip")
    else:
        with zipfile.ZipFile("bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    line = mistake("report", "bad.zip", "--out", "new/out")
    assert line.startswith("tiekd: store bad.zip: ")
    assert told in line


def test_a_name_that_comes_twice_is_a_mistake(mistake, in_folder):
    with warnings.catch_warnings(), zipfile.ZipFile("bad.zip", "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr(*next(iter(STUDY.items())))
    assert mistake("report", "bad.zip", "--out", "out").endswith("the zip file has two files of one name")


def test_a_truncated_or_damaged_zip_is_a_mistake_or_gives_the_same_tables(zipped, mistake, tiekd, in_folder):
    content, random_numbers = zipped.read_bytes(), random.Random(0)
    for length in (1, 1000, len(content) // 2, len(content) - 1):
        Path("bad.zip").write_bytes(content[:length])
        mistake("report", "bad.zip", "--out", "out")
    with zipfile.ZipFile(zipped) as archive:
        start = archive.start_dir
        offsets = [
            m.header_offset + 90 for m in archive.infolist() if m.filename.endswith("images.parquet") and "store" in m.filename
        ]
    Path("bad.zip").write_bytes(content[: offsets[0]] + bytes([content[offsets[0]] ^ 255]) + content[offsets[0] + 1 :])
    mistake("report", "bad.zip", "--out", "out")
    for _ in range(20):  # of the directory at the end
        spoiled = bytearray(content)
        for _ in range(3):
            spoiled[random_numbers.randrange(start, len(content))] = random_numbers.randrange(256)
        Path("bad.zip").write_bytes(spoiled)
        outcome = tiekd("report", "bad.zip", "--study", "nothing", "--out", "out")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["dmo", "--store", "{store}", "--out", "a.zip"], "STUDY: unknown 'dmo'; did you mean demo? valid: demo, other"),
        (["demo", "--store", "nowhere", "--out", "a.zip"], "store nowhere: holds no study"),
        (["demo", "--store", "{store}", "--out", "a.tar"], "--out a.tar: expected the name of a .zip file"),
        (["demo", "--store", "{store}", "--out", "file/a.zip"], "--out: folder file: "),
    ],
)
def test_mistakes_of_bundle(source, mistake, in_folder, words, told):
    (in_folder / "file").write_text("")
    line = mistake("bundle", *(word.format(store=source[0].uri) for word in words))
    assert line.startswith(f"tiekd: {told}")
