"""The report's files, written into one folder."""

from pathlib import Path

from reports.collect import Collected
from reports.page import (
    Shown,
    heading,
    published_latex,
    published_markdown,
    report_markdown,
    stem,
    tables_latex,
    tables_markdown,
)
from reports.paper import published
from reports.plots import pictures, save
from reports.tables import Table, aggregate


def write_report(folder: Path, collected: Collected, tables: list[Table], command: str) -> None:
    """Parquet, Markdown, LaTeX and figures of a store; `command` is what made them."""
    collected.runs.to_parquet(folder / "runs.parquet", index=False)
    collected.epochs.to_parquet(folder / "epochs.parquet", index=False)
    collected.images.to_parquet(folder / "images.parquet", index=False)
    aggregate(tables).to_parquet(folder / "tables.parquet", index=False)
    shown = [_show(folder, table, collected) for table in tables]
    (folder / "tables.md").write_text(tables_markdown(shown, collected.images), encoding="utf-8")
    (folder / "tables.tex").write_text(tables_latex(shown, collected.images), encoding="utf-8")
    (folder / "report.md").write_text(report_markdown(collected, shown, command), encoding="utf-8")


def write_published(folder: Path, tables: list[Table]) -> None:
    """The published tables with their own digits, our numbers beside them where `tables` hold some."""
    published().to_csv(folder / "published.csv", index=False)
    (folder / "published.md").write_text(published_markdown(tables), encoding="utf-8")
    (folder / "published.tex").write_text(published_latex(tables), encoding="utf-8")


def _show(folder: Path, table: Table, collected: Collected) -> Shown:
    figures = [(save(picture, folder / "figures")[0], picture.caption) for picture in pictures(table, collected, stem(table))]
    return Shown(table, heading(table), stem(table), tuple(figures))
