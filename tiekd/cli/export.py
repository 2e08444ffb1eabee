"""`tiekd export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiekd.cli.options import JsonOption, RunStoreOption, WeightsArgument
from tiekd.errors import UserError, unknown
from tiekd.store.files import json_text

if TYPE_CHECKING:
    from tiekd.store.run_store import RunRecord

FORMATS = ("onnx", "hub")


def export(
    weights: WeightsArgument,
    out: Annotated[Path, typer.Option(help="output file (.onnx), or with --format hub an output folder")],
    format_: Annotated[str, typer.Option("--format", help="onnx, or hub: a model folder for the Hugging Face hub")] = "onnx",
    dpm: Annotated[bool, typer.Option("--dpm", help="with onnx: also output the distributions over depth bins")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="with onnx: 8-bit integers, for faster convolutions on a CPU")] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="ROOT", help="with --int8: folder of the data set [default: the run's]")
    ] = None,
    calibration_frames: Annotated[
        int | None, typer.Option(min=1, help="with --int8: training frames that set the ranges, at most [default: 32]")
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option(min=0, help="with --int8: largest relative growth of abs_rel [default: 0.01]")
    ] = None,
    store: RunStoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a trained network to ONNX, or to a model folder with its card.

    The ONNX model maps RGB in 0..1 of any batch and image size (DepthFormer: of the data set's image size) to metres. It is
    kept only if onnxruntime agrees with PyTorch. With --int8 it is quantized, and kept only if abs_rel on (at most 100) test
    frames grows little. The model folder loads with `tiekd.load_student`; its card states the run's results. Nothing is
    uploaded.

    Example: tiekd export demo/store/runs/1f0e9a4c7b2d3856 --out student.onnx
    """
    if format_ not in FORMATS:
        raise UserError(unknown("--format", format_, FORMATS))
    if format_ == "hub" and dpm:
        raise UserError("--dpm: is only used with --format onnx; a model folder always gives the distributions")
    if format_ == "hub" and int8:
        raise UserError("--int8: is only used with --format onnx")
    for option, value in (("--data", data), ("--calibration-frames", calibration_frames), ("--max-loss", max_loss)):
        if value is not None and not int8:
            raise UserError(f"{option} {value}: is only used with --int8")
    from tiekd.store.find_weights import find_run, find_weights

    file, record = find_weights(weights, store), find_run(weights, store)
    if int8:
        made = _int8(file, record, out, dpm, data, calibration_frames, max_loss)
    else:
        made = _hub(file, record, out) if format_ == "hub" else _onnx(file, record, out, dpm)
    if as_json:
        print(json_text(made))
        return
    for line in made.get("checks", ()):
        print(line)
    print(made["told"])


def _onnx(weights: Path, record: "RunRecord | None", out: Path, dpm: bool) -> dict[str, Any]:
    from tiekd.data.image_io import format_size
    from tiekd.deploy.hub import DepthModel
    from tiekd.deploy.onnx import any_size, check_onnx, export_onnx

    check_onnx(out)
    student = DepthModel.load(weights)
    differences = export_onnx(student, out, record.run_id if record else "", dpm)
    megabytes = out.stat().st_size / 1e6
    sizes = "any size" if any_size(student.config) else f"{format_size(student.config.data.evaluation_size)} alone"
    return {
        "out": str(out),
        "checks": [str(difference) for difference in differences],
        "largest_relative": max(difference.relative for difference in differences),
        "told": f"{out}: {megabytes:.1f} MB, for images of {sizes}, checked in onnxruntime against PyTorch",
    }


def _int8(
    weights: Path,
    record: "RunRecord | None",
    out: Path,
    dpm: bool,
    data: Path | None,
    calibration_frames: int | None,
    max_loss: float | None,
) -> dict[str, Any]:
    from tiekd.config import override
    from tiekd.deploy.hub import DepthModel
    from tiekd.deploy.onnx import check_onnx
    from tiekd.deploy.quantize import CALIBRATION_FRAMES, MAX_LOSS, check_int8, export_int8
    from tiekd.models.checkpoint import load_network

    check_onnx(out)
    _, trained = load_network(weights)
    config = override(trained, {"data.root": str(data)} if data else {})
    check_int8(config)
    run_id, frames = record.run_id if record else "", calibration_frames or CALIBRATION_FRAMES
    limit = MAX_LOSS if max_loss is None else max_loss
    differences, loss = export_int8(DepthModel.load(weights), config, out, run_id, dpm, frames, limit)
    return {
        "out": str(out),
        "checks": [f"before quantization, {difference}" for difference in differences] + [str(loss)],
        "largest_relative": max(difference.relative for difference in differences),
        "abs_rel": {"float32": loss.before, "int8": loss.after, "test_frames": loss.frames},
        "calibration_frames": loss.calibration_frames,
        "told": f"{out}: {out.stat().st_size / 1e6:.1f} MB, for images of any size",
    }


def _hub(weights: Path, record: "RunRecord | None", out: Path) -> dict[str, Any]:
    from tiekd.deploy.hub import DepthModel, check_model_folder, write_model_folder
    from tiekd.deploy.model_card import build_card

    check_model_folder(out)
    student = DepthModel.load(weights)
    student.card = build_card(student.config, record)
    write_model_folder(student, out)
    return {"out": str(out), "pushed": False, "told": f"{out}: model.safetensors, config.json, README.md; not pushed"}
