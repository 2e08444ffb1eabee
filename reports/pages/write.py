"""Write a report's files into a folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from reports.figures.figures import DrawnFigures, ReportFigure, figures_of, save_figure
from reports.loading.collect import StoreFrames
from reports.loading.protocols import protocol_means
from reports.loading.stores import join_frames
from reports.pages.paper import paper_caption, paper_frame, paper_latex, paper_stem, paper_text
from reports.pages.recipe import Recipe, make_recipe
from reports.pages.report_page import (
    RUNS_PAGE,
    make_section,
    published_latex,
    published_markdown,
    report_html,
    report_markdown,
    run_listings,
    runs_markdown,
    table_stems,
    tables_latex,
    tables_markdown,
)
from reports.pages.reproduce import reproduction_blocks
from reports.render.blocks import Bullets, Figure, Heading, PageBlock
from reports.render.markdown import render_markdown
from reports.tables.paper_table import PaperTable, paper_table
from reports.tables.published import published_table
from reports.tables.table import Table, build_tables, tables_frame
from reports.viewer.links import Viewer
from tiekd.config.report_config import report_config
from tiekd.data.progress import track
from tiekd.errors import UserError
from tiekd.store.files import safe_name
from tiekd.store.run_store import RunStore


@dataclass(frozen=True)
class ReportContent:
    """What a report is made of. `left_out`: studies whose cells no paper table can tell apart, with the reasons."""

    frames: StoreFrames
    tables: list[Table]
    papers: list[PaperTable]
    left_out: dict[str, str]
    recipe: Recipe


def make_content(
    parts: Sequence[StoreFrames], stores: Sequence[RunStore], studies: Sequence[str], changes: Mapping[str, Any]
) -> ReportContent:
    """Compute the tables of stores. Several `studies` share a paper table; `changes` are settings of the paper tables."""
    report_config({}, changes)  # before anything that takes long
    frames, recipe = join_frames(parts, stores), Recipe()
    for part, store in zip(parts, stores, strict=True):
        recipe.add_recipe(make_recipe(part, store))
    tables = build_tables(frames, changes.get("bold", "best"))
    groups: dict[str, list[Table]] = {}
    for table in tables:
        if table.study.name and not table.study.is_search:
            groups.setdefault("" if len(studies) > 1 else table.study.name, []).append(table)
    papers, left_out = [], {}
    for group in groups.values():
        section: dict[str, Any] = next((found for table in group if (found := table.study.document.get("report"))), {})
        try:
            papers.append(paper_table(group, report_config(section, changes)))
        except UserError as error:
            if section or changes or len(studies) > 1:
                raise
            left_out[group[0].study.name] = str(error)
    if unused := [name for name in changes if name != "bold" and not papers]:
        raise UserError(f"--{unused[0]}: there is no study whose paper table it could change")
    return ReportContent(frames, tables, papers, left_out, recipe)


def write_report(
    folder: Path, content: ReportContent, command: str, viewer: Viewer | None, drawn: DrawnFigures | None = None
) -> None:
    """Write Parquet, Markdown, HTML, LaTeX, figures and recipe of a report; images.parquet has been written already.

    `command` makes the report again from the store of the recipe; the pages link to the pictures of `viewer`. Figures are taken
    from `drawn` where their data have not changed.
    """
    save = drawn.save if drawn else save_figure
    collected, tables, recipe = content.frames, content.tables, content.recipe
    with ThreadPoolExecutor(1) as thread:  # NumPy, which computes the statistics, releases the GIL
        found = thread.submit(lambda: [table.numbers for table in tables])
        collected.runs.to_parquet(folder / "runs.parquet", index=False)
        collected.epochs.to_parquet(folder / "epochs.parquet", index=False)
        if len(collected.protocols):
            protocol_means(collected.protocols).to_parquet(folder / "protocols.parquet", index=False)
        runs = run_listings(tables, viewer)
        _write(folder / RUNS_PAGE, runs_markdown(runs))
        found.result()
    frame = tables_frame(tables)
    frame.to_parquet(folder / "tables.parquet", index=False)
    frame.drop(columns="run_ids").to_csv(folder / "tables.csv", index=False)
    for paper in content.papers:
        _write_paper(folder / "paper", paper)
    stems = zip(tables, table_stems(tables), strict=True)
    shown = [
        make_section(t, stem, _figures(folder, t, stem, collected, save)) for t, stem in track(stems, "tables", len(tables))
    ]
    for name, text in recipe.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _write(folder / name, text)
    made_by = reproduction_blocks(collected, recipe, command)
    _write(folder / "tables.md", tables_markdown(shown))
    _write(folder / "tables.tex", tables_latex(shown))
    _write(folder / "report.md", report_markdown(collected, shown, made_by, viewer))
    _write(folder / "report.html", report_html(collected, shown, runs, made_by, viewer))


def write_published(folder: Path, tables: list[Table]) -> None:
    """Write the published tables digit for digit, with our values beside them where `tables` have them."""
    published_table().to_csv(folder / "published.csv", index=False)
    _write(folder / "published.md", published_markdown(tables))
    _write(folder / "published.tex", published_latex(tables))


def _write_paper(folder: Path, paper: PaperTable) -> None:
    """Write a paper table as LaTeX, Markdown, CSV and Excel."""
    folder.mkdir(exist_ok=True)
    stem = safe_name(paper_stem(paper))
    _write(folder / f"{stem}.tex", paper_latex(paper))
    text, notes = paper_text(paper)
    page: list[PageBlock] = [Heading(1, paper_caption(paper)), text, Bullets([*notes])]
    _write(folder / f"{stem}.md", render_markdown(page, f"../{RUNS_PAGE}"))
    frame = paper_frame(paper)
    frame.to_csv(folder / f"{stem}.csv", index=False)
    texts = {"options": {"strings_to_formulas": False, "strings_to_urls": False}}
    with pd.ExcelWriter(folder / f"{stem}.xlsx", engine="xlsxwriter", engine_kwargs=texts) as file:
        file.book.set_properties({"created": datetime(2000, 1, 1)})  # the same store gives the same file
        frame.to_excel(file, sheet_name="table", index=False)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _figures(
    folder: Path, table: Table, stem: str, collected: StoreFrames, save: Callable[[ReportFigure, Path], list[Path]]
) -> Iterator[Figure]:
    for figure in figures_of(table, collected, stem):
        _, svg, *_ = save(figure, folder / "figures")
        yield Figure(svg, figure.caption)
