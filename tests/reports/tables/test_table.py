"""Cells and their statistics against hand-computed values."""

import math

import pandas as pd
import pytest
from support.made_store import BASE, CELLS, GROUND_TRUTH, fill, metrics_of, write_run

from reports.loading.collect import collect
from reports.loading.schema import COSTS, METRICS
from reports.pages.footnotes import baseline_notes, table_notes
from reports.pages.report_page import table_heading
from reports.pages.table_layouts import compact_layout, full_layout, terminal_layout, trial_layout
from reports.pages.table_views import extra_views
from reports.render.text_table import entry_text
from reports.tables.table import build_tables, tables_frame
from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.store.run_status import Status

TIE_KD = ("adabins", "TIE-KD", "L_DPM, L_DEPTH", "MobileNetV2")


def rows_of(frame: pd.DataFrame, loss: str, metric: str = "abs_rel") -> pd.DataFrame:
    return frame[(frame["loss"] == loss) & (frame["metric"] == metric)]


def test_one_row_per_cell_and_metric_with_the_promised_columns(table):
    frame = tables_frame([table])
    assert len(frame) == 9 * 9
    columns = ",".join(frame.columns)
    assert columns.startswith("table,dataset,teacher,method,loss,backbone,")
    assert ",metric,mean,std,n_seeds,ci_low,ci_high,p_value,published,difference,protocol,state,run_ids," in columns
    assert set(frame.columns[6:9]) == {"loss.name", "student.name", "loss.temperature"}
    intervals = {f"{of}{kind}_{end}" for of in ("", "baseline_") for kind in ("ci", "images_ci") for end in ("low", "high")}
    assert intervals | {"n_groups", *COSTS} <= set(frame.columns)
    assert set(frame["protocol"]) == {"adabins-kb-garg"}


def test_mean_and_spread_of_both_seeds(table):
    row = rows_of(tables_frame([table]), "SSIM, SI", "rmse").iloc[0]
    first, second = metrics_of(3, 0)["rmse"], metrics_of(3, 1)["rmse"]
    assert row["mean"] == pytest.approx((first + second) / 2)
    assert row["std"] == pytest.approx(abs(first - second) / math.sqrt(2))
    assert (row["n_seeds"], row["state"]) == (2, "done")
    assert row["difference"] == pytest.approx(row["mean"] - 2.5833)


def test_a_failed_seed_is_left_out_and_reported(table):
    row = rows_of(tables_frame([table]), "MSE").iloc[0]
    assert row["mean"] == pytest.approx(metrics_of(2, 1)["abs_rel"])
    assert math.isnan(row["std"])
    assert (row["n_seeds"], row["n_planned"], row["state"]) == (1, 2, "diverged")
    assert row["detail"] == "1 of 2 seeds: 1 diverged: loss is inf at step 7"
    assert len(row["run_ids"]) == 2


def test_cells_are_compared_with_the_baseline_of_the_same_backbone(table):
    row = rows_of(tables_frame([table]), "SSIM, SI").iloc[0]
    assert row["baseline_difference"] == pytest.approx(0.006)
    assert row["p_value"] == 0.5
    assert row["p_holm"] == 1.0
    for cell, baseline in zip(table.cells, table.baselines, strict=True):
        assert (baseline is None) == (cell.labels["method"] == "Baseline" or cell.labels["backbone"] == "ResNet18")


def test_a_baseline_with_other_settings_is_not_used(store):
    fill(store, [{**GROUND_TRUTH, "optim.lr": 0.01}, {"loss.name": "mse"}], 2, {"name": "lr"})
    (table,) = build_tables(collect(store))
    assert tables_frame([table])["p_value"].isna().all()


