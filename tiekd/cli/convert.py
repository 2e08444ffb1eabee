"""`tiekd convert`."""

from pathlib import Path
from typing import Annotated

import typer

from tiekd.cli.options import JsonOption, SetOption
from tiekd.store.files import json_text


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="checkpoint of the released code (.pth)", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="output file (.safetensors)")],
    dataset: Annotated[str | None, typer.Option(help="kitti or nyu [default: inferred from the checkpoint]")] = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Convert a checkpoint of the released code to weights for `tiekd evaluate`, `predict` and `teacher export`.

    The architecture, the head and the bins are inferred from its tensors.

    Example: tiekd convert bts_r50_kitti.pth --dataset kitti --out bts.safetensors
    """
    from tiekd.config.documents import parse_overrides
    from tiekd.deploy.convert_released import convert_checkpoint

    changes = parse_overrides(overrides) | ({"data.dataset": dataset} if dataset else {})
    made = convert_checkpoint(checkpoint, out, changes)
    if as_json:
        print(json_text(made))
        return
    bins = f" of {made['n_bins']} bins" if made["n_bins"] else ""
    print(
        f"{made['network']}, {made['head']} head{bins}, {made['dataset']}: "
        f"{made['tensors']} tensors, {made['parameters']:,} parameters in {made['out']}"
    )
    if made["unused"]:
        print(f"skipped (unused, or computed from the config): {', '.join(made['unused'])}")
