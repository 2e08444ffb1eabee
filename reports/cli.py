"""The commands `tiekd report`, `tiekd power` and `tiekd dpm`: what run stores say, what they lack, what a target says."""

import gc
import sys
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiekd.cli.options import ConfigArgument, JsonOption, SetOption, StoreOption
from tiekd.errors import UserError, unknown
from tiekd.store.files import json_text

if TYPE_CHECKING:
    from reports.pages.write import ReportContent
    from reports.tables.table import Table
    from tiekd.store.run_store import RunStore

PAPER = "Paper table"
_MAX_ROWS = 40  # of a table in the terminal


def report(
    stores: Annotated[list[str], typer.Argument(metavar="STORE...", help="run stores: folders, URIs, zips of bundle")] = [],  # noqa: B006
    out: Annotated[Path, typer.Option("--out", help="output folder; created if missing")] = Path("report"),
    more: Annotated[list[str], typer.Option("--store", metavar="STORE", help="another store; repeatable")] = [],  # noqa: B006
    study: Annotated[
        list[str], typer.Option("--study", metavar="NAME", help="only this study; several share a paper table")
    ] = [],  # noqa: B006
    viewer: Annotated[Path | None, typer.Option("--viewer", help="folder of a viewer to which the runs link")] = None,
    published: Annotated[bool, typer.Option("--published", help="also write the published tables; needs no store")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="serve report.html on this machine until Ctrl-C, renewed while runs end")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="port for --serve; 0 selects a free one")] = 8778,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    metrics: Annotated[str | None, typer.Option(metavar="NAME,...", help="columns of numbers", rich_help_panel=PAPER)] = None,
    rows: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="labels and settings of a row [default: all that vary]", rich_help_panel=PAPER),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="label or setting whose values stand side by side", rich_help_panel=PAPER),
    ] = None,
    only: Annotated[
        list[str],
        typer.Option(metavar="NAME=VALUE,...", help="only cells with one of these values; repeatable", rich_help_panel=PAPER),
    ] = [],  # noqa: B006
    digits: Annotated[int | None, typer.Option(help="decimals", rich_help_panel=PAPER)] = None,
    spread: Annotated[
        str | None, typer.Option(metavar="std|ci|none", help="what is shown beside a mean", rich_help_panel=PAPER)
    ] = None,
    bold: Annotated[
        str | None,
        typer.Option(metavar="best|tested|none", help="what is bold, here and in all other tables", rich_help_panel=PAPER),
    ] = None,
    caption: Annotated[str | None, typer.Option(help="caption [default: the study's title]", rich_help_panel=PAPER)] = None,
    label: Annotated[str | None, typer.Option(help="LaTeX label [default: tab:STUDY]", rich_help_panel=PAPER)] = None,
) -> None:
    """Write the tables, figures and pages of run stores.

    Each study also gets a table as a paper prints it, in paper/: LaTeX for \\input, Markdown and CSV. The options below change
    it, as does the section `report` of the study.

    Example: tiekd report store --study kitti --study nyu --metrics abs_rel,rmse,delta1 --only backbone=MobileNetV2
    """
    from reports.loading.zipped import opened_store
    from reports.pages.output_folder import staged_output
    from reports.pages.recipe import report_command
    from reports.viewer.links import find_viewer

    stores = [*stores, *more]
    texts = {"columns": columns, "digits": digits, "spread": spread, "bold": bold, "caption": caption, "label": label}
    changes: dict[str, Any] = {name: value for name, value in texts.items() if value is not None}
    changes |= {name: value.split(",") for name, value in (("metrics", metrics), ("rows", rows)) if value is not None}
    changes |= {"only": dict(map(_choice, only))} if only else {}
    if not stores and not published:
        raise UserError("STORE is required: a folder or URI of a run store; or use --published for the published tables alone")
    for option, value in (("--study", study), ("--viewer", viewer), *((f"--{name}", True) for name in changes)):
        if not stores and value:
            raise UserError(f"{option} requires STORE: a folder or URI of a run store")
    if repeated := [name for name, n in Counter(stores).items() if n > 1]:
        raise UserError(f"STORE: must not repeat a store, got {repeated[0]} twice")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, expected a folder")
    if serve and not stores:
        raise UserError("--serve requires STORE: a folder or URI of a run store")
    if serve and viewer:
        raise UserError("--serve cannot be used with --viewer, whose pictures are outside OUT: use `tiekd view --serve`")
    pictures = find_viewer(viewer, report=out) if viewer else None
    files: list[Path] = []
    with ExitStack() as stack:
        opened = [stack.enter_context(opened_store(store)) for store in stores]
        if serve:
            from reports.figures.figures import DrawnFigures
            from reports.pages.live import HEADERS, PAGE, digest, serve_renewed
            from reports.viewer.serve import make_server, server_url

            server = stack.enter_context(make_server(out, port, HEADERS))
            seen, drawn, page = digest(opened), DrawnFigures(out / "figures"), server_url(server, PAGE)

        def write() -> "ReportContent | None":
            files.clear()
            content = None
            if stores:
                with staged_output(out, "report", files) as folder:
                    content = _read(opened, study, changes, folder / "images.parquet")
                    command = report_command(out, study, changes, published)
                    _import_writer().write_report(folder, content, command, pictures, drawn if serve else None)
            if published:
                with staged_output(out, "published", files) as folder:
                    _import_writer().write_published(folder, content.tables if content else [])
            return content

        _print_summary(write(), files, as_json, page if serve else "")
        if serve:
            with suppress(KeyboardInterrupt):
                serve_renewed(server, opened, write, seen)


