"""Every number of every page links to the runs behind it."""

import re

import pytest
from markdown_it import MarkdownIt
from support.html_page import Page
from support.made_store import BASE, CELLS, GROUND_TRUTH, LOST, MISSING, fill

from reports.loading.collect import collect
from reports.loading.schema import METRIC_LABELS
from reports.pages.recipe import Recipe
from reports.pages.report_page import (
    make_section,
    published_markdown,
    report_html,
    report_markdown,
    run_listings,
    runs_markdown,
    table_heading,
    tables_markdown,
)
from reports.pages.reproduce import reproduction_blocks
from reports.tables.table import build_tables, tables_frame
from tiekd.store.run_store import RunStore

PAGES = ("report.md", "tables.md", "published.md")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Pages about studies of every kind, without figures, and their tables."""
    folder = tmp_path_factory.mktemp("links")
    store = RunStore(folder / "store")
    fill(store, CELLS, 2, {"name": "demo"}, LOST, MISSING)
    fill(
        store, [{}, {"loss.sigma": 0.25}, {"loss.temperature": 2.0}], 2, {"name": "oat", "vary": "one_at_a_time", "base": BASE}
    )
    fill(store, [{"loss.temperature": t, "bins.n_bins": n} for t in (0.5, 1.0) for n in (32, 64)], 2, {"name": "grid"}, LOST)
    fill(store, [{"loss.temperature": t} for t in (0.1, 0.2)], 1, {"name": "hunt", "kind": "search"})
    students = [{**loss, "student.name": name} for name in ("resnet18", "resnet50") for loss in (GROUND_TRUTH, {})]
    fill(store, students, 1, {"name": "backbones"})
    collected = collect(store)
    tables = build_tables(collected)
    shown = [make_section(table, "stem", []) for table in tables]
    made_by, runs = reproduction_blocks(collected, Recipe(), "tiekd report"), run_listings(tables)
    (folder / "report.md").write_text(report_markdown(collected, shown, made_by))
    (folder / "report.html").write_text(report_html(collected, shown, runs, made_by))
    (folder / "tables.md").write_text(tables_markdown(shown))
    (folder / "runs.md").write_text(runs_markdown(runs))
    (folder / "published.md").write_text(published_markdown(tables))
    return folder, tables


def listed(text: str) -> dict[str, set[str]]:
    """The runs that a page lists under each anchor."""
    parts = re.split(r'id="(cell-\d+)"', text)
    return {anchor: set(re.findall(r"runs/(\w+)", part)) for anchor, part in zip(parts[1::2], parts[2::2], strict=True)}


def by_anchor(tables) -> dict[str, set[str]]:
    return {table.anchor(number): set(cell.run_ids) for table in tables for number, cell in enumerate(table.cells)}


def test_each_anchor_lists_exactly_the_runs_of_its_cell(report):
    out, tables = report
    expected = by_anchor(tables)
    assert len(expected) == sum(len(table.cells) for table in tables)
    assert listed((out / "runs.md").read_text()) == expected
    page = (out / "report.html").read_text().partition("How to reproduce this report")[0]
    assert listed(page) == expected


def rows_of(text: str) -> list[list[tuple[str, str]]]:
    """(text, anchor) of the entries in the table rows of a page, without titles."""
    found = []
    for row in MarkdownIt("commonmark").enable("table").render(text).split("<tr>")[1:]:
        entries = re.findall(r"<td[^>]*>(.*?)</td>", row, flags=re.DOTALL)
        links = [re.search(r'href="runs\.md#(cell-\d+)"', entry) for entry in entries]
        found.append([(re.sub("<[^>]*>", "", e), m[1] if m else "") for e, m in zip(entries, links, strict=True)])
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_mean_links_to_an_anchor(report, page):
    out, tables = report
    entries = [entry for row in rows_of((out / page).read_text()) for entry in row]
    means = [(text, anchor) for text, anchor in entries if "±" in text or re.fullmatch(r"[+-]\d\.\d{4}|\d+/\d+", text)]
    assert len(means) > 4
    assert {anchor for _, anchor in means} <= set(by_anchor(tables))


def test_a_mean_is_that_of_the_runs_it_links_to(report):
    """Every number with a spread in tables.md, against the runs in tables.parquet."""
    out, tables = report
    means = {}
    for table in tables:
        for number in range(len(table.cells)):
            results = [table.result(number, metric) for metric in METRIC_LABELS]
            means[table.anchor(number)] = {f"{r['mean']:.4f}" for r in results if r["n_seeds"]}
    entries = [entry for row in rows_of((out / "tables.md").read_text()) for entry in row if "±" in entry[0]]
    assert entries
    assert [text for text, anchor in entries if text.split()[0] not in means[anchor]] == []


def test_links_of_the_html_page_have_anchors(report):
    out, tables = report
    page = Page((out / "report.html").read_text())
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {link["href"].removeprefix("#") for link in page.all("a")}
    assert links <= targets
    assert set(by_anchor(tables)) <= targets


def test_html_and_markdown_have_the_same_content(report):
    out, tables = report
    page = Page((out / "report.html").read_text())
    markdown = (out / "report.md").read_text()
    for entry in {text for row in rows_of(markdown) for text, _ in row}:
        assert entry.replace("&lt;", "<").replace("&amp;", "&").replace("&gt;", ">") in page.text
    assert all(table_heading(table) in page.text for table in tables)


def test_failed_runs_are_listed_with_their_state(report):
    out, _ = report
    lines = (out / "runs.md").read_text()
    for state in ("failed: RuntimeError: a ", "diverged: loss is inf at step 7", "constant: every prediction", "missing"):
        assert f"| {state}" in lines


def test_the_parquet_file_has_the_same_runs(report):
    _, tables = report
    frame = tables_frame(tables)
    assert {run_id for ids in frame["run_ids"] for run_id in ids} == set().union(*by_anchor(tables).values())
