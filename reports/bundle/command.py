"""The `tiekd bundle` command."""

from pathlib import Path
from typing import Annotated

import typer

from tiekd.cli.options import JsonOption
from tiekd.errors import UserError
from tiekd.store.files import check_output_folder, json_text
from tiekd.store.temporary import temporary_folder


def bundle(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="name of a study in the store", show_default=False)],
    store: Annotated[str, typer.Option("--store", help="run store: a folder or URI")],
    out: Annotated[Path, typer.Option("--out", help="output file (.zip)")],
    as_json: JsonOption = False,
) -> None:
    """Write one zip file from which the report of a study can be made again on another machine.

    It has the study, the results of its runs and of those of its teachers, the report, the lock of versions, the digests of
    inputs and the license of the data, described as an RO-Crate. `tiekd report FILE.zip` gives the same tables. Weights, images
    and maps are not included.

    Example: tiekd bundle debug --store demo/store --out demo/debug.zip
    """
    if out.suffix != ".zip" or out.is_dir():
        raise UserError(f"--out {out}: expected the name of a .zip file")
    check_output_folder(out.parent, "--out: folder")
    from reports.bundle.pack import pack_study
    from tiekd.store.run_store import RunStore

    run_store = RunStore(store)
    with temporary_folder() as folder:
        packed = pack_study(run_store, study, folder / "bundle", out)
    size = out.stat().st_size
    if as_json:
        typer.echo(json_text({"out": str(out), "bytes": size, **packed._asdict()}))
        return
    runs = f"{packed.runs} runs, {packed.teachers} of its teachers"
    typer.echo(f"{packed.lock}\n{out}: {size / 1e6:.1f} MB, {packed.files} files; study {study}, {runs}")
