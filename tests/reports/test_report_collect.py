"""The store as data frames: every run in its place, no failure as a number, no broken file hiding the rest."""

from pathlib import Path

import pytest
from made_store import BASE, CELLS, fill, metrics_of, write_run

from reports.collect import collect
from reports.schema import METRICS, RUN_TYPES, SETTING_TYPES
from tiekd.config import build
from tiekd.documents import flatten, with_values
from tiekd.errors import UserError
from tiekd.store import RunStore, Status


def config_of(**changes):
    return build(with_values(BASE, changes))


def test_setting_types_cover_every_setting():
    assert set(flatten(config_of().document())) == set(SETTING_TYPES)
    assert (SETTING_TYPES["data.train_frames"], SETTING_TYPES["student.output_stride"]) == ("Int64", "Int64")
    assert (SETTING_TYPES["loss.ssim_range"], SETTING_TYPES["data.train_crop"]) == ("float64", "string")


def test_runs_have_the_promised_columns_and_types(collected):
    head = [
        "run_id",
        "study",
        "state",
        "cause",
        "dataset",
        "teacher",
        "method",
        "loss",
        "backbone",
        "seed",
        "protocol",
        "n_images",
    ]
    assert list(collected.runs.columns)[:21] == [*head, *METRICS]
    assert list(collected.runs.columns)[-1] == "device_seconds"
    assert {c: str(t) for c, t in collected.runs.dtypes.items()} == RUN_TYPES
    assert len(collected.runs) == 18


def test_every_state_is_there_and_only_done_runs_have_numbers(collected):
    runs = collected.runs
    assert runs["state"].value_counts().to_dict() == {"done": 14, "failed": 1, "diverged": 1, "constant": 1, "missing": 1}
    numbers = runs[list(METRICS)].notna().all(axis=1)
    assert (numbers == (runs["state"] == "done")).all()
    assert runs.loc[~numbers, list(METRICS)].isna().all(axis=None)
    assert set(collected.images["run_id"]) == set(runs.loc[numbers, "run_id"])


def test_a_row_holds_its_runs_numbers(collected):
    row = collected.runs.iloc[7]  # cell 3, seed 1
    assert row[list(METRICS)].to_dict() == pytest.approx(metrics_of(3, 1))
    assert (row["seed"], row["n_images"], row["device_seconds"], row["loss.ssim_weight"]) == (1, 3, 60.0, 1.5)


@pytest.mark.parametrize("name", ["status.json", "summary.json", "provenance.json", "epochs.parquet", "images.parquet"])
@pytest.mark.parametrize("content", [b"{ cut off", b"[1, 2]"])
def test_a_broken_run_is_reported_and_hides_no_other(demo, name, content):
    run_id = config_of(**CELLS[0], seed=0).fingerprint()
    demo.run(run_id).write_file(name, content)
    runs = collect(demo).runs.set_index("run_id")
    assert runs.loc[run_id, "state"] == "failed"
    assert runs.loc[run_id, "cause"].startswith("unreadable: ")
    assert runs.loc[run_id, list(METRICS)].isna().all()
    assert (runs["state"] == "done").sum() == 13


def test_a_run_of_no_study_derives_all_from_its_config(store):
    run_id = write_run(store, config_of(), Status("done"), 0)
    store.run("broken").write_file("config.yaml", b"data: [")
    runs = collect(store).runs.set_index("run_id")
    assert (runs.loc[run_id, "study"], runs.loc[run_id, "method"]) == ("", "TIE-KD")
    assert runs.loc["broken", "cause"].startswith("unreadable: ")


def test_one_study_leaves_the_others_out(demo):
    fill(demo, [{"loss.name": "mse"}, {"loss.name": "si"}], 1, {"name": "other"})
    assert set(collect(demo, "other").runs["study"]) == {"other"}
    assert len(collect(demo, "other").runs) == 2
    assert len(collect(demo).runs) == 20  # a run of two studies has a row in each


def test_a_cell_without_its_inputs_has_no_run_yet(store):
    cell = {"run_id": None, "config": config_of().document(), "factors": {}, "missing": "data.root kitti: no such folder"}
    store.write_study("later", {"study": {"name": "later"}, "cells": [cell]})
    row = collect(store).runs.iloc[0]
    assert (row["state"], row["cause"]) == ("missing", "data.root kitti: no such folder")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"study": {}}', b'{"study": {}, "cells": [{}]}'])
def test_an_unreadable_study_is_named(demo, content):
    demo.write_bytes("studies/bad/study.json", content)
    with pytest.raises(UserError, match=r"studies/bad/study\.json is unreadable"):
        collect(demo)
    assert len(collect(demo, "demo").runs) == 18


def test_user_mistakes(demo, tmp_path: Path):
    with pytest.raises(UserError, match="no such folder"):
        collect(RunStore(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no runs and no studies"):
        collect(RunStore(tmp_path / "empty"))
    with pytest.raises(UserError, match="did you mean demo"):
        collect(demo, "dmeo")
