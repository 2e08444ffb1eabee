"""Write a report's files into a folder."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reports.figures.figures import figures_of, save_figure
from reports.loading.collect import StoreFrames
from reports.pages.recipe import make_recipe
from reports.pages.report_page import (
    RUNS_PAGE,
    make_section,
    published_latex,
    published_markdown,
    report_html,
    report_markdown,
    run_listings,
    runs_markdown,
    table_stem,
    tables_latex,
    tables_markdown,
)
from reports.pages.reproduce import reproduction_blocks
from reports.render.blocks import Figure
from reports.tables.published import published_table
from reports.tables.table import Table, tables_frame
from reports.viewer.links import Viewer
from tiekd.store.run_store import RunStore


def write_report(
    folder: Path, collected: StoreFrames, tables: list[Table], store: str, command: str, viewer: Viewer | None
) -> None:
    """Write Parquet, Markdown, HTML, LaTeX, figures and recipe of a store; images.parquet has been written already.

    `command` makes the report again from the store of the recipe; the pages link to the pictures of `viewer`.
    """
    with ThreadPoolExecutor(1) as thread:  # NumPy, which computes the statistics, releases the GIL
        found = thread.submit(lambda: [table.numbers for table in tables])
        collected.runs.to_parquet(folder / "runs.parquet", index=False)
        collected.epochs.to_parquet(folder / "epochs.parquet", index=False)
        runs = run_listings(tables, viewer)
        _write(folder / RUNS_PAGE, runs_markdown(runs))
        found.result()
    tables_frame(tables).to_parquet(folder / "tables.parquet", index=False)
    shown = [make_section(table, _figures(folder, table, collected)) for table in tables]
    recipe = make_recipe(collected, RunStore(store))
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


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _figures(folder: Path, table: Table, collected: StoreFrames) -> Iterator[Figure]:
    for figure in figures_of(table, collected, table_stem(table)):
        _, svg, _ = save_figure(figure, folder / "figures")
        yield Figure(svg, figure.caption)
