"""`tiekd view` writes the data files and indexes of a viewer."""

import base64
import json
import re
import resource
import shutil
import socket

import numpy as np
import pytest

from tiekd.data import open_frames
from tiekd.data.transforms import normalize_image
from tiekd.inference.evaluate import score_image
from tiekd.inference.predict import predict
from tiekd.models.checkpoint import load_network, pack_network


def index_of(viewed, name=""):
    """The index of the site, or of the data set `name`."""
    text = (viewed.folder / "data/v1" / name / "index.js").read_text()
    return json.loads(re.fullmatch(r'arrivedIndex\("[^"]*", (.*)\);\n', text)[1])


def files_of(viewed):
    return {p: p.stat().st_mtime_ns for p in (viewed.folder / "data").rglob("*") if p.is_file() and p.name != "index.js"}


def test_each_cell_is_represented_by_its_first_seed(viewed):
    shown = {run for dataset in index_of(viewed)["datasets"] for run in dataset["runs"]}
    assert shown == {viewed.runs[name] for name in ("baseline", "tie-kd", "indoor")}


def test_index_lists_all_seeds_of_a_cell(viewed):
    outdoor = next(d for d in index_of(viewed)["datasets"] if d["name"] == "synthetic-outdoor")
    result = next(r for r in index_of(viewed, outdoor["id"])["results"] if r["id"] == viewed.runs["tie-kd"])
    assert result["runs"] == {viewed.runs["tie-kd"]: 0, viewed.runs["seed 1"]: 1}


def test_existing_files_are_not_written_again(viewed, tiekd, tmp_path):
    copy = type(viewed)(viewed.store, tmp_path / "viewer", viewed.runs)
    shutil.copytree(viewed.folder, copy.folder)
    before = files_of(copy)
    deleted = [path for path in before if path.parent.name == viewed.runs["tie-kd"] and ".dpm" not in path.name][:2]
    content = {path: path.read_bytes() for path in deleted}
    for path in deleted:
        path.unlink()
    assert tiekd("view", copy.store, "--out", copy.folder).code == 0
    after = files_of(copy)
    written = {path for path in before if before[path] != after[path]}
    assert set(deleted) <= written
    assert {path.name[:5] for path in written} == {path.name[:5] for path in deleted}  # with the distributions of the frame
    assert {path.parent.name for path in written} == {viewed.runs["tie-kd"]}
    assert {path: path.read_bytes() for path in deleted} == content


def test_images_option_limits_frames_evenly(viewed, tiekd, tmp_path):
    outcome = tiekd("view", viewed.store, "--out", tmp_path, "--runs", viewed.runs["seed 1"], "--images", "2", "--json")
    summary = json.loads(outcome.out)
    assert summary["datasets"] == {"synthetic-outdoor": {"images": 2, "runs": [viewed.runs["seed 1"]]}}
    (dataset,) = index_of(type(viewed)(viewed.store, tmp_path, {}))["datasets"]
    assert index_of(type(viewed)(viewed.store, tmp_path, {}), dataset["id"])["frames"] == [0, 3]


def test_metrics_are_those_of_the_store(viewed):
    """They also equal the metrics of the shown predictions: the viewer shows what was evaluated."""
    weights = viewed.store / "runs" / viewed.runs["baseline"] / "student.safetensors"
    network, config = load_network(weights)
    frame = open_frames(config.data, "test").load(0)
    depth = predict(network.eval(), normalize_image(frame.image)[None], config).depth[0, 0].numpy()
    row = score_image(depth, frame, config.data, config.evaluation.protocol)
    outdoor = next(d for d in index_of(viewed)["datasets"] if viewed.runs["baseline"] in d["runs"])
    result = next(r for r in index_of(viewed, outdoor["id"])["results"] if r["id"] == viewed.runs["baseline"])
    metrics = np.frombuffer(base64.b64decode(result["metrics"]), "<f4").reshape(4, 9)
    np.testing.assert_allclose(metrics[0], [row[m["id"]] for m in index_of(viewed)["metrics"]], rtol=1e-4)


def test_missing_teacher_maps_are_reported_and_left_out(viewed, tiekd, tmp_path, as_yaml):
    store = tmp_path / "store"
    shutil.copytree(viewed.store, store)
    run = viewed.runs["tie-kd"]
    path = store / "runs" / run / "config.yaml"
    path.write_text(re.sub(r"maps: .*", "maps: gone", path.read_text()))
    outcome = tiekd("view", store, "--out", tmp_path / "out", "--runs", run, "--images", "1", "--json")
    (line,) = json.loads(outcome.out)["left_out"]
    assert line.startswith("teacher maps gone: no such folder")
    assert line in outcome.err


def test_run_without_weights_is_reported_and_left_out(viewed, tiekd, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(viewed.store, store)
    (store / "runs" / viewed.runs["baseline"] / "student.safetensors").unlink()
    outcome = tiekd("view", store, "--out", tmp_path / "out", "--images", "1", "--json")
    summary = json.loads(outcome.out)
    assert summary["left_out"] == [f"run {viewed.runs['baseline']} has no student.safetensors"]
    assert viewed.runs["baseline"] not in summary["datasets"]["synthetic-outdoor"]["runs"]


def test_weights_that_are_not_finite_are_reported_and_left_out(viewed, tiekd, tmp_path):
    store, run = tmp_path / "store", viewed.runs["baseline"]
    shutil.copytree(viewed.store, store)
    path = store / "runs" / run / "student.safetensors"
    network, config = load_network(path)
    next(network.parameters()).data.fill_(float("inf"))
    path.write_bytes(pack_network(network, config))
    outcome = tiekd("view", store, "--out", tmp_path / "out", "--images", "1", "--json")
    assert outcome.code == 0, outcome.err
    (line,) = json.loads(outcome.out)["left_out"]
    assert line.startswith(f"run {run}: weights ")
    assert ": not finite in " in line


def test_a_viewer_that_cannot_be_written_has_no_page_and_is_completed_later(viewed, tiekd, tmp_path):
    words = ("view", viewed.store, "--out", tmp_path / "out", "--runs", viewed.runs["baseline"], "--images", "1")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    try:
        outcome = tiekd(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (outcome.code, outcome.err.splitlines()[-1].endswith("File too large")) == (1, True), outcome
    assert list((tmp_path / "out").glob("*.*")) == []
    assert tiekd(*words).code == 0
    assert (tmp_path / "out/index.html").read_bytes() == (viewed.folder / "index.html").read_bytes()


def test_unknown_run_study_or_store_is_refused(viewed, mistake):
    store = viewed.store
    assert "has no finished run whose id starts with it" in mistake("view", store, "--out", "out", "--runs", "zzz")
    assert "--study" in mistake("view", store, "--out", "out", "--study", "none")
    assert "no such folder" in mistake("view", "nowhere", "--out", "out")


def test_port_in_use_is_refused_before_writing_files(viewed, mistake):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port {port}" in mistake("view", viewed.store, "--out", "out", "--serve", "--port", port)


def test_out_option_must_be_a_folder(viewed, mistake, in_folder):
    (in_folder / "file").write_text("")
    assert "needed a folder" in mistake("view", viewed.store, "--out", "file")


def test_file_names_never_contain_user_text(viewed):
    names = {part for path in files_of(viewed) for part in path.relative_to(viewed.folder).parts}
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)


@pytest.mark.parametrize("name", ["index.html", "main.js", "viewer.css"])
def test_page_has_no_external_resources(viewed, name):
    assert "http" not in (viewed.folder / name).read_text()