@pytest.mark.parametrize(
    ("labelled", "changes", "compared"),
    [
        (None, {"optim.epochs": 12}, False),
        (0.25, {"optim.epochs": 12, "evaluation.every": 4}, True),  # four times the epochs of a quarter of the frames
        (0.25, {"optim.epochs": 12, "optim.lr": 1e-4}, False),
    ],
)
def test_a_baseline_of_few_labels_may_have_more_epochs(store, labelled, changes, compared):
    cells = [{**GROUND_TRUTH, **changes}, {"loss.name": "mse"}]
    fill(store, [{**cell, "data.labelled": labelled} for cell in cells], 2, {"name": "few"})
    (table,) = build_tables(collect(store))
    assert table.baselines == [None, 0 if compared else None]
    assert ("different optim.epochs" in " ".join(baseline_notes(table))) == compared


def test_a_teacher_comes_first_and_is_not_tested(store):
    fill(store, [*CELLS[:2], {"student.name": "adabins"}], 6, {"name": "teachers"})
    (table,) = build_tables(collect(store))
    assert [cell.labels["method"] for cell in table.cells] == ["Teacher", "Baseline", "Res-KD"]
    assert table.baselines == [None, None, 1]
    frame = tables_frame([table])
    teacher = rows_of(frame, "SI, Chamfer").iloc[0]
    assert (teacher["teacher"], teacher["published"]) == ("adabins", 0.0593)
    assert teacher["difference"] == pytest.approx(teacher["mean"] - 0.0593)
    assert math.isnan(teacher["p_value"])
    assert "for the 1 test of the table" in " ".join(table_notes(table))


def test_fidelities_of_one_study_are_separate_cells(store):
    """A row is compared with the Baseline of the same fidelity."""
    cells = [{**cell, "fidelity": fidelity} for fidelity in ("corrected", "released") for cell in CELLS[:2]]
    fill(store, cells, 2, {"name": "both"})
    (table,) = build_tables(collect(store))
    assert table.varying == ["fidelity"]
    assert [len(cell.done) for cell in table.cells] == [2] * 4
    frame = rows_of(tables_frame([table]), "SSIM")
    assert frame["fidelity"].tolist() == ["corrected", "released"]
    assert frame["published"].tolist() == [0.0697, 0.0697]
    assert frame["baseline_difference"].tolist() == pytest.approx([0.002, 0.002])
    assert "fidelity" not in table_heading(table)


def test_headings_and_the_parquet_file_name_the_fidelity(store):
    fill(store, CELLS[:2], 1, {"name": "kitti", "title": "KITTI"})
    fill(store, [{**cell, "fidelity": "released"} for cell in CELLS[:2]], 1, {"name": "kitti-released", "title": "KITTI"})
    tables = build_tables(collect(store))
    assert [table_heading(table).partition("garg")[2] for table in tables] == ["", ", fidelity released"]
    assert [part["fidelity"].unique().tolist() for _, part in tables_frame(tables).groupby("table")] == [
        ["corrected"],
        ["released"],
    ]


def test_settings_determined_by_a_named_level_are_not_columns(store, tmp_path):
    """As in fidelity.yaml: the level is a column, and the settings that it changes are not."""
    levels = {
        "corrected": {},
        "sigma": {"fidelity": ["fixed_sigma"]},
        "alpha": {"fidelity": ["alpha_unbounded"], "loss.alpha": 2},
    }
    planned = []
    for level, changes in levels.items():
        (cell,) = fill(store, [{"loss.sigma": 0.8, **changes}], 1, {"name": "quirks"})
        planned.append(cell | {"factors": {"quirk": level}})
    store.write_study("quirks", {"study": {"name": "quirks"}, "cells": planned})
    (table,) = build_tables(collect(store))
    assert table.varying == ["quirk"]
    tables_frame([table]).to_parquet(tmp_path / "tables.parquet")
    frame = pd.read_parquet(tmp_path / "tables.parquet").query("metric == 'abs_rel'")
    assert frame["quirk"].tolist() == ["corrected", "sigma", "alpha"]
    assert frame["fidelity"].tolist() == ["corrected", "fixed_sigma", "alpha_unbounded"]
    assert collect(store).runs["fidelity"].tolist() == ["corrected", '["fixed_sigma"]', '["alpha_unbounded"]']


