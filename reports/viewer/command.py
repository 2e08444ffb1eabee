"""The `tiekd view` command."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiekd.store.files import json_text

if TYPE_CHECKING:
    from reports.viewer.choose import ShownDataset

MAX_LEFT_OUT = 5  # lines that are printed


def view(
    store: Annotated[str, typer.Argument(metavar="STORE", help="run store: a folder or URI", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="output folder")] = Path("viewer"),
    study: Annotated[str | None, typer.Option("--study", help="show only this study")] = None,
    runs: Annotated[
        list[str] | None, typer.Option("--runs", metavar="ID", help="show only this run, by id or prefix; repeatable")
    ] = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="show at most N test frames, evenly spaced")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="serve the page on this machine until Ctrl-C")] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="port for --serve; 0 selects a free one")] = 8777,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Write a page that shows the predictions of all runs side by side.

    For every pixel it shows depth, differences and distributions. Each cell of the store is represented by its first finished
    seed. Existing predictions are kept, so rerun the same command to add new runs. Open OUT/index.html in a browser; no server
    is needed.

    Example: tiekd view demo/store --out demo/viewer --study debug
    """
    from reports.viewer.choose import choose_datasets
    from tiekd.store.files import check_output_folder
    from tiekd.store.run_store import RunStore

    check_output_folder(out, "--out")
    run_store = RunStore(store)
    datasets, left_out = choose_datasets(run_store, study, runs or [], images)
    from reports.viewer.build import build_site
    from reports.viewer.serve import make_server, server_url
    from reports.viewer.site import Site

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(make_server(out, port)) if serve else None
        more = [f"{len(left_out) - MAX_LEFT_OUT} more"] if len(left_out) > MAX_LEFT_OUT else []
        for line in [*left_out[:MAX_LEFT_OUT], *more]:
            typer.echo(f"left out: {line}", err=True)
        damaged = build_site(Site(out), datasets, run_store)
        for line in damaged:
            typer.echo(f"left out: {line}", err=True)
        left_out += damaged
        _print_result(server_url(server) if server else str(out / "index.html"), datasets, left_out, as_json)
        if server:
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()


def _print_result(page: str, datasets: "list[ShownDataset]", left_out: list[str], as_json: bool) -> None:
    summary = {d.name: {"images": len(d.indices), "runs": [run.run_id for run in d.runs]} for d in datasets}
    if as_json:
        print(json_text({"page": page, "datasets": summary, "left_out": left_out}), flush=True)
        return
    for dataset in datasets:
        print(f"{dataset.name}: {len(dataset.runs)} runs, {len(dataset.indices)} images")
    print(page, flush=True)
