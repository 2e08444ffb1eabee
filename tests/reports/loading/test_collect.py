"""The store as data frames: all runs, no metrics of failed runs, unreadable files."""

import json
import math
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.made_store import BASE, CELLS, epochs_of, fill, images_of, metrics_of, write_run

from reports.loading.collect import collect
from reports.loading.per_image import GROUPS, IMAGE_SCHEMA, RUNS_AT_ONCE, ImageAggregator, group_sums
from reports.loading.run_columns import ConfigDescriber
from reports.loading.schema import METRICS, RUN_TYPES, SETTING_TYPES
from reports.pages.report_page import table_heading
from reports.pages.table_layouts import compact_layout
from reports.tables.table import build_tables
from tiekd.config import FolderConfig, build
from tiekd.config.documents import flatten, with_values
from tiekd.errors import UserError
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore


def config_of(**changes):
    return build(with_values(BASE, changes))


def test_setting_types_cover_every_setting():
    document = config_of(teacher={"name": "t", "maps": "m"}).document()
    document["data"]["folder"] = dict.fromkeys(FolderConfig.model_fields)
    assert set(flatten(document)) == set(SETTING_TYPES)
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


def test_all_states_occur_and_only_finished_runs_have_metrics(collected):
    runs = collected.runs
    assert runs["state"].value_counts().to_dict() == {"done": 14, "failed": 1, "diverged": 1, "constant": 1, "missing": 1}
    numbers = runs[list(METRICS)].notna().all(axis=1)
    assert (numbers == (runs["state"] == "done")).all()
    assert runs.loc[~numbers, list(METRICS)].isna().all(axis=None)
    assert set(collected.groups["run_id"]) == set(runs.loc[numbers, "run_id"])


def test_a_row_has_the_metrics_of_its_run(collected):
    row = collected.runs.iloc[7]  # cell 3, seed 1
    assert row[list(METRICS)].to_dict() == pytest.approx(metrics_of(3, 1))
    assert (row["seed"], row["n_images"], row["device_seconds"], row["loss.ssim_weight"]) == (1, 3, 60.0, 1.5)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("status.json", "missing"),
        ("summary.json", "failed"),
        ("provenance.json", "done"),
        ("epochs.parquet", "done"),
        ("images.parquet", "done"),
    ],
)
@pytest.mark.parametrize("content", [b"{ cut off", b"[1, 2]"])
def test_a_damaged_file_leaves_out_what_needs_it(demo, name, state, content):
    run_id = config_of(**CELLS[0], seed=0).fingerprint()
    demo.run(run_id).write_file(name, content)
    found = collect(demo)
    runs = found.runs.set_index("run_id")
    assert [*found.damaged] == [f"runs/{run_id}/{name}"]
    assert runs.loc[run_id, "state"] == state
    assert (f"{name} is damaged: " in runs.loc[run_id, "cause"]) == (state != "done")
    assert runs.loc[run_id, list(METRICS)].notna().all() == (state == "done")
    assert (runs["state"] == "done").sum() == 13 + (state == "done")
    assert (run_id in set(found.epochs["run_id"])) == (name != "epochs.parquet")
    assert (run_id in set(found.groups["run_id"])) == (state == "done" and name != "images.parquet")


def test_labels_of_a_run_without_a_study_come_from_its_config(store):
    run_id = write_run(store, config_of(), Status("done"), 0)
    store.run("broken").write_file("config.yaml", b"data: [")
    runs = collect(store).runs.set_index("run_id")
    assert (runs.loc[run_id, "study"], runs.loc[run_id, "method"]) == ("", "TIE-KD")
    assert runs.loc["broken", "cause"].startswith("unreadable: config.yaml is damaged: ")


@pytest.mark.parametrize("labelled", [3, 0.04])
def test_a_number_of_labels_and_a_share_are_read(store, labelled):
    run_id = write_run(store, config_of(**{"data.labelled": labelled}), Status("done"), 0)
    assert collect(store).runs.set_index("run_id").loc[run_id, "data.labelled"] == labelled


