"""The verbs `ablate`, `search` and `status` of the `tiekd` command."""

from pathlib import Path
from typing import Annotated

import typer

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="the study", show_default=False)]
StoreOption = Annotated[str | None, typer.Option("--store", help="run store: a folder or URI [default: the study's, or store]")]
SetOption = Annotated[list[str], typer.Option("--set", metavar="PATH=VALUE", help="override a setting of the base config")]
NameOption = Annotated[str | None, typer.Option(help="keep this launch in the store under another study name")]
AddressOption = Annotated[str | None, typer.Option(help="join the Ray cluster at HOST:PORT, or 'auto'")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON lines instead of text: one per event, the outcome last")]
FailuresOption = Annotated[int, typer.Option(help="stop when so many cells failed of one cause; 0: never")]
MAX_FAILURES = 10  # more than a study loses by accident, and few enough to save a weekend's device-hours


def ablate(
    study: StudyFile,
    store: StoreOption = None,
    overrides: SetOption = [],  # noqa: B006 - typer's way to say repeatable
    name: NameOption = None,
    seeds: Annotated[int | None, typer.Option(help="repeat every cell with seeds 0 .. N-1")] = None,
    only: Annotated[list[str], typer.Option(metavar="NAME=VALUE", help="only cells with this label or factor")] = [],  # noqa: B006
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="compute failed cells again")] = False,
    address: AddressOption = None,
    max_failures: FailuresOption = MAX_FAILURES,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the cells and what is missing; compute nothing")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compute all cells of a study that the store does not hold yet.

    Example: tiekd ablate ablations/studies/debug.yaml --store demo/store --seeds 2
    """
    from ablations.ablate import launch_study
    from ablations.ablate import print_plan as describe
    from ablations.monitor.reporters import LaunchOptions
    from ablations.prepared_study import prepare_study

    prepared = prepare_study(study, store, overrides, name, seeds, only, retry_failed)
    if dry_run:
        describe(prepared, address, as_json)
    elif not launch_study(prepared, address, LaunchOptions(as_json, max_failures)):
        raise typer.Exit(1)


def search(
    study: StudyFile,
    store: StoreOption = None,
    overrides: SetOption = [],  # noqa: B006
    name: NameOption = None,
    trials: Annotated[int | None, typer.Option(help="trials in all, over every launch")] = None,
    hours: Annotated[float | None, typer.Option(help="begin no new trial after so many hours of this launch")] = None,
    warm_start: Annotated[
        bool | None, typer.Option("--warm-start/--cold-start", help="finished runs of the store are the first trials")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(envvar="OPTUNA_STORAGE", help="database of the trials [default: SQLite beside the runs]")
    ] = None,
    address: AddressOption = None,
    max_failures: FailuresOption = MAX_FAILURES,
    as_json: JsonOption = False,
) -> None:
    """Search the space of a study's `search:` block with Optuna; goes on where an earlier launch ended.

    Example: tiekd search ablations/studies/dpm.yaml --store demo/store --trials 30
    """
    from ablations.monitor.reporters import LaunchOptions
    from ablations.search.prepared_search import SearchOptions
    from ablations.search.search import run_search

    options = SearchOptions(trials, hours, warm_start, storage)
    if not run_search(study, store, overrides, name, options, address, LaunchOptions(as_json, max_failures)):
        raise typer.Exit(1)


def status(
    store: Annotated[str, typer.Argument(metavar="STORE", help="run store: a folder or URI", show_default=False)],
    study: Annotated[str | None, typer.Option(help="this study alone")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="look again every few seconds, until Ctrl-C")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per look instead of text")] = False,
) -> None:
    """Where the runs and studies of a store stand, also while they run: what is left, what failed and why.

    Example: tiekd status demo/store --study debug --watch
    """
    from ablations.monitor.status import show_status, watch_status
    from tiekd.store.run_store import RunStore

    (watch_status if watch else show_status)(RunStore(store), study, as_json)
