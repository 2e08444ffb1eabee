"""The published tables are reproduced digit for digit."""

import csv
from collections import Counter

import pytest
from support.made_store import GROUND_TRUTH, fill, metrics_of
from support.paths import SHARED

from reports.loading.collect import collect
from reports.pages.table_layouts import published_layout
from reports.tables.published import published_labels, published_table, published_value
from reports.tables.table import build_tables

SOURCE = SHARED / "published" / "tie_kd_tables.csv"
COLUMNS = ["dataset", "role", "teacher", "method", "loss", "backbone", "epochs", "abs_rel", "rmse"]


def test_every_published_value_keeps_its_digits():
    if not SOURCE.is_file():
        pytest.skip(f"{SOURCE.name} lies beside the repository, and not in it")
    with SOURCE.open(newline="") as file:
        expected = [[row[column] for column in COLUMNS] for row in csv.DictReader(file)]
    assert published_table()[COLUMNS].values.tolist() == expected
    assert Counter(published_table()["role"]) == {"student": 66, "teacher": 6}


@pytest.mark.parametrize("dataset", ["kitti", "nyu"])
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_rendered_rows_keep_digits_and_order(dataset, role):
    frame = published_layout(role, dataset, []).to_frame()
    part = published_table().query("dataset == @dataset and role == @role")
    assert frame["Abs Rel"].tolist() == part["abs_rel"].tolist()
    assert frame["RMSE"].tolist() == part["rmse"].tolist()


def test_a_published_value_is_found_by_labels_and_protocol():
    labels = {"dataset": "nyu", "teacher": "", "method": "Baseline", "loss": "SI", "backbone": "ResNet50"}
    assert published_value(labels, "nyu-eigen", "rmse") == "0.4810"
    assert published_value(labels, "none", "rmse") is None
    assert published_value(labels, "nyu-eigen", "delta1") is None
    assert published_value({**labels, "dataset": "synthetic-indoor"}, "none", "rmse") is None


def test_a_published_teacher_is_found_by_its_recipe():
    labels = {"dataset": "kitti", "teacher": "adabins", "method": "Teacher", "loss": "SI, Chamfer"}
    labels["backbone"] = "EfficientNetB5-AP"
    assert published_value(labels, "adabins-kb-garg", "rmse") == "2.3309"
    assert published_value({**labels, "loss": "SI"}, "adabins-kb-garg", "rmse") is None
    assert published_value({**labels, "method": ""}, "adabins-kb-garg", "rmse") is None


def test_every_published_row_has_its_own_labels():
    rows = published_table().to_dict("records")
    assert len({tuple(published_labels(row).values()) for row in rows}) == len(rows) == 72


@pytest.fixture
def tables(store):
    """A teacher, a Baseline and a student, corrected and released; in another order, and therefore with other metrics."""
    cells = [{"student.name": "bts"}, GROUND_TRUTH, {"loss.name": "ssim"}]
    fill(store, cells, 2, {"name": "kitti"})
    fill(store, [{**cell, "fidelity": "released"} for cell in [*cells[1:], cells[0]]], 2, {"name": "kitti-released"})
    return build_tables(collect(store))


def test_each_fidelity_has_its_own_columns(tables):
    teachers = published_layout("teacher", "kitti", tables).to_frame().set_index("Model")
    assert teachers.loc["bts", ["Abs Rel", "Our Abs Rel", "Our Abs Rel, released"]].tolist() == [
        "0.0586",
        mean_text(0),
        mean_text(2),
    ]
    assert teachers.loc["adabins", "Our Abs Rel"] == "–"
    students = published_layout("student", "kitti", tables).to_frame().set_index(["Method", "Loss", "Backbone", "Teacher"])
    baseline = students.loc[("Baseline", "SI", "MobileNetV2", "-")]
    assert baseline[["Our Abs Rel", "Our Abs Rel, released"]].tolist() == [mean_text(1), mean_text(0)]
    assert baseline[["Seeds", "Seeds, released"]].tolist() == ["2/2", "2/2"]
    assert not [column for column in published_layout("student", "nyu", tables).columns if column.startswith("Our")]


def mean_text(cell):
    first, second = (metrics_of(cell, seed)["abs_rel"] for seed in (0, 1))
    return f"{(first + second) / 2:.4f} ± {abs(first - second) / 2**0.5:.4f}"


def test_our_value_is_shown_if_exactly_one_cell_matches(table):
    frame = published_layout("student", "kitti", [table]).to_frame().set_index(["Method", "Loss", "Backbone", "Teacher"])
    assert frame.loc[("Res-KD", "SSIM, SI", "MobileNetV2", "adabins"), "Our Abs Rel"] == "0.0663 ± 0.0004"
    assert frame.loc[("TIE-KD", "L_DPM, L_DEPTH", "MobileNetV2", "adabins"), "Our Abs Rel"] == "3 cells"
    assert frame.loc[("Baseline", "SI", "ResNet50", "-"), "Our Abs Rel"] == "–"
