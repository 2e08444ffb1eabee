"""Arguments and options that several commands share."""

from typing import Annotated

import typer

ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="run config: a YAML file, or a name of `tiekd list runs`", show_default=False)
]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="PATH=VALUE", help="override a setting, e.g. loss.sigma=0.8; repeatable")
]
StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="STORE", help="run store: a folder or s3://... [default: the config's]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")]
WeightsArgument = Annotated[
    str,
    typer.Argument(
        metavar="WEIGHTS",
        help="a run's folder or URI, a .safetensors file, a hub folder, or with --store a run id",
        show_default=False,
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="share the work between the processes of a Ray cluster: auto, HOST:PORT, or local for one on this machine "
        "[default: this process alone]",
    ),
]
RunStoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="STORE", help="run store in which WEIGHTS is a run id or a unique prefix of one"),
]
