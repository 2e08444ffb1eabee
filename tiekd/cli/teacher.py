"""`tiekd teacher export` and `tiekd teacher import`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiekd.cli.run import ConfigFile, JsonOption, SetOption, StoreOption
from tiekd.errors import UserError

if TYPE_CHECKING:
    from tiekd.config import RunConfig
    from tiekd.teachers.export import DepthMaker

OutOption = Annotated[Path, typer.Option(help="a folder for the maps")]

app = typer.Typer(help="Teachers and their depth maps.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Teachers and their depth maps."""


@app.command()
def export(
    config: ConfigFile,
    out: OutOption,
    name: Annotated[str, typer.Option(help="how tables, and the folders of --layout released, call this teacher")] = "embedded",
    weights: Annotated[
        Path | None, typer.Option(help="of a network trained or converted here [default: the config's run in the store]")
    ] = None,
    hf: Annotated[
        str | None, typer.Option(metavar="MODEL", help="a metric depth model of Hugging Face: its name or folder")
    ] = None,
    metric: Annotated[
        bool, typer.Option("--metric", help="with --hf: the model gives metres, though its config does not say so")
    ] = False,
    layout: Annotated[str, typer.Option(help="tiekd, or released: as the released TIE-KD code reads them")] = "tiekd",
    overrides: SetOption = [],  # noqa: B006
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a teacher once over a data set and store its depth maps.

    CONFIG.yaml is the run that trained it (`tiekd run CONFIG.yaml`); with --weights or --hf its `data` section is enough.

    Example: tiekd teacher export ablations/runs/teacher.yaml --store demo/store --out demo/maps
    """
    from tiekd.config import load_config
    from tiekd.config.documents import parse_overrides

    if weights and hf:
        raise UserError(f"--weights and --hf are two teachers, got {weights} and {hf}; needed one")
    if metric and not hf:
        raise UserError("--metric: tells of the model of --hf, which was not given")
    changes = parse_overrides(overrides) | ({"execution.store": store} if store else {})
    settings = _config_of_data(config, changes) if weights or hf else load_config(config, changes)
    from tiekd.teachers.export import check_export, export_maps, trained_weights

    check_export(settings, out, name, layout)
    maker = _model(hf, settings, metric) if hf else _network(weights or trained_weights(settings), settings)
    _tell(export_maps(settings, maker, out, name, layout), name, as_json)


@app.command("import")
def import_(
    config: ConfigFile,
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="depth maps, 16-bit PNG or .npy (m)")],
    out: OutOption,
    name: Annotated[str, typer.Option(help="how tables call this teacher")] = "imported",
    depth_scale: Annotated[
        float | None, typer.Option(help="value of a PNG at 1 m [default: as the data set's ground truth]")
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Make a teacher of depth maps that any other program made.

    Of CONFIG.yaml the `data` section is enough. A map is found by its frame's key (the image's path without suffix), by the
    name that the released TIE-KD code gives it, or by the image's name where no other has the same. The maps of that code have
    the --depth-scale 819.1875 (KITTI) or 6553.5 (NYU).

    Example: tiekd teacher import ablations/runs/teacher.yaml gt_kd_bts gt_kd_bts_val --depth-scale 819.1875 --out maps/bts
    """
    from tiekd.config.documents import parse_overrides
    from tiekd.teachers.export import check_export, import_maps

    settings = _config_of_data(config, parse_overrides(overrides))
    check_export(settings, out, name)
    _tell(import_maps(settings, folders, out, name, depth_scale), name, as_json)


def _config_of_data(path: Path, changes: dict[str, Any]) -> "RunConfig":
    from tiekd.config import config_of_frames
    from tiekd.config.documents import read_document, with_values

    return config_of_frames(with_values(read_document(path), changes), source=str(path))


def _network(weights: Path, settings: "RunConfig") -> "DepthMaker":
    from tiekd.distill.runtime import choose_device
    from tiekd.teachers.export import NetworkTeacher

    return NetworkTeacher(weights, settings.evaluation.flip_tta, choose_device(settings.execution.device))


def _model(model: str, settings: "RunConfig", metric: bool) -> "DepthMaker":
    from tiekd.distill.runtime import choose_device
    from tiekd.teachers.huggingface import HuggingFaceTeacher

    return HuggingFaceTeacher.load(model, settings.data.max_depth, choose_device(settings.execution.device), metric)


def _tell(summary: dict[str, Any], name: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary))
    elif "folders" in summary:
        print(f"{summary['maps']} frames of teacher {name} in {' and '.join(summary['folders'])}")
    else:
        print(f"{summary['maps']} maps of teacher {name} in {summary['out']}, digest {summary['digest'][:16]}")
