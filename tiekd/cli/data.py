"""`tiekd data check`, `tiekd data pack` and `tiekd data synthesize`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tiekd.cli.run import ConfigFile, JsonOption, SetOption

app = typer.Typer(help="Look at a data set, pack it, or write the embedded one.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def check(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="the data set's folder", show_default=False)],
    dataset: Annotated[str | None, typer.Option(help="kitti or nyu [default: by the split lists in ROOT]")] = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Tell what a data set holds and what is wrong with it.

    Example: tiekd data check data/kitti
    """
    from tiekd.config.documents import parse_overrides
    from tiekd.data.doctor import check_dataset, data_config

    report = check_dataset(data_config(root, dataset, parse_overrides(overrides)))
    print(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())
    if not report.ok:
        raise typer.Exit(2)


@app.command()
def pack(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(help="a folder for the packed data; may hold those of other runs")],
    verify: Annotated[
        bool, typer.Option("--check", help="read all that is packed there, and compare with its sources")
    ] = False,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Decode a run's frames and teacher maps once, into files that all processes of a machine share.

    A run reads them with `--set execution.packed=OUT`: same run id, same numbers. Packing for another teacher adds its maps.

    Example: tiekd data pack ablations/runs/debug.yaml --out demo/packed
    """
    from tiekd.config import load_config
    from tiekd.config.documents import parse_overrides
    from tiekd.data.cache.pack_writer import check_pack
    from tiekd.data.cache.pack_writer import pack as write

    summary = (check_pack if verify else write)(load_config(config, parse_overrides(overrides)), out, quiet=as_json)
    if as_json:
        print(json.dumps(summary))
        return
    for name, part in summary["parts"].items():
        if verify:
            print(f"{name}: {part['items']} items as packed, {part['files']} files as they were")
        else:
            print(f"{name}: {part['items']} items, {part['bytes'] / 1e6:,.1f} MB{'' if part['new'] else ', there already'}")
    if not verify:
        print(f"read with --set execution.packed={out}")


@app.command()
def synthesize(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="a new or empty folder", show_default=False)],
    layout: Annotated[str, typer.Option(help="kitti (outdoor, 375x1242) or nyu (indoor, 480x640)")] = "kitti",
    train_frames: Annotated[int, typer.Option(min=1)] = 16,
    test_frames: Annotated[int, typer.Option(min=1)] = 8,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write rendered scenes with exact depth as files in the layout of KITTI or NYU.

    Example: tiekd data synthesize data/scenes --layout kitti --train-frames 32
    """
    from tiekd.data.synthetic import synthesize as write

    summary = write(out, layout, train_frames, test_frames, seed)
    print(
        json.dumps(summary) if as_json else f"{train_frames} training and {test_frames} test frames in {out}, {layout} layout"
    )
