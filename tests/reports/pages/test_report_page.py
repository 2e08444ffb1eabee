"""The report at any time of a sweep."""

from dataclasses import replace
from datetime import date

import pandas as pd
import pytest
from support.made_store import BASE, fill, write_run

from reports.figures.figures import figures_of
from reports.loading.collect import collect
from reports.loading.records import StudyRecord
from reports.pages.footnotes import table_notes
from reports.pages.report_page import make_section, report_markdown, run_listings, table_stems, tables_latex, tables_markdown
from reports.tables.table import Table, build_tables, tables_frame
from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.config.specs import DATASETS
from tiekd.store.files import safe_name
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
    sections = [make_section(table, "stem", []) for table in tables]
    page = report_markdown(found, sections, [], None)
    row = next(line for line in page.splitlines() if line.startswith(f"| {STUDIES[study]['name']} "))
    assert sum(int(entry) for entry in row.split("|")[2:-3] if entry.strip()) == len(states)
    assert len(run_listings(tables)) >= len(tables)
    assert tables_markdown(sections).startswith("# Tables")
    assert "document" in tables_latex(sections)
    assert len(tables_frame(tables)) == 9 * len(states)


def test_a_store_whose_first_run_has_just_begun(store):
    write_run(store, build(with_values(BASE, {})), Status("running"), 0)
    for record in store.runs():
        record.delete_file("epochs.parquet")
    found = collect(store)
    page = report_markdown(found, [make_section(t, "stem", []) for t in build_tables(found)], [], None)
    (row,) = (line.split() for line in page.splitlines() if "(no study)" in line)
    assert row[:-2] == ["|", "(no", "study)", "|", "1", "|", "0.02", "|"]
    date.fromisoformat(row[-2])


def test_a_table_says_when_papers_evaluate_other_images(table):
    notes = [note for note in table_notes(table) if "papers on" in note]
    assert len(notes) == 1
    assert notes[0].startswith("**2 images were evaluated; papers on KITTI evaluate 652 (Eigen split, improved ground truth)")
    assert not DATASETS["kitti"].count_note(652)
    assert not DATASETS["folder"].count_note(2)


def test_names_of_tables_are_distinct_also_where_capitals_do_not_count():
    names = [
        ("a", "b-c", "none"),
        ("a-b", "c", "none"),
        ("Kitti", "k", "none"),
        ("kitti", "k", "none"),
        ("n" * 300, "..", "a/b"),
    ]
    nothing = pd.DataFrame()
    tables = [Table(StudyRecord(study), *rest, (), 0, nothing, nothing) for study, *rest in [*names, ("alone", "k", "none")]]
    stems = table_stems(tables)
    assert len({stem.lower() for stem in stems}) == len(stems)
    assert [safe_name(stem) for stem in stems] == stems
    assert stems[-1] == "alone-k-none"


def test_a_page_has_the_title_and_the_date_of_its_studies(store):
    status = Status("done", updated=1_700_000_000)  # 2023-11-14 22:13:20 UTC
    fill(store, [{"loss.name": "ssim"}], 1, {"name": "demo", "title": "My study"}, {(0, 0): status})
    page = report_markdown(collect(store), [], [])
    assert page.startswith("# My study\n\nLast change of a run: 2023-11-14 22:13 UTC.")
    assert "| demo  | 1    | 0.02         | 2023-11-14  |" in page
    fill(store, [{"loss.name": "mse"}], 1, {"name": "other"}, {(0, 0): replace(status, updated=1e30)})
    assert report_markdown(collect(store), [], []).startswith("# Report of 2 studies\n\n-")
