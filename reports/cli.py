"""The `tiekd report` command: tables, figures and pages from a run store."""

import gc
import shlex
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from tiekd.errors import UserError
from tiekd.store.files import json_text

if TYPE_CHECKING:
    from reports.loading.collect import StoreFrames
    from reports.tables.table import Table

_MAX_ROWS = 40  # of a table in the terminal


def report(
    store: Annotated[str | None, typer.Argument(help="folder or URI of the run store")] = None,
    out: Annotated[Path, typer.Option("--out", help="output folder; created if missing")] = Path("report"),
    study: Annotated[str | None, typer.Option("--study", help="report only this study")] = None,
    viewer: Annotated[Path | None, typer.Option("--viewer", help="folder of a viewer to which the runs link")] = None,
    published: Annotated[bool, typer.Option("--published", help="also write the published tables; needs no store")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Write the tables, figures and pages of a run store.

    Example: tiekd report store --out report --study kitti
    """
    from reports.pages.output_folder import staged_output
    from reports.viewer.links import find_viewer

    if store is None and not published:
        raise UserError("STORE is required: a folder or URI of a run store; or use --published for the published tables alone")
    for option, value in (("--study", study), ("--viewer", viewer)):
        if store is None and value is not None:
            raise UserError(f"{option} requires STORE: a folder or URI of a run store")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, expected a folder")
    pictures = find_viewer(viewer, report=out) if viewer else None
    frames: StoreFrames | None = None
    tables: list[Table] = []
    files: list[Path] = []
    if store is not None:
        with staged_output(out, "report", files) as folder:
            frames, tables = _read(store, study, folder / "images.parquet")
            command = _command(out, study, published)
            _import_writer().write_report(folder, frames, tables, store, command, pictures)
    if published:
        with staged_output(out, "published", files) as folder:
            _import_writer().write_published(folder, tables)
    _print_summary(frames, tables, files, as_json)


def _read(store: str, study: str | None, images_to: Path) -> "tuple[StoreFrames, list[Table]]":
    from reports.loading.collect import collect
    from tiekd.store.run_store import RunStore

    gc.disable()
    try:
        frames = collect(RunStore(store), study, images_to, while_waiting=_import_writer)
        from reports.tables.table import build_tables  # _import_writer has imported it

        return frames, build_tables(frames)
    finally:
        gc.freeze()  # these objects live until the end; scanning them for garbage would take a tenth of the time
        gc.enable()


def _import_writer() -> ModuleType:
    """Import the module that writes pages and figures, which takes a second."""
    return import_module("reports.pages.write")


def _command(out: Path, study: str | None, published: bool) -> str:
    """The command that makes the report again from the store that its recipe makes."""
    from reports.pages.recipe import STORE

    argv = ["tiekd", "report", STORE, "--out", out.name or "report", *(["--study", study] if study else [])]
    return shlex.join([*argv, *(["--published"] if published else [])])


def _print_summary(frames: "StoreFrames | None", tables: "list[Table]", files: list[Path], as_json: bool) -> None:
    from reports.pages.report_page import table_heading

    if as_json:
        states = {} if frames is None else frames.runs["state"].value_counts().to_dict()
        headings = [table_heading(table) for table in tables]
        damaged = {} if frames is None else frames.damaged
        typer.echo(
            json_text(
                {"files": [str(file) for file in files], "states": states, "tables": headings, "damaged": damaged}, indent=2
            )
        )
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
    """The first rows of a table in columns of text."""
    from reports.pages.table_layouts import lay_out, terminal_layout
    from reports.render.text_table import entry_text

    text_table = lay_out(table, terminal_layout)
    titles, rows = text_table.columns, [list(map(entry_text, row)) for row in text_table.rows[:_MAX_ROWS]]
    widths = [max(len(title) + 2, *map(len, column)) for title, *column in zip(titles, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (titles, ["-" * width for width in widths], *rows)]
    hidden = len(text_table.rows) - _MAX_ROWS
    return "\n".join([*lines, *([f"... and {hidden} more rows: tables.md"] if hidden > 0 else [])])
