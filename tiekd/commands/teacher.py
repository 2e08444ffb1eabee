"""`tiekd teacher export`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tiekd.commands.run import ConfigFile, JsonOption, SetOption, StoreOption

app = typer.Typer(help="Teachers and their depth maps.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Teachers and their depth maps."""


@app.command()
def export(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(help="a folder for the maps")],
    name: Annotated[str, typer.Option(help="how tables call this teacher")] = "embedded",
    weights: Annotated[
        Path | None, typer.Option(help="student.safetensors [default: those of the config's run in the store]")
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a trained network once over a data set and store its depth maps.

    CONFIG.yaml is the run that trained it (`tiekd run CONFIG.yaml`).

    Example: tiekd teacher export ablations/runs/teacher.yaml --store demo/store --out demo/maps
    """
    from tiekd.config import load_config
    from tiekd.documents import parse_overrides
    from tiekd.teachers.export import export_maps, trained_weights

    changes = parse_overrides(overrides) | ({"execution.store": store} if store else {})
    settings = load_config(config, changes)
    summary = export_maps(settings, weights or trained_weights(settings), out, name)
    print(
        json.dumps(summary)
        if as_json
        else f"{summary['maps']} maps of teacher {name} in {out}, digest {summary['digest'][:16]}"
    )
