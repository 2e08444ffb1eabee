"""Tables as papers print them: rows, columns, bold, and what cannot be arranged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.made_store import BASE, CELLS, GROUND_TRUTH, LOST, fill, metrics_of

from reports.loading.stores import collect_stores, join_frames
from reports.pages.paper import paper_frame, paper_latex, paper_text
from reports.render.text_table import entry_text
from reports.tables.paper_table import PaperColumn, paper_table
from reports.tables.seed_statistics import summarize_seeds
from reports.tables.table import build_tables
from tiekd.config.report_config import report_config
from tiekd.errors import UserError
from tiekd.store.run_store import RunStore

TEACHERS = [{"teacher.name": t, "teacher.maps": f"maps/{t}"} for t in ("adabins", "bts")]
NYU = {"data.dataset": "nyu", "data.root": "nyu", "data.max_depth": 10.0, "evaluation.protocol": "nyu-eigen"}
PAPER = [
    {"student.name": "bts", "loss.name": "si", "loss.target": "ground_truth"},
    GROUND_TRUTH,
    *({**taught, "loss.name": loss} for loss in ("ssim", "tie_kd") for taught in TEACHERS),
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The tables of two stores with the same methods on KITTI and on NYU; the latter lacks the last method."""
    stores = [RunStore(tmp_path_factory.mktemp(name) / "store") for name in ("kitti", "nyu")]
    fill(stores[0], PAPER, 2, {"name": "kitti", "title": "On KITTI"}, {(2, 1): LOST[1, 1]})
    fill(stores[1], [{**cell, **NYU} for cell in PAPER[:-1]], 2, {"name": "nyu", "title": "On NYU"})
    return build_tables(join_frames(collect_stores(stores), stores))


def arranged(tables, **settings):
    return paper_table(tables, report_config({}, settings))


def test_data_sets_stand_side_by_side_and_teachers_and_baselines_come_first(tables):
    table = arranged(tables)
    assert table.row_names == ("teacher", "method", "loss", "backbone")
    assert table.columns == (PaperColumn("kitti", "adabins-kb-garg"), PaperColumn("nyu", "nyu-eigen"))
    assert [row[:3] for row in table.rows] == [
        ("bts", "Teacher", "SI"),
        ("", "Baseline", "SI"),
        ("adabins", "Res-KD", "SSIM"),
        ("adabins", "TIE-KD", "L_DPM, L_DEPTH"),
        ("bts", "Res-KD", "SSIM"),
        ("bts", "TIE-KD", "L_DPM, L_DEPTH"),
    ]
    assert table.rules == {1, 2, 4}
    assert table.number(5, 0, "abs_rel") is not None
    assert table.number(5, 1, "abs_rel") is None  # not in the study on NYU


def test_numbers_are_those_of_the_finished_seeds(tables):
    values = [metrics_of(2, 0)["rmse"]], [metrics_of(4, seed)["rmse"] for seed in range(2)]
    for spread in ("std", "ci", "none"):
        table = arranged(tables, spread=spread)
        one, two = (table.number(row, 0, "rmse") for row in (2, 3))
        found = summarize_seeds(np.array(values[1]))
        assert (one.mean, two.mean) == pytest.approx((values[0][0], found.mean))
        expected = {"std": found.std, "ci": (found.ci_high - found.ci_low) / 2, "none": np.nan}[spread]
        assert two.spread == pytest.approx(float(expected), nan_ok=True)
        assert np.isnan(one.spread)


def test_the_best_students_of_a_column_are_bold(tables):
    table = arranged(tables)
    bold = {
        (row, column, metric)
        for row in range(6)
        for column in range(2)
        for metric in ("abs_rel", "delta1")
        if (number := table.number(row, column, metric)) and number.bold
    }
    # Made-up metrics grow with the cell; the teacher does not compete.
    assert bold == {(1, 0, "abs_rel"), (1, 1, "abs_rel"), (5, 0, "delta1"), (3, 1, "delta1")}
    assert not any(number.bold for number in arranged(tables, bold="tested")._numbers.values())


