"""`tiekd predict`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiekd.cli.options import AddressOption, JsonOption, RunStoreOption, SetOption, WeightsArgument, parse_camera, parse_numbers
from tiekd.cli.packaged import open_pool
from tiekd.errors import UserError
from tiekd.store.files import json_text

if TYPE_CHECKING:
    from tiekd.inference.outputs import PredictionReport


def predict(
    weights: WeightsArgument,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="images, folders of them, videos", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="output folder")],
    colour_range: Annotated[
        str | None,
        typer.Option("--range", metavar="LOW,HIGH", help="depth range of the colors, m [default: each image's own]"),
    ] = None,
    legend: Annotated[bool, typer.Option("--legend", help="draw a color bar in metres beside the picture")] = False,
    ply: Annotated[bool, typer.Option("--ply", help="write a point cloud; needs --focal")] = False,
    focal: Annotated[
        str | None,
        typer.Option(metavar="F|FX,FY,CX,CY", help="with --ply: focal length or intrinsics, px of the input image"),
    ] = None,
    pixel: Annotated[list[str], typer.Option(metavar="X,Y", help="write the distribution at this pixel; repeatable")] = [],  # noqa: B006
    every: Annotated[int, typer.Option(min=1, help="for videos: keep every Nth frame")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="images of the same size per forward pass")] = 1,
    address: AddressOption = None,
    store: RunStoreOption = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Predict depth for your own images, folders and videos, of any size.

    Writes NAME_depth.png (16-bit, value / depth_scale = m), NAME_colour.png (near is bright), NAME_entropy.png (how uncertain
    the network is) and a row in predictions.json; on request point clouds and distributions at pixels. Unreadable images are
    reported and skipped; the exit code is then 1.

    Example: tiekd predict demo/store/runs/1f0e9a4c7b2d3856 photos street.jpg --out depth --legend
    """
    from tiekd.config.changes import PREDICTION, check_changes
    from tiekd.config.documents import parse_overrides
    from tiekd.inference.inputs import check_video_decoder, find_inputs
    from tiekd.store.files import check_output_folder
    from tiekd.store.find_weights import find_weights

    wished = _range(colour_range), legend, _camera(ply, focal), tuple(_pixel(words) for words in pixel)
    changes = check_changes(parse_overrides(overrides), PREDICTION, "predict")
    files = find_inputs(images, out)
    if every != 1 and not any(file.is_video for file in files):
        raise UserError(f"--every {every}: is only used with videos")
    check_video_decoder(files)
    check_output_folder(out, "--out")
    path = find_weights(weights, store)  # before PyTorch is imported
    from tiekd.data.cache.file_digests import file_sha256
    from tiekd.deploy.hub import load_student
    from tiekd.deploy.predict_files import PredictionTask, write_predictions
    from tiekd.inference.outputs import OutputOptions, check_options

    options = OutputOptions(*wished)
    model = load_student(weights, store=store, overrides=changes)
    check_options(options, model.config)
    task = PredictionTask(model.network, model.config, file_sha256(path).hex(), out, options, every, batch_size)
    with open_pool(address, model.config.execution, out, gpu=True, files=images) as pool:
        report = write_predictions(task, files, pool)
    _print(report, out, as_json)
    if report.failed:
        raise typer.Exit(1)


def _range(words: str | None) -> tuple[float, float] | None:
    if words is None:
        return None
    low, high = parse_numbers("--range", words, (2,), "LOW,HIGH in metres, e.g. 1,80")
    if not 0 < low < high:
        raise UserError(f"--range: expected 0 < LOW < HIGH in metres, got {words!r}")
    return low, high


def _camera(ply: bool, words: str | None) -> tuple[float, ...] | None:
    if ply and words is None:
        raise UserError("--ply: needs the camera: --focal F or --focal FX,FY,CX,CY in px, e.g. 721.5 for KITTI, 518.9 for NYU")
    if words is None:
        return None
    if not ply:
        raise UserError(f"--focal {words}: is only used with --ply")
    return parse_camera(words)


def _pixel(words: str) -> tuple[int, int]:
    x, y = parse_numbers("--pixel", words, (2,), "X,Y: column and row from the top left, from 0")
    if x != int(x) or y != int(y):
        raise UserError(f"--pixel: expected whole numbers X,Y, got {words!r}")
    return int(x), int(y)


def _print(report: "PredictionReport", out: Path, as_json: bool) -> None:
    from tiekd.cli.console import make_console

    found = report.document()
    for line in report.failed:
        print(f"tiekd: {line}", file=sys.stderr)
    if as_json:
        print(json_text(found))
        return
    console = make_console()
    for row in report.images:
        for at in row.get("pixels", ()):
            low, high = at["interval_90"]
            console.print(
                f"{row['image']} at {at['x']},{at['y']}: expected depth {at['expected']:.3f} m, most likely "
                f"{at['likeliest']:.3f} m, 90 % interval {low:.2f} to {high:.2f} m",
            )
    clipped = sum(row["clipped"] for row in report.images)
    if clipped:
        limit = f"the range of a 16-bit PNG at {found['depth_scale']:g} per metre"
        print(f"tiekd: {clipped} pixels exceed {limit} and were clipped", file=sys.stderr)
    left_out = f", {len(report.failed)} skipped" if report.failed else ""
    images = "1 image" if len(report.images) == 1 else f"{len(report.images)} images"
    print(f"{images} in {out}{left_out}; depth PNG: value / {found['depth_scale']:g} = m")
