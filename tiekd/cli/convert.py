"""`tiekd convert`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tiekd.cli.run import JsonOption, SetOption


def convert(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="PUBLISHED.pth", help="a student's or teacher's checkpoint", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="the safetensors file to write")],
    dataset: Annotated[str | None, typer.Option(help="kitti or nyu [default: as the checkpoint tells]")] = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint of the released code as weights that `tiekd evaluate` and `tiekd teacher export` read.

    Its network, head and bins are read from its tensors.

    Example: tiekd convert bts_r50_kitti.pth --dataset kitti --out bts.safetensors
    """
    from tiekd.config.documents import parse_overrides
    from tiekd.deploy.convert_released import convert as convert_checkpoint

    changes = parse_overrides(overrides) | ({"data.dataset": dataset} if dataset else {})
    made = convert_checkpoint(checkpoint, out, changes)
    if as_json:
        print(json.dumps(made))
        return
    bins = f" of {made['n_bins']} bins" if made["n_bins"] else ""
    print(
        f"{made['network']}, {made['head']} head{bins}, {made['dataset']}: "
        f"{made['tensors']} tensors, {made['parameters']:,} parameters in {made['out']}"
    )
    if made["unused"]:
        print(f"left out, as unused or computed anew: {', '.join(made['unused'])}")
