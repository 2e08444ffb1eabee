"""`tiekd report`: files, printed tables, and user errors."""

import json
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import typer
from markdown_it import MarkdownIt
from support.made_store import fill, write_run
from typer.testing import CliRunner

from reports.cli import report
from reports.tables.published import published_table
from tiekd.config import build
from tiekd.errors import UserError
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

FILES = {
    "runs.parquet",
    "epochs.parquet",
    "images.parquet",
    "tables.parquet",
    "tables.csv",
    "tables.md",
    "tables.tex",
    "paper",
    "report.md",
    "report.html",
    "runs.md",
    "figures",
    "recipe",
    ".report.json",
}
SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
LOST = Status("failed", "no memory")
runner = CliRunner()


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(report)
    return app


@pytest.fixture(scope="module")
def out(app, made, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "out"
    result = runner.invoke(app, [made.uri, "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "Demo study: kitti, protocol adabins-kb-garg" in result.output
    return out


def test_exactly_the_expected_files_are_written(out):
    assert {path.name for path in out.iterdir()} == FILES
    assert {path.suffix for path in (out / "figures").iterdir()} == {".png", ".svg", ".pdf", ".csv"}


def test_parquet_files_can_be_read(out, collected):
    runs = pd.read_parquet(out / "runs.parquet")
    assert list(runs.columns) == list(collected.runs.columns)
    assert runs["seed"].tolist() == [0, 1] * 9
    tables = pd.read_parquet(out / "tables.parquet")
    assert tables["run_ids"].map(len).tolist() == [2] * 81
    epochs, images = (pd.read_parquet(out / f"{name}.parquet") for name in ("epochs", "images"))
    assert {"run_id", "epoch", "part_si", "abs_rel"} <= set(epochs.columns)
    assert list(images.columns)[:5] == ["run_id", "image", "group", "n_valid", "abs_rel"]


def test_a_paper_table_for_excel_has_the_cells_of_the_csv(out):
    frame = pd.read_csv(out / "paper" / "demo.csv")
    with zipfile.ZipFile(out / "paper" / "demo.xlsx") as book:
        texts = [item.text for item in ElementTree.fromstring(book.read("xl/sharedStrings.xml")).iter(f"{SHEET}t")]
        sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
    rows = [
        [texts[int(value.text)] if cell.get("t") == "s" else float(value.text) for cell in row for value in cell]
        for row in sheet.iter(f"{SHEET}row")
    ]
    assert rows.pop(0) == list(frame.columns)
    for cells, (_, expected) in zip(rows, frame.iterrows(), strict=True):
        assert cells == [pytest.approx(cell, rel=1e-14) if isinstance(cell, float) else cell for cell in expected.dropna()]


def test_the_page_shows_figures_failures_and_provenance(out):
    text = (out / "report.md").read_text()
    tokens = [child for token in MarkdownIt("commonmark").parse(text) for child in token.children or []]
    figures = [token.attrs["src"] for token in tokens if token.type == "image"]
    assert len(figures) == 4
    assert all((out / figure).is_file() for figure in figures)
    for expected in ("loss is inf at step 7", "abc123", "torch 2.9", "test d1", "tiekd report", "0.28 demo"):
        assert expected in text


def test_the_same_store_gives_the_same_files(out, made, tmp_path):
    report([made.uri], tmp_path / "again")
    names = [path.relative_to(out) for path in out.rglob("*") if path.is_file() and path.suffix not in (".md", ".html")]
    assert [name for name in names if (out / name).read_bytes() != (tmp_path / "again" / name).read_bytes()] == []


@pytest.fixture
def small(store) -> RunStore:
    """Two studies with one run each."""
    fill(store, [{"loss.name": "ssim"}], 1, {"name": "demo"})
    fill(store, [{"loss.name": "mse"}], 1, {"name": "other"})
    return store


def test_stale_figures_are_deleted_and_other_files_kept(small, tmp_path):
    report([small.uri], tmp_path / "out")
    figures = tmp_path / "out" / "figures"
    whole = {path.name for path in figures.iterdir()}
    assert "other-kitti-adabins-kb-garg-seeds.png" in whole
    (figures / "other-mine.png").write_text("kept")
    report([small.uri], tmp_path / "out", study=["demo"])
    left = {path.name for path in figures.iterdir()}
    assert left == {name for name in whole if name.startswith("demo-")} | {"other-mine.png"}


def test_published_alone_keeps_the_report(small, tmp_path):
    report([small.uri], tmp_path / "out", published=True)
    assert "Our Abs Rel" in (tmp_path / "out" / "published.md").read_text()
    before = {path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert tmp_path / "out" / "tables.md" in before
    report(out=tmp_path / "out", published=True)
    assert {path for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    assert "Our Abs Rel" not in (tmp_path / "out" / "published.md").read_text()


def test_json_is_one_object(app, small, tmp_path):
    result = runner.invoke(app, [small.uri, "--out", str(tmp_path / "out"), "--json"], catch_exceptions=False)
    content = json.loads(result.stdout)
    assert content["states"] == {"done": 2}
    assert str(tmp_path / "out" / "tables.md") in content["files"]


def test_a_long_table_is_printed_partially(app, store, tmp_path):
    fill(store, [{"loss.sigma": 0.01 * (n + 1)} for n in range(45)], 1, {"name": "long"}, {(n, 0): LOST for n in range(45)})
    result = runner.invoke(app, [store.uri, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert "... and 5 more rows: tables.md" in result.output


def test_published_needs_no_store(tmp_path):
    report(out=tmp_path / "out", published=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "published.csv",
        "published.md",
        "published.tex",
        ".report.json",
    }
    assert pd.read_csv(tmp_path / "out" / "published.csv", dtype=str, keep_default_na=False).equals(published_table())
    assert "| 0.1445  | 0.4810 |" in (tmp_path / "out" / "published.md").read_text()


def test_a_store_with_only_a_running_run(store, tmp_path):
    write_run(
        store,
        build({"data": {"dataset": "synthetic-outdoor"}, "loss": {"name": "si", "target": "ground_truth"}}),
        Status("running"),
        0,
    )
    report([store.uri], tmp_path / "out")
    assert "| running |" in (tmp_path / "out" / "tables.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "STORE is required"),
        ({"study": ["demo"], "published": True}, "--study requires STORE"),
        ({"viewer": "viewer", "published": True}, "--viewer requires STORE"),
        (
            {"stores": ["store"], "viewer": "store"},
            "--viewer store: no viewer in this folder; create one with `tiekd view",
        ),
        ({"stores": ["nowhere"]}, "no such folder"),
        ({"stores": ["store"], "study": ["dmeo"]}, "did you mean demo"),
        ({"stores": ["store"], "out": "file"}, "--out file: is a file"),
        ({"stores": ["store"], "out": "file/below"}, "--out file/below: cannot be written"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(demo, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("kept")
    paths = {name: Path(arguments[name]) for name in ("out", "viewer") if name in arguments}
    with pytest.raises(UserError, match=message) as error:
        report(**{"out": Path("out"), **arguments, **paths})
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "store"]
    assert Path("file").read_text() == "kept"


def test_options_of_a_paper_table_are_checked_and_never_without_an_effect(small, tmp_path):
    with pytest.raises(UserError, match=r"bold: .*'best', 'tested' or 'none', got 'all'"):
        report([small.uri], tmp_path / "out", bold="all")
    alone, base = RunStore(tmp_path / "alone"), {"data": {"dataset": "kitti", "root": "kitti"}}
    write_run(alone, build(base | {"loss": {"name": "si", "target": "ground_truth"}}), Status("done"), 0)
    with pytest.raises(UserError, match="--digits: there is no study whose paper table it could change"):
        report([alone.uri], tmp_path / "out", digits=3)
    assert not (tmp_path / "out").exists()
