"""The verbs `ablate`, `search` and `status` of the `tiekd` command."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tiekd.errors import UserError

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="the study", show_default=False)]
StoreOption = Annotated[str | None, typer.Option("--store", help="run store: a folder or URI [default: the study's, or store]")]
SetOption = Annotated[list[str], typer.Option("--set", metavar="PATH=VALUE", help="override a setting of the base config")]
NameOption = Annotated[str | None, typer.Option(help="keep this launch in the store under another study name")]
AddressOption = Annotated[str | None, typer.Option(help="join the Ray cluster at HOST:PORT, or 'auto'")]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")]


def ablate(
    study: StudyFile,
    store: StoreOption = None,
    overrides: SetOption = [],  # noqa: B006 - typer's way to say repeatable
    name: NameOption = None,
    seeds: Annotated[int | None, typer.Option(help="repeat every cell with seeds 0 .. N-1")] = None,
    only: Annotated[list[str], typer.Option(metavar="NAME=VALUE", help="only cells with this label or factor")] = [],  # noqa: B006
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="compute failed cells again")] = False,
    address: AddressOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the cells and what is missing; compute nothing")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compute all cells of a study that the store does not hold yet.

    Example: tiekd ablate ablations/studies/debug.yaml --store demo/store --seeds 2
    """
    from ablations.ablate import dry_run as describe
    from ablations.ablate import prepare, run_study

    prepared = prepare(study, store, overrides, name, seeds, only, retry_failed)
    if dry_run:
        describe(prepared, as_json)
    elif not run_study(prepared, address, as_json):
        raise typer.Exit(1)


def search(
    study: StudyFile,
    store: StoreOption = None,
    overrides: SetOption = [],  # noqa: B006
    name: NameOption = None,
    trials: Annotated[int | None, typer.Option(help="trials in all, over every launch")] = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the space of a study's `search:` block with Optuna; goes on where an earlier launch ended.

    Example: tiekd search ablations/studies/dpm.yaml --store demo/store --trials 30
    """
    from ablations.search import run_search

    if not run_search(study, store, overrides, name, trials, address, as_json):
        raise typer.Exit(1)


def status(
    store: Annotated[str, typer.Argument(metavar="STORE", help="run store: a folder or URI", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Runs by state, failures grouped by cause, device-hours.

    Example: tiekd status demo/store
    """
    from ablations.status import read_status, show_status
    from tiekd.store import RunStore

    found = read_status(RunStore(store))
    if not found["runs"]:
        raise UserError(f"store {store}: holds no runs")
    print(json.dumps(found, indent=2)) if as_json else show_status(found)