def test_a_setting_that_varies_within_a_level_keeps_its_column(store):
    planned = []
    for level, lr in [("a", 0.01), ("a", 0.02), ("b", 0.01)]:
        (cell,) = fill(store, [{"optim.lr": lr, "augment.flip_p": 0.5 if level == "a" else 0.1}], 1, {"name": "levels"})
        planned.append(cell | {"factors": {"level": level}})
    store.write_study("levels", {"study": {}, "cells": planned})
    (table,) = build_tables(collect(store))
    assert table.varying == ["level", "optim.lr"]


def test_published_values_are_only_in_matching_rows(table):
    frame = tables_frame([table])
    found = frame.dropna(subset="published").groupby("metric")["published"].agg(list)
    tie_kd = 3 * [0.0654]
    assert found["abs_rel"] == [0.0663, 0.0634, 0.0697, 0.0786, 0.0701, 0.0718, *tie_kd]
    assert set(found.index) == {"abs_rel", "rmse"}


def test_protocols_never_share_a_table(store):
    fill(store, [{"evaluation.protocol": p} for p in ("adabins-kb-garg", "bts-garg")], 1, {"name": "protocols"})
    tables = build_tables(collect(store))
    assert [table.protocol for table in tables] == ["adabins-kb-garg", "bts-garg"]
    assert [table.results["published"].notna().any() for table in tables] == [True, False]


def test_a_factor_that_a_loss_does_not_read_does_not_split_cells(store):
    cells = [{"loss.name": name, "loss.sigma": sigma} for name in ("mse", "l_dpm") for sigma in (0.5, 1.0)]
    fill(store, cells, 1, {"name": "sigma"})
    frame = rows_of(tables_frame(build_tables(collect(store))), "MSE")
    assert len(frame) == 1
    assert frame["loss.sigma"].isna().all()
    assert len(frame["run_ids"].iloc[0]) == 1


def test_one_at_a_time_shows_the_base_once(store):
    fill(store, [{}, {"loss.sigma": 0.5}, {"loss.sigma": 1.0}, {"loss.temperature": 2.0}], 1, {"name": "oat"})
    (table,) = build_tables(collect(store))
    assert table.varying == ["loss.sigma", "loss.temperature"]
    assert [[table.value(cell, path) for path in table.varying] for cell in table.cells] == [[0.5, 1.0], [1.0, 1.0], [0.5, 2.0]]


def test_runs_without_a_study_are_distinguished_by_their_settings(store):
    for seed, lr in [(0, 0.01), (1, 0.01), (0, 0.02)]:
        write_run(store, build(with_values(BASE, {"seed": seed, "optim.lr": lr})), Status("done"), 0)
    (table,) = build_tables(collect(store))
    assert table.varying == ["optim.lr"]
    assert sorted(len(cell.runs) for cell in table.cells) == [1, 2]


def test_runs_that_differ_only_in_inputs_are_not_averaged(store):
    config = build(BASE)
    planned = [{"run_id": write_run(store, config, Status("done"), 0), "config": config.document(), "factors": {}}]
    store.run("other").write_json("status.json", {"state": "done"})
    store.run("other").write_json("summary.json", {"metrics": metrics_of(1, 0)})
    store.write_study("twice", {"study": {}, "cells": [*planned, planned[0] | {"run_id": "other"}, planned[0]]})
    (table,) = build_tables(collect(store))
    assert [len(cell.done) for cell in table.cells] == [1, 1]


def test_a_factor_named_like_a_column_is_renamed(store):
    (cell,) = fill(store, [{}], 1, {"name": "named"})
    store.write_study("named", {"study": {}, "cells": [cell | {"factors": {"method": "tie-kd", "optim.lr": 1e-3}}]})
    frame = tables_frame(build_tables(collect(store)))
    assert frame["factor.method"].unique().tolist() == ["tie-kd"]
    assert frame["method"].unique().tolist() == ["TIE-KD"]


