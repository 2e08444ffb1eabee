"""Arguments and options that several commands share."""

import math
from typing import Annotated

import typer

from tiekd.errors import UserError

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


def parse_numbers(option: str, words: str, counts: tuple[int, ...], example: str) -> tuple[float, ...]:
    """Parse comma-separated finite numbers whose count is one of `counts`. Raises UserError."""
    try:
        numbers = tuple(float(word) for word in words.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in counts or not all(map(math.isfinite, numbers)):
        raise UserError(f"{option}: expected {example}, got {words!r}")
    return numbers


def parse_camera(words: str) -> tuple[float, ...]:
    """Parse --focal: one focal length, or fx, fy, cx, cy, in px. Raises UserError."""
    camera = parse_numbers("--focal", words, (1, 4), "F or FX,FY,CX,CY in px")
    if min(camera[:2]) <= 0:
        raise UserError(f"--focal: expected a focal length above 0 px, got {words!r}")
    return camera
