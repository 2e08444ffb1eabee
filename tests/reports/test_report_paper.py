"""The published tables come back digit for digit."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from reports.layout import published_rows
from reports.paper import published, published_value

SOURCE = Path(__file__).parents[3] / "shared" / "published" / "tie_kd_tables.csv"
COLUMNS = ["dataset", "role", "teacher", "method", "loss", "backbone", "epochs", "abs_rel", "rmse"]


def test_every_published_cell_is_there_with_its_digits():
    if not SOURCE.is_file():
        pytest.skip(f"{SOURCE.name} lies beside the repository, and not in it")
    with SOURCE.open(newline="") as file:
        expected = [[row[column] for column in COLUMNS] for row in csv.DictReader(file)]
    assert published()[COLUMNS].values.tolist() == expected
    assert Counter(published()["role"]) == {"student": 66, "teacher": 6}


@pytest.mark.parametrize("dataset", ["kitti", "nyu"])
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_rendered_rows_keep_digits_and_order(dataset, role):
    frame = published_rows(role, dataset, [])
    part = published().query("dataset == @dataset and role == @role")
    assert frame["Abs Rel"].tolist() == part["abs_rel"].tolist()
    assert frame["RMSE"].tolist() == part["rmse"].tolist()


def test_a_value_belongs_to_its_labels_and_protocol():
    labels = {"dataset": "nyu", "teacher": "", "method": "Baseline", "loss": "SI", "backbone": "ResNet50"}
    assert published_value(labels, "nyu-eigen", "rmse") == "0.4810"
    assert published_value(labels, "none", "rmse") is None
    assert published_value(labels, "nyu-eigen", "delta1") is None
    assert published_value({**labels, "dataset": "synthetic-indoor"}, "none", "rmse") is None


def test_ours_stands_beside_where_one_cell_answers(table):
    frame = published_rows("student", "kitti", [table]).set_index(["Method", "Loss", "Backbone", "Teacher"])
    assert frame.loc[("Res-KD", "SSIM, SI", "MobileNetV2", "adabins"), "Our Abs Rel"] == "0.0663 ± 0.0004"
    assert frame.loc[("TIE-KD", "L_DPM, L_DEPTH", "MobileNetV2", "adabins"), "Our Abs Rel"] == "3 cells"
    assert frame.loc[("Baseline", "SI", "ResNet50", "-"), "Our Abs Rel"] == "–"
