"""The pages of a report, from tables and collected frames."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from reports.loading.collect import StoreFrames
from reports.loading.schema import STATES
from reports.pages.reproduce import device_hours
from reports.pages.run_listing import run_listing
from reports.pages.table_layouts import published_layout
from reports.pages.table_views import TableView, all_metrics_views, compact_views, extra_views
from reports.render.blocks import Bullets, Figure, Heading, Links, PageBlock, Paragraph
from reports.render.html import render_html
from reports.render.latex import latex_document, latex_tables
from reports.render.markdown import render_markdown
from reports.render.text_table import Entry, TextTable
from reports.tables.published import published_table
from reports.tables.table import Table
from reports.viewer.links import Viewer
from tiekd.config.labels import CORRECTED
from tiekd.store.files import safe_name

RUNS_PAGE = "runs.md"


@dataclass(frozen=True)
class TableSection:
    """The section of one table: its views that fit a page, and its figures."""

    table: Table
    stem: str  # the table's part of file names and labels
    main: list[TableView]
    others: list[TableView]
    figures: list[Figure]


def make_section(table: Table, stem: str, figures: Iterable[Figure]) -> TableSection:
    return TableSection(table, stem, compact_views(table), extra_views(table), list(figures))


def table_heading(table: Table) -> str:
    study = table.study.title or table.study.name or "Runs without a study"
    stated = {cell.fidelity for cell in table.cells}
    arithmetic = f", fidelity {stated.pop()}" if len(stated) == 1 and stated != {CORRECTED} else ""
    study = f"{study}, search" if table.study.is_search else study
    return f"{study}: {table.dataset}, protocol {table.protocol}{arithmetic}"


def report_title(collected: StoreFrames) -> str:
    """The title of the studies if they share one; their number otherwise."""
    studies = collected.studies.values()
    titles = {study.title or study.name for study in studies}
    return titles.pop() if len(titles) == 1 else f"Report of {len(studies)} studies" if studies else "Report"


def table_stems(tables: Sequence[Table]) -> list[str]:
    """The parts of file names and labels that stand for tables: distinct, also where capitals do not count.

    Names that would be equal, such as those of the studies `Kitti` and `kitti`, get a digest.
    """
    names = [(t.study.name or t.study.title.lower() or "no-study", t.dataset, t.protocol) for t in tables]
    stems = [safe_name("-".join(each)) for each in names]
    counts = Counter(map(str.lower, stems))
    return [
        stem if counts[stem.lower()] == 1 else f"{stem}-{hashlib.sha256(repr(each).encode()).hexdigest()[:8]}"
        for stem, each in zip(stems, names, strict=True)
    ]


def report_markdown(
    collected: StoreFrames, shown: list[TableSection], origin: list[PageBlock], viewer: Viewer | None = None
) -> str:
    """report.md: what was run, the results, the failures, and how to reproduce them."""
    files = [("All metrics of every table", "tables.md"), ("The runs behind every number", RUNS_PAGE)]
    files += [("This page as one file, with figures and runs", "report.html"), *_pictures(viewer)]
    return render_markdown([*_head(collected), Links(files), *_report(collected, shown), *origin], RUNS_PAGE)


def report_html(
    collected: StoreFrames,
    shown: list[TableSection],
    runs: list[PageBlock],
    origin: list[PageBlock],
    viewer: Viewer | None = None,
) -> str:
    """report.html: the same page as one file, with the runs behind every number, from `run_listings`."""
    parts = [*((table_heading(item.table), f"#{item.stem}") for item in shown), *_pictures(viewer)]
    blocks = [*_report(collected, shown), *runs, *origin]
    return render_html(report_title(collected), [*_head(collected), Links(parts), *blocks])


def tables_markdown(shown: list[TableSection]) -> str:
    """tables.md: every table with all metrics and notes."""
    tables = (block for item in shown for block in _tables(item, all_metrics_views(item.table)))
    return render_markdown([Heading(1, "Tables"), *tables], RUNS_PAGE)


def run_listings(tables: Iterable[Table], viewer: Viewer | None = None) -> list[PageBlock]:
    """Every run under its cell, with a link to its pictures if `viewer` has them."""
    return [block for table in tables for block in (Heading(2, f"Runs of {table_heading(table)}"), *run_listing(table, viewer))]


def runs_markdown(runs: list[PageBlock]) -> str:
    """runs.md, from `run_listings`."""
    return render_markdown([Heading(1, "Runs"), *runs], "")


def tables_latex(shown: list[TableSection]) -> str:
    """tables.tex: the tables that fit a page, as a document that compiles."""
    tables = []
    for item in shown:
        for number, view in enumerate([*item.main, *item.others]):
            caption = f"{table_heading(item.table)}{'; ' if view.title else ''}{view.title}"
            label = f"tab:{item.stem}{f'-{number}' if number else ''}"
            tables += latex_tables(view.content, caption, label, view.notes)
    return latex_document(tables)


def published_layouts(tables: list[Table]) -> list[tuple[str, TextTable]]:
    """(heading, table) of each published table, with our values beside the published ones where `tables` have them."""
    datasets = published_table()["dataset"].unique()
    return [(f"{data}: {role}s", published_layout(role, data, tables)) for data in datasets for role in ("teacher", "student")]


def published_markdown(tables: list[Table]) -> str:
    blocks = (block for title, text_table in published_layouts(tables) for block in (Heading(2, title), text_table))
    return render_markdown([Heading(1, "Published tables"), *blocks], RUNS_PAGE)


def published_latex(tables: list[Table]) -> str:
    found = published_layouts(tables)
    return latex_document(
        [
            part
            for title, text_table in found
            for part in latex_tables(text_table, f"Published, {title}", f"tab:{title.replace(': ', '-')}", [])
        ]
    )


def _head(collected: StoreFrames) -> list[PageBlock]:
    """The title, and when a run last changed."""
    last = _date(collected, collected.updated, "%Y-%m-%d %H:%M UTC")
    return [Heading(1, report_title(collected)), *([Paragraph(f"Last change of a run: {last}.")] if last else [])]


def _date(collected: StoreFrames, run_ids: Iterable[str], form: str) -> str:
    """When one of these runs last changed; "" if none has begun, or if the time is none that exists."""
    last = max((collected.updated[run_id] for run_id in run_ids if run_id in collected.updated), default=0.0)
    try:
        return datetime.fromtimestamp(last, UTC).strftime(form) if last else ""
    except (OverflowError, OSError, ValueError):
        return ""


def _report(collected: StoreFrames, shown: list[TableSection]) -> Iterator[PageBlock]:
    yield Heading(2, "What was run")
    yield from _what_was_run(collected)
    for item in shown:
        yield from _tables(item, item.main)
        yield from item.figures
    yield Heading(2, "Runs without a result")
    yield _failures(collected.runs)
    if collected.damaged:
        yield Heading(2, "Damaged files")
        yield Paragraph("These files of the store could not be read. What needs them is left out.")
        yield TextTable.from_rows({"File": name, "Reason": reason} for name, reason in sorted(collected.damaged.items()))


def _tables(item: TableSection, main: list[TableView]) -> Iterator[PageBlock]:
    for view in (*main, *item.others):
        yield Heading(3, view.title) if view.title else Heading(2, table_heading(item.table), item.stem)
        yield view.content
        yield Bullets([*view.notes])


def _pictures(viewer: Viewer | None) -> list[tuple[str, str]]:
    return [("Pictures of the predictions", viewer.address)] if viewer else []


def _what_was_run(collected: StoreFrames) -> Iterator[PageBlock]:
    """Runs by state, device-hours and date of each study; a run shared by two studies counts once in the total."""
    rows: list[dict[str, Entry]] = []
    runs = collected.runs
    for name in dict.fromkeys([*collected.studies, *runs["study"]]):
        part = runs.loc[runs["study"] == name]
        states = part["state"].value_counts()
        counts: dict[str, Entry] = {
            state: str(states[state]) if state in states else "" for state in STATES if (runs["state"] == state).any()
        }
        spent = {"Device-hours": device_hours(part), "Last change": _date(collected, part["run_id"].dropna(), "%Y-%m-%d")}
        rows.append({"Study": str(name) or "(no study)", **counts, **spent})
    yield TextTable.from_rows(rows)
    distinct = runs["run_id"].dropna().nunique()
    yield Paragraph(f"{distinct} distinct runs, {device_hours(runs)} device-hours recorded.")


def _failures(runs: pd.DataFrame) -> PageBlock:
    """Every cause with the runs that it stopped; waiting cells are not failures."""
    lost = runs.loc[~runs["state"].isin(["done", "running"])]
    lost = lost.loc[(lost["state"] != "missing") | (lost["cause"] != "")]
    lost = lost.loc[lost["run_id"].isna() | ~lost.duplicated("run_id")]
    if lost.empty:
        return Paragraph("None.")
    causes = lost.groupby(["state", "cause"], sort=False)["run_id"]
    return TextTable.from_rows(
        {"State": str(state), "Cause": str(cause), "Runs": str(len(ids)), "Ids": " ".join(ids.dropna().str[:8]) or "–"}
        for (state, cause), ids in causes
    )
