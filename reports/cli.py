"""The `tiekd report` command: the run store into tables, figures and pages."""

import gc
import json
import shlex
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from tiekd.errors import UserError

if TYPE_CHECKING:
    from reports.loading.collect import StoreFrames
    from reports.tables.table import Table

_SHOWN = 40  # rows of a table that are printed


def report(
    store: Annotated[str | None, typer.Argument(help="folder or URI of the run store")] = None,
    out: Annotated[Path, typer.Option("--out", help="folder for the report; made when it is not there")] = Path("report"),
    study: Annotated[str | None, typer.Option("--study", help="only this study")] = None,
    viewer: Annotated[Path | None, typer.Option("--viewer", help="folder of a viewer, to which runs lead")] = None,
    published: Annotated[bool, typer.Option("--published", help="the published tables too; needs no store")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Tables, figures and pages of a run store.

    Example: tiekd report store --out report --study kitti
    """
    from reports.pages.output_folder import staged_output
    from reports.viewer.links import find_viewer

    if store is None and not published:
        raise UserError("STORE is needed: a folder or URI of a run store; or --published for the published tables alone")
    for option, value in (("--study", study), ("--viewer", viewer)):
        if store is None and value is not None:
            raise UserError(f"{option} needs STORE: a folder or URI of a run store")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, expected a folder")
    pictures = find_viewer(viewer, report=out) if viewer else None
    collected: StoreFrames | None = None
    tables: list[Table] = []
    files: list[Path] = []
    if store is not None:
        with staged_output(out, "report", files) as folder:
            collected, tables = _read(store, study, folder / "images.parquet")
            command = _command(store, out, study, viewer, published)
            _writer().write_report(folder, collected, tables, store, command, pictures)
    if published:
        with staged_output(out, "published", files) as folder:
            _writer().write_published(folder, tables)
    _tell(collected, tables, files, as_json)


def _read(store: str, study: str | None, images_to: Path) -> "tuple[StoreFrames, list[Table]]":
    from reports.loading.collect import collect
    from tiekd.store.run_store import RunStore

    gc.disable()
    try:
        collected = collect(RunStore(store), study, images_to, meanwhile=_writer)
        from reports.tables.table import build_tables  # imported by then

        return collected, build_tables(collected)
    finally:
        gc.freeze()  # it stays to the end: to look through it again and again for garbage takes a tenth of the time
        gc.enable()


def _writer() -> ModuleType:
    """What writes pages and figures; it takes a second to import."""
    return import_module("reports.pages.write")


def _command(store: str, out: Path, study: str | None, viewer: Path | None, published: bool) -> str:
    words = ["tiekd", "report", store, "--out", str(out), *(["--study", study] if study else [])]
    words += ["--viewer", str(viewer)] if viewer else []
    return shlex.join([*words, *(["--published"] if published else [])])


def _tell(collected: "StoreFrames | None", tables: "list[Table]", files: list[Path], as_json: bool) -> None:
    from reports.pages.report_page import table_heading

    if as_json:
        states = {} if collected is None else collected.runs["state"].value_counts().to_dict()
        content = {
            "files": [str(file) for file in files],
            "states": states,
            "tables": [table_heading(table) for table in tables],
        }
        typer.echo(json.dumps(content, indent=2))
        return
    for table in tables:
        typer.echo(f"{table_heading(table)}\n{_text(table)}\n")
    figures = [file for file in files if file.parent.name == "figures"]
    for file in files:
        if file not in figures:
            typer.echo(file)
    if figures:
        typer.echo(f"{figures[0].parent}: {len(figures)} files, each figure as PNG and SVG with its data")


def _text(table: "Table") -> str:
    """A table's first rows, as much as a terminal shows."""
    from tabulate import tabulate

    from reports.pages.table_layouts import lay_out, terminal_layout
    from reports.render.text_table import entry_text

    text_table = lay_out(table, terminal_layout)
    shown = [list(map(entry_text, row)) for row in text_table.head(_SHOWN).rows]
    text = tabulate(shown, headers=text_table.columns, disable_numparse=True)
    more = len(text_table.rows) - _SHOWN
    return f"{text}\n... and {more} more rows: tables.md" if more > 0 else text
