"""`tiekd data check`, `tiekd data pack` and `tiekd data synthesize`."""

from pathlib import Path
from typing import Annotated

import typer

from tiekd.cli.options import AddressOption, ConfigArgument, JsonOption, SetOption
from tiekd.cli.packaged import find_run_config, open_pool
from tiekd.errors import UserError
from tiekd.store.files import json_text

app = typer.Typer(help="Check a data set, pack it, or write the embedded one.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def check(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="the data set's folder", show_default=False)],
    dataset: Annotated[str | None, typer.Option(help="kitti, nyu or folder [default: by what is in ROOT]")] = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Check a data set and list its problems. Prints the config of an RGB-D folder whose layout is known.

    Example: tiekd data check data/kitti
    """
    from tiekd.config.documents import parse_overrides
    from tiekd.data.doctor import check_dataset, check_folder, data_config

    changes = parse_overrides(overrides)
    report = check_folder(root, changes) if dataset is None else check_dataset(data_config(root, dataset, changes))
    print(json_text(report.to_dict(), indent=2) if as_json else report.to_text())
    if not report.ok:
        raise typer.Exit(2)


@app.command()
def pack(
    config: ConfigArgument,
    out: Annotated[Path, typer.Option(help="folder of the packed data; several runs can share it")],
    verify: Annotated[bool, typer.Option("--check", help="read the packed data and compare it with its sources")] = False,
    address: AddressOption = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Decode a run's frames and teacher maps into files that all processes of a machine share.

    A run reads them with `--set execution.packed=OUT`; its id and its numbers stay the same. Packing for another teacher adds
    only its maps.

    Example: tiekd data pack debug --out demo/packed
    """
    from tiekd.config import load_config
    from tiekd.config.documents import parse_overrides
    from tiekd.data.cache.pack_writer import check_packing, verify_packs, write_packs

    if verify and address is not None:
        raise UserError(f"--address {address}: packing uses it, --check does not")
    settings = load_config(find_run_config(config), parse_overrides(overrides))
    if verify:
        summary = verify_packs(settings, out)
    else:
        check_packing(settings, out)
        with open_pool(address, settings.execution, out, gpu=False, configs=[settings]) as pool:
            summary = write_packs(settings, out, pool)
    if as_json:
        print(json_text(summary))
        return
    for name, part in summary["parts"].items():
        if verify:
            print(f"{name}: {part['items']} items match, {part['files']} source files unchanged")
        else:
            print(f"{name}: {part['items']} items, {part['bytes'] / 1e6:,.1f} MB{'' if part['new'] else ', already packed'}")
    if not verify:
        print(f"use it with --set execution.packed={out}")


@app.command()
def synthesize(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="output folder, new or empty", show_default=False)],
    layout: Annotated[str, typer.Option(help="kitti (outdoor, 375x1242) or nyu (indoor, 480x640)")] = "kitti",
    train_frames: Annotated[int, typer.Option(min=1, max=1_000_000)] = 16,
    test_frames: Annotated[int, typer.Option(min=1, max=1_000_000)] = 8,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write rendered scenes with exact depth as files in the layout of KITTI or NYU.

    Example: tiekd data synthesize data/scenes --layout kitti --train-frames 32
    """
    from tiekd.data.synthetic import synthesize as write

    summary = write(out, layout, train_frames, test_frames, seed)
    print(json_text(summary) if as_json else f"{train_frames} training and {test_frames} test frames in {out}, {layout} layout")