def test_one_study_can_be_read_alone(demo):
    fill(demo, [{"loss.name": "mse"}, {"loss.name": "si"}], 1, {"name": "other"})
    assert set(collect(demo, ["other"]).runs["study"]) == {"other"}
    assert len(collect(demo, ["other"]).runs) == 2
    assert len(collect(demo).runs) == 20  # a run of two studies has a row in each


def test_a_cell_with_missing_inputs_is_missing(store):
    cell = {"run_id": None, "config": config_of().document(), "factors": {}, "missing": "data.root kitti: no such folder"}
    store.write_study("later", {"study": {"name": "later"}, "cells": [cell]})
    row = collect(store).runs.iloc[0]
    assert (row["state"], row["cause"]) == ("missing", "data.root kitti: no such folder")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"study": {}}', b'{"study": {}, "cells": [{}]}'])
def test_a_damaged_study_is_named_and_does_not_affect_others(demo, content):
    demo.write_bytes("studies/bad/study.json", content)
    found = collect(demo)
    assert ([*found.studies], [*found.damaged], len(found.runs)) == (["demo"], ["studies/bad/study.json"], 18)
    with pytest.raises(UserError, match=r"studies/bad/study\.json is damaged"):
        collect(demo, ["bad"])


def test_images_are_summed_by_group_and_copied_unchanged(made, collected, tmp_path):
    written = collect(made, images_to=tmp_path / "images.parquet")
    pd.testing.assert_frame_equal(written.groups, collected.groups)
    images = pd.read_parquet(tmp_path / "images.parquet")
    assert list(images.columns) == IMAGE_SCHEMA.names
    own = [made.run(run_id).read_table("images.parquet").assign(run_id=run_id) for run_id in images["run_id"].unique()]
    pd.testing.assert_frame_equal(images, pd.concat(own, ignore_index=True)[IMAGE_SCHEMA.names])
    sums = images[images["n_valid"] > 0].groupby(["run_id", "group"])[list(METRICS)].agg(["sum", "count"])
    groups = written.groups.set_index(["run_id", "group"])
    assert groups["n_blank"].eq(1).all()
    for name in METRICS:
        assert groups[name].to_dict() == pytest.approx(sums[name]["sum"].to_dict())
        assert groups["n"].to_dict() == sums[name]["count"].to_dict()


def test_images_written_by_an_older_version_are_read(demo, tmp_path):
    """Its texts have other types, and dictionaries."""
    collected = {}
    for name in ("now", "before"):
        found = collect(demo, images_to=tmp_path / f"{name}.parquet")
        collected[name] = found.groups, pd.read_parquet(tmp_path / f"{name}.parquet")
        for record in demo.runs():
            if (images := record.read_table("images.parquet")) is not None:
                images.to_parquet(f"{demo.uri}/{record.folder}/images.parquet", row_group_size=2)
    for now, before in zip(*collected.values(), strict=True):
        pd.testing.assert_frame_equal(now, before)


def test_the_mean_over_groups_equals_the_metric_of_the_run(collected):
    runs = collected.runs.query("state == 'done'").set_index("run_id")
    sums = collected.groups.groupby("run_id")[["n", *METRICS]].sum()
    means = sums[list(METRICS)].div(sums["n"], axis=0)
    pd.testing.assert_frame_equal(
        means.sort_index(), runs[list(METRICS)].sort_index(), check_names=False, check_index_type=False
    )


