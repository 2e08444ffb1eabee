"""The `ablate`, `search` and `status` commands of `tiekd`."""

from typing import Annotated

import typer

STUDY, CLUSTER, OUTPUT = "Study", "Cluster", "Output"  # groups of options

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="study: a YAML file, or a name of `tiekd list studies`", show_default=False)
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="STORE", help="run store, a folder or URI [default: the study's, or store]", rich_help_panel=STUDY
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="PATH=VALUE", help="override a setting of the base config; repeatable", rich_help_panel=STUDY
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="name in the store [default: the study's name]", rich_help_panel=STUDY),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="connect to a running Ray cluster: auto, or HOST:PORT [default: start Ray on this machine]",
        rich_help_panel=CLUSTER,
    ),
]
FailuresOption = Annotated[
    int,
    typer.Option(
        "--max-failures",
        metavar="N",
        help="stop after N failures with the same cause (0 = no limit)",
        rich_help_panel=CLUSTER,
    ),
]
ConcurrentOption = Annotated[
    int | None,
    typer.Option(
        "--max-concurrent",
        metavar="N",
        help="compute at most N cells or trials at the same time [default: as many as the resources allow]",
        rich_help_panel=CLUSTER,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="print JSON lines instead of text: one per event, then a summary", rich_help_panel=OUTPUT),
]
MAX_FAILURES = 10  # rarely reached by accident, and early enough to save most of a large study's device-hours


def ablate(
    study: StudyArgument,
    store: StoreOption = None,
    overrides: SetOption = [],  # noqa: B006 - typer's way to say repeatable
    name: NameOption = None,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", help="run every cell with seeds 0 to N-1", rich_help_panel=STUDY)
    ] = None,
    until_decided: Annotated[
        bool,
        typer.Option(
            "--until-decided",
            help="add seeds until each difference from the Baseline is decided, at most --seeds",
            rich_help_panel=STUDY,
        ),
    ] = False,
    only: Annotated[
        list[str],
        typer.Option(metavar="NAME=VALUE", help="only cells with this label or factor; repeatable", rich_help_panel=STUDY),
    ] = [],  # noqa: B006
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="only every N-th cell, from the I-th [default: share all with other launches of the study]",
            rich_help_panel=STUDY,
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="compute failed cells again", rich_help_panel=STUDY)
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="also compute what other launches compute now, and stop those", rich_help_panel=STUDY),
    ] = False,
    address: AddressOption = None,
    max_failures: FailuresOption = MAX_FAILURES,
    max_concurrent: ConcurrentOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="print cells, missing inputs and a cost estimate only", rich_help_panel=OUTPUT),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compute all cells of a study that are not in the store yet.

    Example: tiekd ablate ablations/studies/debug.yaml --store demo/store --seeds 2
    """
    from ablations.ablate import launch_study
    from ablations.monitor.reporters import LaunchOptions
    from ablations.prepared_study import prepare_study
    from ablations.study_output import print_plan

    launch_options = LaunchOptions(as_json, max_failures, max_concurrent=max_concurrent, take_over=take_over)
    prepared = prepare_study(study, store, overrides, name, seeds, only, retry_failed, until_decided, shard)
    if dry_run:
        print_plan(prepared, address, as_json, max_concurrent)
    elif not launch_study(prepared, address, launch_options).complete:
        raise typer.Exit(1)


def search(
    study: StudyArgument,
    store: StoreOption = None,
    overrides: SetOption = [],  # noqa: B006
    name: NameOption = None,
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="total trials, over all launches of the search", rich_help_panel=STUDY)
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(metavar="HOURS", help="start no trial after this time since the launch", rich_help_panel=STUDY),
    ] = None,
    warm_start: Annotated[
        bool | None,
        typer.Option("--warm-start/--cold-start", help="add the store's finished runs as trials", rich_help_panel=STUDY),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="OPTUNA_STORAGE",
            metavar="URL",
            help="database of the trials [default: SQLite in the store]",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    address: AddressOption = None,
    max_failures: FailuresOption = MAX_FAILURES,
    max_concurrent: ConcurrentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the space of a study's `search:` block with Optuna; resumes an earlier launch.

    Example: tiekd search ablations/studies/dpm.yaml --store demo/store --trials 30
    """
    from ablations.monitor.reporters import LaunchOptions
    from ablations.search.prepared_search import SearchOptions
    from ablations.search.search import run_search

    options = SearchOptions(trials, hours, warm_start, storage)
    launch_options = LaunchOptions(as_json, max_failures, max_concurrent=max_concurrent)
    if not run_search(study, store, overrides, name, options, address, launch_options):
        raise typer.Exit(1)


def status(
    store: Annotated[str, typer.Argument(metavar="STORE", help="run store: a folder or URI", show_default=False)],
    study: Annotated[str | None, typer.Option(metavar="NAME", help="show only this study")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="refresh every two seconds until Ctrl-C")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per refresh instead of text")] = False,
) -> None:
    """Show the progress of a store's runs and studies: states, time left, failures by cause.

    Example: tiekd status demo/store --study debug --watch
    """
    from ablations.monitor.status import show_status, watch_status
    from tiekd.store.run_store import RunStore

    (watch_status if watch else show_status)(RunStore(store), study, as_json)
