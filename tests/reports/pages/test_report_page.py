"""The report at any time of a sweep."""

import pytest
from support.made_store import BASE, fill, write_run

from reports.figures.figures import figures_of
from reports.loading.collect import collect
from reports.pages.report_page import make_section, report_markdown, run_listings, tables_latex, tables_markdown
from reports.tables.table import build_tables, tables_frame
from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.store.run_status import STATES, Status

STUDIES = {
    "a study": {"name": "demo"},
    "a search": {"name": "demo-search", "kind": "search", "search": {"objectives": ["abs_rel"]}},
}


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("epochs", [0, 3])
@pytest.mark.parametrize("states", [(), *((state,) for state in STATES), STATES], ids=lambda states: "+".join(states) or "none")
def test_a_page_says_what_runs_in_every_state_of_a_study(store, study, epochs, states):
    """`missing` runs have no folder; without epochs, no run has ended one."""
    cells = [{"loss.name": name} for name in ("si", "mse", "ssim", "tie_kd", "l_dpm", "ssim_si")[: len(states)]]
    lost = {(number, 0): Status(state) for number, state in enumerate(states)}
    missing = next(((number, 0) for number, state in enumerate(states) if state == "missing"), None)
    fill(store, cells, 1, STUDIES[study], lost, missing)
    for record in store.runs() if not epochs else ():
        record.delete_file("epochs.parquet")
    found = collect(store)
    tables = build_tables(found)
    for table in tables:
        names = [figure.name for figure in figures_of(table, found, "stem")]
        assert len(set(names)) == len(names)
    sections = [make_section(table, []) for table in tables]
    page = report_markdown(found, sections, [], None)
    row = next(line for line in page.splitlines() if line.startswith(f"| {STUDIES[study]['name']} "))
    assert sum(int(entry) for entry in row.split("|")[2:-2] if entry.strip()) == len(states)
    assert len(run_listings(tables)) >= len(tables)
    assert tables_markdown(sections).startswith("# Tables")
    assert "document" in tables_latex(sections)
    assert len(tables_frame(tables)) == 9 * len(states)


def test_a_store_whose_first_run_has_just_begun(store):
    write_run(store, build(with_values(BASE, {})), Status("running"), 0)
    for record in store.runs():
        record.delete_file("epochs.parquet")
    found = collect(store)
    page = report_markdown(found, [make_section(t, []) for t in build_tables(found)], [], None)
    (row,) = (line.split() for line in page.splitlines() if "(no study)" in line)
    assert row == ["|", "(no", "study)", "|", "1", "|", "0.02", "|"]
