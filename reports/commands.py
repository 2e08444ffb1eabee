"""The `tiekd report` command: the run store into tables, figures and pages."""

import json
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiekd.errors import UserError

if TYPE_CHECKING:
    from reports.collect import Collected
    from reports.tables import Table


def report(
    store: Annotated[str | None, typer.Argument(help="folder or URI of the run store")] = None,
    out: Annotated[Path, typer.Option("--out", help="folder for the report; made when it is not there")] = Path("report"),
    study: Annotated[str | None, typer.Option("--study", help="only this study")] = None,
    published: Annotated[bool, typer.Option("--published", help="the published tables too; needs no store")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Tables, figures and pages of a run store.

    Example: tiekd report store --out report --study kitti
    """
    if store is None and not published:
        raise UserError("STORE is needed: a folder or URI of a run store; or --published for the published tables alone")
    if store is None and study is not None:
        raise UserError("--study needs STORE: a folder or URI of a run store")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, expected a folder")
    collected, tables = _read(store, study) if store is not None else (None, [])
    files = _write_whole(out, collected, tables, published, _command(store, out, study, published))
    _tell(collected, tables, files, as_json)


def _read(store: str, study: str | None) -> "tuple[Collected, list[Table]]":
    from reports.collect import collect
    from reports.tables import tables_of
    from tiekd.store import RunStore

    collected = collect(RunStore(store), study)
    return collected, tables_of(collected)


def _write_whole(out: Path, collected: "Collected | None", tables: "list[Table]", published: bool, command: str) -> list[Path]:
    """Write everything into a folder of its own, then move file by file: a reader of `out` never meets half a file."""
    from reports.write import write_published, write_report

    try:
        out.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=out))
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from None
    try:
        if collected is not None:
            write_report(partial, collected, tables, command)
        if published:
            write_published(partial, tables)
        files = [_move(file, partial, out) for file in sorted(partial.rglob("*")) if file.is_file()]
        if collected is not None:
            _forget_old_figures(out, {file.name for file in files if file.parent.name == "figures"})
        return files
    finally:
        shutil.rmtree(partial)


def _move(file: Path, partial: Path, out: Path) -> Path:
    target = out / file.relative_to(partial)
    target.parent.mkdir(parents=True, exist_ok=True)
    return file.replace(target)


def _forget_old_figures(out: Path, drawn: set[str]) -> None:
    """Delete the figures that an earlier report drew into this folder and this one did not; what others put there stays."""
    record = out / ".figures"
    gone = set(record.read_text().splitlines() if record.is_file() else ()) - drawn
    for old in [file for file in (out / "figures").glob("*") if file.name in gone]:
        old.unlink()
    record.write_text("".join(f"{name}\n" for name in sorted(drawn)))


def _command(store: str | None, out: Path, study: str | None, published: bool) -> str:
    words = ["tiekd", "report", *([store] if store else []), "--out", str(out), *(["--study", study] if study else [])]
    return shlex.join([*words, *(["--published"] if published else [])])


def _tell(collected: "Collected | None", tables: "list[Table]", files: list[Path], as_json: bool) -> None:
    from tabulate import tabulate

    from reports.layout import brief, laid_out
    from reports.page import heading

    if as_json:
        states = {} if collected is None else collected.runs["state"].value_counts().to_dict()
        content = {"files": [str(file) for file in files], "states": states, "tables": [heading(table) for table in tables]}
        typer.echo(json.dumps(content, indent=2))
        return
    for table in tables:
        frame = laid_out(table, brief)
        typer.echo(f"{heading(table)}\n{tabulate(frame, headers='keys', showindex=False, disable_numparse=True)}\n")
    figures = [file for file in files if file.parent.name == "figures"]
    for file in files:
        if file not in figures:
            typer.echo(file)
    if figures:
        typer.echo(f"{figures[0].parent}: {len(figures)} files, each figure as PNG and SVG with its data")
