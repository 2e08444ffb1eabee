"""`tiekd run` and `tiekd diff`."""

import json

import numpy as np
import pytest
from support.event_files import scalars_in, values_in
from support.paths import SHARED

from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.data.inputs import run_id_of
from tiekd.store.run_store import RunStore

GROUND_TRUTH = {"name": "si", "target": "ground_truth"}


REAL = SHARED / "data"


def test_a_run_prints_its_summary(ran):
    assert (ran["si"]["state"], ran["si"]["cause"]) == ("done", "")
    assert ran["si"]["run_id"] != ran["mse"]["run_id"]
    stored = RunStore(ran["store"]).run(ran["si"]["run_id"]).read_json("summary.json")
    assert ran["si"]["summary"] == stored
    assert stored["metrics"]["abs_rel"] > 0


def test_a_run_that_is_there_is_shown_and_not_computed(ran, tiekd, tree):
    before = tree(ran["store"])
    outcome = tiekd("run", ran["config"], "--store", ran["store"])
    assert outcome.code == 0
    first, title, head, numbers, place = outcome.out.splitlines()
    assert first == f"run {ran['si']['run_id']}: done"
    assert title.startswith("protocol none, 4 images")
    values = {name: float(value) for name, value in zip(head.split(), numbers.split(), strict=True)}
    assert values == pytest.approx(ran["si"]["summary"]["metrics"], abs=6e-5)
    assert place == f"{ran['store']}/runs/{ran['si']['run_id']}"
    assert tree(ran["store"]) == before


def test_a_run_logs_its_epochs_its_settings_and_predictions_to_tensorboard(ran):
    record = RunStore(ran["store"]).run(ran["si"]["run_id"])
    folder = ran["store"] / record.folder / "tensorboard"
    rows = record.epochs().to_pylist()
    found = {(tag.partition("/")[2], step): value for tag, step, value in scalars_in(folder)}
    expected = {(name, row["epoch"]): v for row in rows for name, v in row.items() if name not in ("epoch", "step") and v == v}
    assert found == pytest.approx(expected, rel=1e-6)
    values = [value for value, _ in values_in(folder)]
    assert b"loss.name" in next(v.metadata.plugin_data.content for v in values if v.tag == "_hparams_/session_start_info")
    assert [v.image.encoded_image_string for v in values if v.HasField("image")] == [record.read_file("predictions.jpg")]


def test_a_run_whose_log_fails_says_so_and_is_computed(tiekd, tiny, as_yaml, tmp_path):
    document = with_values(tiny, {"loss.name": "si", "loss.target": "ground_truth", "teacher": None, "optim.epochs": 1})
    run_id = run_id_of(build(document))
    (tmp_path / "store" / "runs" / run_id).mkdir(parents=True)
    (tmp_path / "store" / "runs" / run_id / "tensorboard").write_text("a file where the folder should be")
    outcome = tiekd("run", as_yaml(tmp_path / "run.yaml", document), "--store", tmp_path / "store")
    assert outcome.code == 0
    assert f"run {run_id}: done" in outcome.out
    assert outcome.err.count("logging to TensorBoard stopped, the run continues: FileExistsError") == 1


def test_a_run_tells_the_floor_of_l_dpm(tiekd, tiny, as_yaml, tmp_path):
    config = as_yaml(tmp_path / "tie_kd.yaml", with_values(tiny, {"loss.name": "tie_kd", "optim.epochs": 1}))
    outcome = tiekd("run", config, "--store", tmp_path / "store")
    told = outcome.err.removeprefix("L_DPM's target misses the teacher: abs_rel ")
    (record,) = RunStore(tmp_path / "store").runs()
    floor = record.summary()["floor"]
    assert told.startswith(f"{floor['abs_rel']:.3f} at best")
    assert floor.keys() == {"abs_rel", "rmse", "delta1"}


def test_diff_prints_only_what_differs(ran, tiekd):
    a, b = ran["si"]["run_id"], ran["mse"]["run_id"]
    assert tiekd("diff", a, b, "--store", ran["store"]).out == "loss.name: si -> mse\n"
    assert json.loads(tiekd("diff", b, ran["store"] / "runs" / a, "--store", ran["store"], "--json").out) == {
        "loss.name": ["mse", "si"]
    }


def test_diff_tells_settings_that_presets_bring(ran, tiekd, tiny, as_yaml, tmp_path):
    other = as_yaml(tmp_path / "other.yaml", with_values(tiny, {"loss.name": "tie_kd", "bins.n_bins": 8}))
    lines = tiekd("diff", ran["config"], other).out.splitlines()
    assert lines == ["bins.n_bins: 16 -> 8", "loss.name: si -> tie_kd", "student.head: regression -> dpm"]


def test_diff_of_a_run_with_itself_says_so(ran, tiekd):
    folder = ran["store"] / "runs" / ran["si"]["run_id"]
    assert tiekd("diff", folder, folder).out == "the configs do not differ\n"


def test_a_run_on_real_frames(tiekd, tiny, as_yaml, tmp_path):
    if not REAL.is_dir():
        pytest.skip(f"the real frames are not beside this checkout ({REAL})")
    document = {**tiny, "data": {"dataset": "kitti", "root": str(REAL / "kitti")}, "teacher": None, "loss": GROUND_TRUTH}
    document["optim"] = {"epochs": 1, "batch_size": 1}
    outcome = tiekd("run", as_yaml(tmp_path / "run.yaml", document), "--store", tmp_path / "store", "--json")
    assert outcome.code == 0, outcome.out
    summary = json.loads(outcome.out)["summary"]
    assert (summary["protocol"], summary["n_images"]) == ("adabins-kb-garg", 1)
    assert np.isfinite(summary["metrics"]["abs_rel"])
    assert summary["note"].startswith("1 images were evaluated; papers on KITTI evaluate 652 ")