def test_a_setting_may_stand_side_by_side(store):
    cells = [{"loss.name": "tie_kd", "loss.temperature": t, "bins.n_bins": n} for t in (0.5, 1.0) for n in (32, 64)]
    fill(store, cells, 1, {"name": "grid", "base": BASE})
    frames = collect_stores([store])
    table = arranged(build_tables(frames[0]), columns="loss.temperature", rows=["bins.n_bins"])
    assert [column.value for column in table.columns] == [0.5, 1.0]
    assert table.rows == ((32,), (64,))
    frame = paper_frame(table)
    assert frame["0.5 adabins-kb-garg abs_rel"].tolist() == pytest.approx([metrics_of(n, 0)["abs_rel"] for n in (0, 1)])
    assert frame["1 adabins-kb-garg seeds"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": ["method", "backbone"]}, "several cells are method Res-KD, backbone MobileNetV2; they differ in .*teacher"),
        ({"rows": ["teachr"]}, "label or setting.*did you mean teacher"),
        ({"columns": "loss.sigm"}, "did you mean loss.sigma"),
        ({"only": {"method": ["Res"]}}, "no cell of the studies has method Res"),
        ({"metrics": ["abs_rel", "rsme"]}, "did you mean rmse"),
        ({"metrics": ["rmse", "rmse"]}, "must not repeat"),
        ({"digits": 12}, "digits: .* got 12"),
        ({"bold": "all"}, "bold: .*'best', 'tested' or 'none'"),
    ],
)
def test_what_cannot_be_arranged_is_refused_in_one_line(tables, settings, message):
    with pytest.raises(UserError, match=message) as error:
        arranged(tables, **settings)
    assert "\n" not in str(error.value)


def test_texts_name_things_as_papers_do(tables):
    settings = {"metrics": ["abs_rel", "delta1"], "digits": 3, "names": {"TIE-KD": "Ours"}}
    table = arranged(tables, **settings, only={"backbone": ["MobileNetV2"]})
    content, notes = paper_text(table)
    titles = ["Teacher", "Method", "Loss", *(f"{d} {m}" for d in ("KITTI", "NYU Depth v2") for m in ("Abs Rel ↓", "δ1 ↑"))]
    assert content.columns == titles
    rows = [[entry_text(entry) for entry in row] for row in content.rows]
    assert rows[1] == ["AdaBins", "Res-KD", "SSIM", "0.064", "0.664", "0.064 ± 0.000", "0.664 ± 0.000"]
    assert rows[2][:3] == ["", "Ours", "L_DPM, L_DEPTH"]
    assert rows[4][-2:] == ["–", "–"]
    assert "1 of 2 seeds: 1 failed: RuntimeError: a | b & 100% of C_1: AdaBins/Res-KD/SSIM/KITTI." in notes
    assert "2 seeds (some 1)" in " ".join(notes)
    assert any(note.startswith("3 images were evaluated; papers on KITTI evaluate 652 ") for note in notes)


def test_latex_has_the_decimals_of_siunitx_and_rules_between_teachers(tables):
    settings = {"metrics": ["abs_rel"], "only": {"backbone": ["MobileNetV2"]}, "caption": "A & B", "label": "tab:x"}
    text = paper_latex(arranged(tables, **settings))
    assert r"\begin{table}[t]" in text
    assert r"\caption{A \& B}" in text
    assert r"\label{tab:x}" in text
    assert r"S[table-format=1.4(1)]" in text
    assert r"\multicolumn{1}{c}{KITTI} & \multicolumn{1}{c}{NYU Depth v2}" in text
    assert r"{Abs Rel $\downarrow$}" in text
    assert r"-- & Baseline & SI & \bfseries 0.0622(4) & \bfseries 0.0622(4) \\" in text
    assert r" & TIE-KD & $\mathcal{L}_{\mathrm{DPM}}$, $\mathcal{L}_{\mathrm{DEPTH}}$ & 0.0683(4) & 0.0683(4) \\" in text
    assert text.count(r"\midrule") == 3


def test_a_study_in_two_stores_is_refused(tmp_path):
    stores = [RunStore(tmp_path / name) for name in ("a", "b")]
    for store in stores:
        fill(store, CELLS[:1], 1, {"name": "demo"})
    with pytest.raises(UserError, match="study demo is in several stores"):
        collect_stores(stores)


def test_a_run_of_two_stores_counts_once(tmp_path):
    stores, images = [RunStore(tmp_path / name) for name in ("a", "b")], tmp_path / "images.parquet"
    for store, name in zip(stores, ("one", "two"), strict=True):
        fill(store, CELLS[:2], 1, {"name": name})
    parts = collect_stores(stores, images_to=images)
    joined = join_frames(parts, stores)
    assert sorted(joined.runs["study"]) == ["one", "one", "two", "two"]
    for name in ("epochs", "groups"):
        assert len(getattr(joined, name)) == len(getattr(parts[0], name))
    assert len(pd.read_parquet(images)) == 6
    assert [path.name for path in Path(tmp_path).glob("*.parquet")] == ["images.parquet"]
    with pytest.raises(UserError, match="none of one, but two"):
        collect_stores(stores, ["one"])