def test_images_of_one_run_are_in_one_row_group(tmp_path):
    rows = pa.Table.from_pandas(images_of(0, 0))
    with ImageAggregator(tmp_path / "images.parquet") as images:
        for number in range(RUNS_AT_ONCE + 3):
            images.add(f"{number:04}", images.checked(rows))
        assert images.groups().num_rows == RUNS_AT_ONCE + 3
    file = pq.ParquetFile(tmp_path / "images.parquet").metadata
    groups = [file.row_group(number) for number in range(file.num_row_groups)]
    assert [group.num_rows for group in groups] == [3 * RUNS_AT_ONCE, 9]
    first, last = (group.column(0).statistics for group in groups)
    assert (first.min, first.max, last.min, last.max) == ("0000", "0063", "0064", "0066")


def test_a_metric_missing_for_valid_pixels_makes_the_sum_nan():
    rows = {"run_id": ["a"] * 3, "image": list("xyz"), "group": ["g", "g", "h"], "n_valid": [1, 2, 0]}
    rows |= {name: [0.5, None, None] for name in IMAGE_SCHEMA.names[4:]}
    groups = group_sums(pa.table(rows, IMAGE_SCHEMA)).to_pandas().set_index("group")
    assert groups["n"].to_dict() == {"g": 2, "h": 0}
    assert groups["n_blank"].to_dict() == {"g": 0, "h": 1}
    assert math.isnan(groups.loc["g", "rmse"])
    assert groups.loc["h", "rmse"] == 0


def test_a_store_without_images_has_all_columns(store, tmp_path):
    write_run(store, config_of(), Status("running"), 0)
    found = collect(store, images_to=tmp_path / "images.parquet")
    assert (list(found.groups.columns), len(found.groups)) == (list(GROUPS), 0)
    assert list(pd.read_parquet(tmp_path / "images.parquet").columns) == IMAGE_SCHEMA.names
    assert {"run_id", "epoch", "abs_rel"} <= set(found.epochs.columns)


@pytest.mark.parametrize("images", [images_of(0, 0).drop(columns="group"), images_of(0, 0).assign(group=["a", None, "b"])])
def test_images_without_a_group_are_not_written(demo, tmp_path, images):
    run_id = config_of(**CELLS[0], seed=0).fingerprint()
    demo.run(run_id).write_table("images.parquet", images)
    runs = collect(demo, images_to=tmp_path / "images.parquet").runs.set_index("run_id")
    assert runs.loc[run_id, "state"] == "done"
    assert run_id not in set(pd.read_parquet(tmp_path / "images.parquet", columns=["run_id"])["run_id"])


def test_an_empty_images_file_does_not_fail_the_run(demo):
    run_id = config_of(**CELLS[0], seed=0).fingerprint()
    demo.run(run_id).write_table("images.parquet", images_of(0, 0)[:0])
    assert collect(demo).runs.set_index("run_id").loc[run_id, "state"] == "done"


def test_epochs_have_the_columns_of_every_loss(store):
    ids = [write_run(store, config_of(seed=seed), Status("done"), 0) for seed in range(2)]
    store.run(ids[1]).write_table("epochs.parquet", epochs_of(0, 1).rename(columns={"part_si": "part_mse"}))
    epochs = collect(store).epochs.set_index("run_id")
    assert epochs.loc[ids[0], "part_si"].notna().all()
    assert epochs.loc[ids[0], "part_mse"].isna().all()
    assert epochs.loc[ids[1], "part_si"].isna().all()


def test_runs_with_parts_differ_by_weight_and_share_their_columns_with_others(store):
    mixes = [{"si": {"target": "ground_truth"}, "l_dpm": {"weight": weight}} for weight in (0.1, 0.5)]
    cells = [{"loss.name": "tie_kd"}, *({"loss.parts": parts} for parts in mixes)]
    planned = fill(store, cells, 1, {"name": "demo", "factors": {}})
    runs = collect(store).runs.set_index("run_id").loc[[cell["run_id"] for cell in planned]]
    assert list(runs["method"]) == ["TIE-KD", "Mixed", "Mixed"]
    assert list(runs["loss"]) == ["L_DPM, L_DEPTH", "SI (ground truth) + 0.1 L_DPM", "SI (ground truth) + 0.5 L_DPM"]
    assert [json.loads(parts)["l_dpm"]["weight"] for parts in runs["loss.parts"][1:]] == [0.1, 0.5]
    assert runs["loss.parts"].isna().iloc[0]
    described = ConfigDescriber().describe(build(with_values(BASE, cells[1])).document(), "test")
    assert described.factors({"loss.parts.l_dpm.weight": 0.1}) == {"loss.parts.l_dpm.weight": 0.1}