def power(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="name of a study of the store", show_default=False)],
    difference: Annotated[float, typer.Option(min=0, help="smallest difference from the Baseline that should be found")],
    store: Annotated[str, typer.Option("--store", metavar="STORE", help="folder or URI of the run store")] = "store",
    metric: Annotated[str, typer.Option(metavar="NAME", help="the metric whose difference it is")] = "abs_rel",
    chance: Annotated[float, typer.Option("--power", help="probability of finding it, between 0 and 1")] = 0.8,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Tell how many seeds a difference from the Baseline needs, and how many device-hours, from the seeds that are done.

    Assumes the tests of a report: two-sided, paired by seed, corrected over the rows by Holm's method. Needs two seeds or more
    of a row and its Baseline.

    Example: tiekd power kitti --store store --difference 0.002
    """
    from reports.loading.collect import collect
    from reports.tables.power import power_text, rows_power, table_name
    from reports.tables.table import build_tables
    from tiekd.config.labels import METRICS
    from tiekd.store.run_store import RunStore

    if metric not in METRICS:
        raise UserError(unknown("--metric", metric, METRICS))
    if not 0 < chance < 1:
        raise UserError(f"--power: must be between 0 and 1, got {chance:g}")
    if not difference > 0:
        raise UserError(f"--difference: must be above 0, got {difference:g}")
    tables = build_tables(collect(RunStore(store), [study]))
    found = {table_name(table): rows_power(table, metric, difference, chance) for table in tables}
    if not any(found.values()):
        raise UserError(f"study {study}: no row and its Baseline have two seeds in common in store {store}")
    if as_json:
        typer.echo(json_text({name: [asdict(row) for row in rows] for name, rows in found.items()}, indent=2))
        return
    for name, rows in found.items():
        typer.echo(
            f"{name}: seeds for a difference of {difference:g} in {metric} with probability {chance:g}\n{power_text(rows)}\n"
        )


def dpm(
    config: ConfigArgument,
    overrides: SetOption = [],  # noqa: B006 - repeatable in Typer's way
    store: StoreOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder for a figure; created if missing")] = None,
    as_json: JsonOption = False,
) -> None:
    """Explain the target of L_DPM on the depths of the teacher's maps, before anything is trained.

    Prints the mean of the target against the teacher's depth, its entropy and its bins; and the floor, the error of a student
    that reproduces it, beside that of every other `loss.dpm` with the same settings.

    Example: tiekd dpm debug --set loss.sigma=0.8 --store demo/store --out demo/dpm
    """
    from reports.tables.dpm_target import depths_of_maps, target_tables, target_text
    from tiekd.cli.packaged import find_run_config
    from tiekd.config import load_config
    from tiekd.config.documents import parse_overrides
    from tiekd.store.files import check_output_folder

    if out is not None:
        check_output_folder(out, "--out")
    changes = parse_overrides(overrides) | ({"execution.store": store} if store else {})
    run = load_config(find_run_config(config), changes)
    histogram = depths_of_maps(run)
    tables, files = target_tables(run, histogram), []
    if out is not None:
        from reports.figures.dpm_target import dpm_target_figure
        from reports.figures.figures import save_figure

        files = save_figure(dpm_target_figure(run, histogram, [row.depth for row in tables.rows[1::2]]), out)
    if as_json:
        typer.echo(json_text(tables.to_dict() | {"files": [str(file) for file in files]}, indent=2))
        return
    typer.echo("\n".join([target_text(tables), *map(str, files)]))


def _choice(text: str) -> tuple[str, list[str]]:
    """NAME=VALUE,... as a name and values."""
    name, equals, values = text.partition("=")
    if not equals or not name:
        raise UserError(f"--only {text!r}: expected NAME=VALUE or NAME=VALUE,VALUE")
    return name, values.split(",")


def _read(stores: "list[RunStore]", studies: list[str], changes: dict[str, Any], images_to: Path) -> "ReportContent":
    """Read the stores and compute the tables; `changes` are settings of the paper tables."""
    gc.disable()
    try:
        from reports.loading.stores import collect_stores

        parts = collect_stores(stores, studies, images_to, while_waiting=_import_writer)
        return _import_writer().make_content(parts, stores, studies, changes)
    finally:
        gc.freeze()  # these objects live until the end; scanning them for garbage would take a tenth of the time
        gc.enable()


def _import_writer() -> ModuleType:
    """Import the module that writes pages and figures, which takes a second."""
    return import_module("reports.pages.write")


def _print_summary(content: "ReportContent | None", files: list[Path], as_json: bool, page: str) -> None:
    from reports.pages.report_page import table_heading

    frames, tables = (content.frames, content.tables) if content else (None, [])
    if as_json:
        states = {} if frames is None else frames.runs["state"].value_counts().to_dict()
        headings = [table_heading(table) for table in tables]
        damaged = {} if frames is None else frames.damaged
        typer.echo(
            json_text(
                {"files": [str(file) for file in files], "states": states, "tables": headings, "damaged": damaged}
                | ({"page": page} if page else {}),
                indent=2,
            )
        )
        sys.stdout.flush()
        return
    for table in tables:
        typer.echo(f"{table_heading(table)}\n{_text(table)}\n")
    figures = [file for file in files if file.parent.name == "figures"]
    for file in files:
        if file not in figures:
            typer.echo(file)
    for name, reason in (content.left_out if content else {}).items():
        typer.echo(f"no paper table of {name}: {reason}", err=True)
    if figures:
        typer.echo(f"{figures[0].parent}: {len(figures)} files, each figure as PNG, SVG and PDF with its data")
    if page:
        print(page, flush=True)


def _text(table: "Table") -> str:
    """The first rows of a table in columns of text."""
    from reports.pages.table_layouts import lay_out, terminal_layout
    from reports.render.text_table import entry_text

    text_table = lay_out(table, terminal_layout).essential()
    titles, rows = text_table.columns, [list(map(entry_text, row)) for row in text_table.rows[:_MAX_ROWS]]
    widths = [max(len(title) + 2, *map(len, column)) for title, *column in zip(titles, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (titles, ["-" * width for width in widths], *rows)]
    hidden = len(text_table.rows) - _MAX_ROWS
    return "\n".join([*lines, *([f"... and {hidden} more rows: tables.md"] if hidden > 0 else [])])
