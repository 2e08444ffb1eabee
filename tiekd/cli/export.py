"""`tiekd export`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiekd.cli.predict import StoreOfRun, Weights
from tiekd.cli.run import JsonOption
from tiekd.errors import UserError, unknown

if TYPE_CHECKING:
    from tiekd.store.run_store import RunRecord

FORMATS = ("onnx", "hub")


def export(
    weights: Weights,
    out: Annotated[Path, typer.Option(help="the .onnx file, or with --format hub the folder to write")],
    format_: Annotated[str, typer.Option("--format", help="onnx, or hub: a folder for the Hugging Face hub")] = "onnx",
    dpm: Annotated[bool, typer.Option("--dpm", help="onnx: put out the distributions over depth bins, too")] = False,
    store: StoreOfRun = None,
    as_json: JsonOption = False,
) -> None:
    """Write a trained network for use elsewhere: as ONNX, or as a model folder with its card.

    ONNX takes RGB in 0 to 1 of any batch and size (DepthFormer's: of the frames' size) and gives metres; it is kept only if
    onnxruntime agrees with PyTorch. The model folder loads with tiekd.deploy.hub.DepthStudent.from_pretrained; its card states
    the run's numbers. Nothing is uploaded.

    Example: tiekd export demo/store/runs/1f0e9a4c7b2d3856 --out student.onnx
    """
    if format_ not in FORMATS:
        raise UserError(unknown("--format", format_, FORMATS))
    if format_ == "hub" and dpm:
        raise UserError("--dpm: belongs to --format onnx; a model folder's network gives its distributions anyway")
    from tiekd.store.find_weights import find_run, find_weights

    file, record = find_weights(weights, store), find_run(weights, store)
    made = _hub(file, record, out) if format_ == "hub" else _onnx(file, record, out, dpm)
    if as_json:
        print(json.dumps(made))
        return
    for line in made.get("checks", ()):
        print(line)
    print(made["told"])


def _onnx(weights: Path, record: "RunRecord | None", out: Path, dpm: bool) -> dict[str, Any]:
    from tiekd.data.image_io import pixels
    from tiekd.deploy.hub import DepthStudent
    from tiekd.deploy.onnx import any_size, check_onnx, export_onnx

    check_onnx(out)
    student = DepthStudent.load(weights)
    differences = export_onnx(student, out, record.run_id if record else "", dpm)
    megabytes = out.stat().st_size / 1e6
    sizes = "any size" if any_size(student.config) else f"{pixels(student.config.data.evaluation_size)} alone"
    return {
        "out": str(out),
        "checks": [str(difference) for difference in differences],
        "largest_relative": max(difference.relative for difference in differences),
        "told": f"{out}: {megabytes:.1f} MB, for images of {sizes}, checked in onnxruntime against PyTorch",
    }


def _hub(weights: Path, record: "RunRecord | None", out: Path) -> dict[str, Any]:
    from tiekd.deploy.hub import DepthStudent, check_model_folder, write_model_folder
    from tiekd.deploy.model_card import describe

    check_model_folder(out)
    student = DepthStudent.load(weights)
    student.card = describe(student.config, record)
    write_model_folder(student, out)
    return {"out": str(out), "pushed": False, "told": f"{out}: model.safetensors, config.json, README.md; not pushed"}