@pytest.mark.parametrize("wrong", [-1, "first", None])
def test_an_invalid_seed_does_not_affect_other_cells(demo, wrong):
    content = demo.read_study("demo")
    content["cells"][1]["config"]["seed"] = wrong
    demo.write_study("demo", content)
    runs = collect(demo).runs
    assert runs["state"].iloc[1] == "failed"
    assert "seed: " in runs["cause"].iloc[1]
    assert runs["seed"].iloc[0] == 0
    assert (runs["state"] == "done").sum() == 13


def test_an_object_store_gives_the_same_frames(made, collected, bucket, tmp_path):
    there = RunStore(f"s3://{bucket}/report")
    for path in (path for path in Path(made.uri).rglob("*") if path.is_file()):
        there.write_bytes(str(path.relative_to(made.uri)), path.read_bytes())
    found = collect(there, images_to=tmp_path / "images.parquet")
    for name in ("runs", "epochs", "groups"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(collected, name))


def test_mistakes_are_user_errors(demo, tmp_path: Path):
    with pytest.raises(UserError, match="no such folder"):
        collect(RunStore(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no runs and no studies"):
        collect(RunStore(tmp_path / "empty"))
    with pytest.raises(UserError, match="did you mean demo"):
        collect(demo, ["dmeo"])
    assert len(collect(demo).runs) == 18


def test_a_teacher_outside_all_studies_has_the_name_that_studies_give_it(store):
    trained = build(
        {
            "data": {"dataset": "synthetic-outdoor"},
            "student": {"name": "small"},
            "loss": {"name": "si", "target": "ground_truth"},
        }
    )
    other = with_values(trained.document(), {"seed": 1})
    write_run(store, trained, Status("done"), 0)
    write_run(store, build(other), Status("done"), 1)
    run = {name: section for name, section in trained.document().items() if name != "execution"}
    student = build(
        {"data": {"dataset": "synthetic-outdoor"}, "student": {"name": "tiny"}, "teacher": {"name": "mine", "run": run}}
    )
    cell = {"run_id": None, "config": student.document(), "factors": {}}
    store.write_study("demo", {"study": {"name": "demo"}, "cells": [cell], "teachers": [trained.fingerprint()]})
    frames = collect(store)
    runs = frames.runs.set_index("run_id")
    assert runs.loc[trained.fingerprint(), ["study", "teacher", "method"]].tolist() == ["", "mine", "Teacher"]
    assert runs.loc[build(other).fingerprint(), ["study", "teacher", "method"]].tolist() == ["", "", "Baseline"]
    headings = {table_heading(table).partition(":")[0]: table for table in build_tables(frames)}
    assert list(headings) == ["demo", "Teachers", "Runs without a study"]
    assert compact_layout(headings["Teachers"]).columns[0] == "Teacher"


def test_pruned_runs_are_called_pruned(store):
    lost = {(1, 0): Status("missing", "pruned by the scheduler after epoch 2 of 3", updated=1_700_000_000)}
    fill(store, [{"loss.sigma": 0.1}, {"loss.sigma": 0.2}], 1, {"name": "hunt", "kind": "search"}, lost)
    frames = collect(store)
    assert frames.runs["state"].tolist() == ["done", "pruned"]
    assert frames.updated[frames.runs["run_id"][1]] == 1_700_000_000
    (table,) = build_tables(frames)
    assert table.cells[1].state == "pruned"
