"""A report links its runs to their pictures in a viewer."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from reports.loading.collect import collect
from reports.pages.report_page import make_section, report_html, report_markdown, run_listings, runs_markdown
from reports.tables.table import build_tables
from reports.viewer.links import find_viewer
from tiekd.store.run_store import RunStore

LINKS = {"report.html": r'href="([^"#]*index\.html)"', "report.md": r"\(([^()]*index\.html)\)"}  # to the viewer itself


@pytest.fixture(scope="module")
def report(viewed, tmp_path_factory):
    """The pages of a report with a viewer, without figures, in a folder whose name needs quoting in a URL."""
    folder = tmp_path_factory.mktemp("report") / "of #1, 100 %"
    folder.mkdir()
    viewer = find_viewer(viewed.folder, report=folder)
    collected = collect(RunStore(viewed.store))
    shown = [make_section(table, "stem", []) for table in build_tables(collected)]
    runs = run_listings((item.table for item in shown), viewer)
    (folder / "report.html").write_text(report_html(collected, shown, runs, [], viewer))
    (folder / "report.md").write_text(report_markdown(collected, shown, [], viewer))
    (folder / "runs.md").write_text(runs_markdown(runs))
    return folder


def targets(text: str) -> dict[str, Path]:
    """The runs that a page links to, each with the file of its link."""
    found = re.findall(r'[("]([^"()]*index\.html)#focus=(\w+)[)"]', text)
    return {run_id: Path(unquote(address)) for address, run_id in found}


@pytest.mark.parametrize("page", ["report.html", "runs.md"])
def test_shown_runs_link_to_the_viewer(report, viewed, page):
    found = targets((report / page).read_text())
    assert set(found) == {viewed.runs[name] for name in ("baseline", "tie-kd", "indoor")}
    assert {(report / address).resolve() for address in found.values()} == {viewed.folder / "index.html"}


@pytest.mark.parametrize("page", LINKS)
def test_report_links_to_the_viewer(report, viewed, page):
    (address,) = re.findall(LINKS[page], (report / page).read_text())
    assert (report / unquote(address)).resolve() == viewed.folder / "index.html"


def test_link_opens_the_run_in_its_data_set(report, viewed, chromium):
    tab = chromium.new_page()
    tab.goto((report / "report.html").as_uri())
    tab.click(f"a[href$='focus={viewed.runs['indoor']}']")
    tab.wait_for_selector("body[data-ready=true]")
    assert tab.input_value("#dataset") == tab.evaluate("new URLSearchParams(location.hash.slice(1)).get('data')")
    assert tab.inner_text("#dataset option:checked") == "synthetic-indoor"
    assert tab.get_attribute("#metrics tr.focused", "data-id") == viewed.runs["indoor"]
    tab.close()