def test_the_full_layout_resembles_the_published_table(table):
    frame = full_layout(table).to_frame()
    assert list(frame.columns)[:6] == ["Teacher", "Method", "Loss", "Backbone", "loss.temperature", "Abs Rel"]
    assert list(frame["Method"])[:2] == ["Baseline", "Baseline"]
    row = frame.iloc[4]
    assert (row["Abs Rel"], row["Abs Rel published"], row["Abs Rel diff."]) == ("0.0663 ± 0.0004", "0.0701", "-0.0038")
    assert frame.iloc[2]["Abs Rel"] == "0.0620 ± –"
    assert frame.iloc[2]["State"] == "1 of 2 seeds: 1 failed: RuntimeError: a | b & 100% of C_1"


def test_a_cell_without_results_has_no_values(store):
    lost = {(0, 0): Status("failed", "no memory"), (0, 1): Status("failed", "no memory")}
    fill(store, [{}], 2, {"name": "lost"}, lost)
    (table,) = build_tables(collect(store))
    row = full_layout(table).to_frame().iloc[0]
    assert (row["Abs Rel"], row["State"]) == ("–", "0 of 2 seeds: 2 failed: no memory")
    assert tables_frame([table])[["mean", "std", "difference"]].isna().all(axis=None)
    assert "no run is done" in table_notes(table)[0]


def test_the_compact_layout_shows_states_only_if_needed(store):
    fill(store, CELLS[:2], 1, {"name": "whole"})
    (table,) = build_tables(collect(store))
    assert "State" not in compact_layout(table).columns


def test_notes_say_when_significance_is_out_of_reach(store):
    fill(store, CELLS[:2], 5, {"name": "five"})
    fill(store, CELLS[:2], 6, {"name": "six"})
    five, six = (" ".join(table_notes(table)) for table in build_tables(collect(store)))
    assert "p < 0.05 is out of reach with 5 seeds" in five
    assert "2/2^5 = 0.0625" in five
    assert "cannot be reached" not in six
    assert "mean over 2 test images; images without valid ground truth, which are left out: 1" in six


def test_unpaired_seeds_do_not_count_towards_significance(store):
    lost = {(0, seed): Status("failed", "RuntimeError: lost") for seed in (3, 4, 5)}
    fill(store, CELLS[:2], 6, {"name": "six"}, lost)
    (table,) = build_tables(collect(store))
    assert "p < 0.05 is out of reach with 3 seeds" in " ".join(table_notes(table))
    row = rows_of(tables_frame([table]), "SSIM").iloc[0]
    assert (row["n_seeds"], row["baseline_n_seeds"]) == (6, 3)


def test_notes_state_the_number_of_tests(table, store):
    fill(store, CELLS[:3], 6, {"name": "two"})
    (two,) = build_tables(collect(store))
    assert "the first of 2 tests needs 7 seeds" in " ".join(table_notes(two))
    assert two.results["p_holm"].min() == pytest.approx(2 * 2 / 2**6)


def test_trials_are_sorted_by_objective_with_pruned_ones_last(store):
    lost = {(1, 0): Status("missing", "pruned by the scheduler after epoch 1 of 3")}
    search = {"name": "hunt", "kind": "search", "search": {"objectives": ["delta1"]}}
    fill(store, [{"loss.temperature": t} for t in (0.5, 1.5, 2.0)], 1, search, lost)
    (table,) = build_tables(collect(store))
    frame = trial_layout(table).to_frame()
    assert list(frame["loss.temperature"]) == ["2", "0.5", "1.5"]
    assert list(frame.columns)[1] == "δ1"
    assert frame.iloc[2]["δ1"] == "–"
    assert frame.iloc[2]["State"].startswith("pruned")


