"""The `tiekd view` command: predictions of a store's runs as a page to look at."""

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from http.server import HTTPServer

    from reports.viewer.choose import Shown


TOLD = 5  # of what is left out


def view(
    store: Annotated[str, typer.Argument(help="folder or URI of the run store")],
    out: Annotated[Path, typer.Option("--out", help="folder for the page; made when it is not there")] = Path("viewer"),
    study: Annotated[str | None, typer.Option("--study", help="only this study")] = None,
    runs: Annotated[
        list[str] | None, typer.Option("--runs", metavar="ID", help="only this run, by how its id begins; may be repeated")
    ] = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="only so many test frames, evenly spread")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="then serve the page on this machine, until Ctrl-C")] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="with --serve; 0 takes a free one")] = 8777,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Predictions of the runs side by side: depth, differences, and each pixel's distribution.

    Each cell of the store is shown by its first finished seed. Predictions are made once: the same command goes on from what
    is there. Open OUT/index.html in a browser; it needs no server.

    Example: tiekd view demo/store --out demo/viewer --study debug
    """
    from reports.viewer.choose import choose
    from tiekd.store.files import check_output_folder
    from tiekd.store.run_store import RunStore

    check_output_folder(out, "--out")
    run_store = RunStore(store)
    shown, left_out = choose(run_store, study, runs or [], images)
    from reports.viewer.build import build_site
    from reports.viewer.serve import server_of
    from reports.viewer.site import Site

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(server_of(out, port)) if serve else None
        more = [f"{len(left_out) - TOLD} more"] if len(left_out) > TOLD else []
        for line in [*left_out[:TOLD], *more]:
            typer.echo(f"left out: {line}", err=True)
        build_site(Site(out), shown, run_store, quiet=as_json)
        _tell(out, shown, left_out, server, as_json)
        if server:
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()


def _tell(out: Path, shown: "list[Shown]", left_out: list[str], server: "HTTPServer | None", as_json: bool) -> None:
    """Where the page is, and what it shows."""
    from reports.viewer.serve import url_of

    page = url_of(server) if server else str(out / "index.html")
    found = {one.name: {"images": len(one.indices), "runs": [m.run_id for m in one.methods]} for one in shown}
    if as_json:
        print(json.dumps({"page": page, "datasets": found, "left_out": left_out}), flush=True)
        return
    for name, dataset in found.items():
        print(f"{name}: {len(dataset['runs'])} runs, {dataset['images']} images")
    print(page, flush=True)
