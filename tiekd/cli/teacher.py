"""`tiekd teacher export` and `tiekd teacher import`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiekd.cli.options import AddressOption, ConfigArgument, JsonOption, SetOption, StoreOption
from tiekd.cli.packaged import find_run_config, open_pool
from tiekd.errors import UserError, unknown
from tiekd.store.files import json_text

if TYPE_CHECKING:
    from tiekd.config import RunConfig
    from tiekd.deploy.export_maps import TeacherModel

PRECISIONS = "fp32", "bf16"
OutOption = Annotated[Path, typer.Option(help="output folder of the maps")]

app = typer.Typer(help="Teachers and their depth maps.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Teachers and their depth maps."""


@app.command()
def export(
    config: ConfigArgument,
    out: OutOption,
    name: Annotated[
        str, typer.Option(help="the teacher's name in tables and in the folders of --layout released")
    ] = "embedded",
    weights: Annotated[
        Path | None, typer.Option(help="weights of a trained or converted network [default: the run of CONFIG in the store]")
    ] = None,
    hf: Annotated[
        str | None, typer.Option(metavar="MODEL", help="name or folder of a metric depth model of Hugging Face")
    ] = None,
    metric: Annotated[
        bool, typer.Option("--metric", help="with --hf: the model predicts metres although its config does not say so")
    ] = False,
    layout: Annotated[str, typer.Option(help="tiekd, or released: the layout that the released TIE-KD code reads")] = "tiekd",
    batch_size: Annotated[int, typer.Option(min=1, help="frames of the same size per forward pass")] = 1,
    precision: Annotated[
        str, typer.Option(help="fp32, or bf16, which is refused where it moves the depth by more than 0.5 %")
    ] = "fp32",
    address: AddressOption = None,
    overrides: SetOption = [],  # noqa: B006
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a teacher over a data set and store its depth maps.

    CONFIG is the run that trained the teacher (`tiekd run CONFIG`). With --weights or --hf, only its `data` section is used.

    Example: tiekd teacher export teacher --store demo/store --out demo/maps
    """
    from tiekd.config import load_config
    from tiekd.config.changes import MAP_EXPORT, check_changes
    from tiekd.config.documents import parse_overrides

    if precision not in PRECISIONS:
        raise UserError(unknown("--precision", precision, PRECISIONS))
    if weights and hf:
        raise UserError(f"--weights and --hf: expected one teacher, got {weights} and {hf}")
    if metric and not hf:
        raise UserError("--metric: describes the model of --hf, which is missing")
    changes = parse_overrides(overrides)
    if weights or hf:
        if store is not None:
            raise UserError(f"--store {store}: holds the run of CONFIG, and is not used with --weights or --hf")
        settings = _config_of_data(config, check_changes(changes, MAP_EXPORT, "teacher export with --weights or --hf"))
    else:
        settings = load_config(find_run_config(config), changes | ({"execution.store": store} if store is not None else {}))
    from tiekd.deploy.export_maps import MapOptions, check_export, export_maps, trained_weights

    check_export(settings, out, name, layout)
    maker = _model(hf, settings, metric) if hf else _network(weights or trained_weights(settings), settings)
    options = MapOptions(batch_size, precision)  # type: ignore[arg-type]  # is one of PRECISIONS
    with open_pool(address, settings.execution, out, gpu=True, configs=[settings]) as pool:
        summary = export_maps(settings, maker, out, name, layout, options, pool)
    _print(summary, name, as_json)


@app.command("import")
def import_(
    config: ConfigArgument,
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="depth maps: floats in m, or integers")],
    out: OutOption,
    name: Annotated[str, typer.Option(help="the teacher's name in tables")] = "imported",
    depth_scale: Annotated[
        float | None, typer.Option(help="integer at 1 m [default: in images that of the data set's ground truth]")
    ] = None,
    relative: Annotated[
        bool,
        typer.Option("--relative", help="maps of depth or disparity without a unit, which teacher.align fits"),
    ] = False,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Make a teacher from depth maps that another program wrote.

    Only the `data` section of CONFIG is used. A frame's map is found by the image's path without suffix, by the name that the
    released TIE-KD code gives it, or by the image's name if that is unique. Maps of the released code need --depth-scale
    819.1875 (KITTI) or 6553.5 (NYU).

    Example: tiekd teacher import teacher gt_kd_bts gt_kd_bts_val --depth-scale 819.1875 --out maps/bts
    """
    from tiekd.config.changes import MAP_IMPORT, check_changes
    from tiekd.config.documents import parse_overrides
    from tiekd.deploy.export_maps import check_export, import_maps

    settings = _config_of_data(config, check_changes(parse_overrides(overrides), MAP_IMPORT, "teacher import"))
    check_export(settings, out, name)
    _print(import_maps(settings, folders, out, name, depth_scale, relative), name, as_json)


def _config_of_data(name: str, changes: dict[str, Any]) -> "RunConfig":
    from tiekd.config import config_of_frames
    from tiekd.config.documents import read_document, with_values

    path = find_run_config(name)
    return config_of_frames(with_values(read_document(path), changes), source=str(path))


def _network(weights: Path, settings: "RunConfig") -> "TeacherModel":
    from tiekd.deploy.export_maps import NetworkTeacher

    return NetworkTeacher(weights, settings.evaluation.flip_tta, settings.execution.device)


def _model(model: str, settings: "RunConfig", metric: bool) -> "TeacherModel":
    from tiekd.deploy.huggingface import HuggingFaceTeacher

    return HuggingFaceTeacher.load(model, settings.data.max_depth, settings.execution.device, metric)


def _print(summary: dict[str, Any], name: str, as_json: bool) -> None:
    if as_json:
        print(json_text(summary))
        return
    if "folders" in summary:
        print(f"{summary['maps']} frames of teacher {name} in {' and '.join(summary['folders'])}")
    else:
        print(f"{summary['maps']} maps of teacher {name} in {summary['out']}, digest {summary['digest'][:16]}")
    if bf16 := summary.get("bf16"):
        print(
            f"bf16: depth differs from fp32 by at most {bf16['largest_difference']:.2%} on average over a frame, "
            f"in one frame of each block made now; the bound is {bf16['bound']:.1%}"
        )