def test_inactive_parameters_of_a_trial_have_no_value(store):
    search = {"name": "hunt", "kind": "search", "search": {"objectives": ["abs_rel"]}}
    fill(store, [{"loss.name": "ssim"}, {"loss.name": "tie_kd", "loss.temperature": 0.5}], 1, search)
    (table,) = build_tables(collect(store))
    frame = trial_layout(table).to_frame().set_index("loss.name")
    assert dict(frame["loss.temperature"]) == {"ssim": "–", "tie_kd": "0.5"}


def test_the_floor_stands_beside_the_results_where_targets_differ(store, table):
    """It comes from the summaries of the runs; stores from before have none."""
    assert not table.shows_floor
    cells = fill(store, [{"loss.dpm": "two_hot"}, {}, {"loss.name": "ssim"}], 2, {"name": "demo"})
    for number, cell in enumerate(cells[:4]):
        record = store.run(cell["run_id"])
        record.write_json(
            "summary.json", record.summary() | {"floor": {"abs_rel": 0.1 * (number // 2), "rmse": 1.0, "delta1": 1.0}}
        )
    (made,) = build_tables(collect(store))
    for form in (full_layout, compact_layout, terminal_layout):
        frame = form(made).to_frame()
        assert dict(zip(frame["loss.dpm"], frame["Floor"], strict=True)) == {
            "two_hot": "0.0000",
            "softmax_density": "0.1000",
            "–": "–",
        }
    frame = tables_frame([made]).drop_duplicates("loss.dpm")
    assert frame["target_floor"].tolist() == pytest.approx([0.0, 0.1, math.nan], nan_ok=True)
    assert "reproduces the target of L_DPM exactly" in " ".join(table_notes(made))
    fill(store, [{"loss.name": "l_dpm"}, {"loss.name": "ssim"}], 1, {"name": "other"})
    other = build_tables(collect(store, ["other"]))[0]
    assert "Floor" not in full_layout(other).to_frame()


def test_all_metrics_are_in_the_frame(table):
    assert set(tables_frame([table])["metric"]) == set(METRICS)


def test_looks_replace_the_tests_with_a_fixed_number_of_seeds(store):
    cells = fill(store, [GROUND_TRUTH, {"loss.name": "mse"}], 4, {"name": "demo"})
    row = {"run_ids": [c["run_id"] for c in cells[4:]], "n_seeds": 4, "state": "different"}
    row |= {"difference": 0.002, "low": 0.001, "high": 0.003, "p": 0.03}
    rule = {"until": "decided", "min": 3, "max": 12, "metric": "rmse", "alpha": 0.05}
    store.write_study("demo", store.read_study("demo") | {"sequential": {"rule": rule, "rows": [row]}})
    (table,) = build_tables(collect(store))
    frame = tables_frame([table]).set_index(["loss", "metric"])
    assert frame["p_value"].isna().all()
    assert frame["p_holm"].dropna().to_dict() == {("MSE", "rmse"): 0.03}
    assert frame.loc[("MSE", "rmse"), ["baseline_ci_low", "baseline_ci_high"]].tolist() == [0.001, 0.003]
    assert frame.loc[("MSE", "abs_rel"), "baseline_difference"] == pytest.approx(0.002)
    (view,) = [view for view in extra_views(table) if view.title == "Seeds until decided"]
    shown = dict(zip(view.content.columns, map(entry_text, view.content.rows[0]), strict=True))
    assert shown == {
        "Row": "AdaBins · Res-KD · MSE",
        "Seeds": "4",
        "RMSE − Baseline": "+0.0020",
        "95 %": "[+0.0010, +0.0030]",
        "p": "0.030",
        "Decision": "different",
    }
    notes = " ".join(table_notes(table))
    assert "tested after each seed from 3 to 12" in notes
    assert "sign-flip" not in notes
