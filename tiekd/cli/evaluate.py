"""`tiekd evaluate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiekd.cli.run import JsonOption, SetOption
from tiekd.errors import UserError

if TYPE_CHECKING:
    from tiekd.config import RunConfig
    from tiekd.data import FrameSource
    from tiekd.data.teacher_maps import TeacherMaps

Rows = list[dict[str, Any]]
WeightsArgument = Annotated[
    str | None,
    typer.Argument(metavar="WEIGHTS", help="safetensors, a run's folder or URI, or with --store a run id", show_default=False),
]


def evaluate(
    weights: WeightsArgument = None,
    predictions: Annotated[Path | None, typer.Option(help="score the depth maps of a folder: 16-bit PNG or .npy (m)")] = None,
    data: Annotated[Path | None, typer.Option(help="root of the data set [default: the run's]")] = None,
    dataset: Annotated[str | None, typer.Option(help="with --predictions: kitti or nyu [default: by the split lists]")] = None,
    protocol: Annotated[str | None, typer.Option(help="evaluation protocol [default: the run's or the data set's]")] = None,
    depth_scale: Annotated[
        float | None, typer.Option(help="with --predictions: value of a PNG at 1 m [default: as the ground truth's]")
    ] = None,
    teacher: Annotated[Path | None, typer.Option(help="a teacher's maps: print the agreement with them, too")] = None,
    images: Annotated[Path | None, typer.Option(help="write a row per image to this .parquet file")] = None,
    store: Annotated[str | None, typer.Option(help="the store whose run WEIGHTS names, by its id or how that begins")] = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Score a trained network, or depth maps made by any program, on the test frames of a data set.

    A map is found by its frame's key (the image's path without suffix), by the name that the released TIE-KD code gives it
    (whose PNGs have the --depth-scale 819.1875 on KITTI, 6553.5 on NYU), or by the image's name where no other has the same.

    Example: tiekd evaluate demo/store/runs/1f0e9a4c7b2d3856 --protocol none
    """
    from tiekd.config.documents import parse_overrides

    if (weights is None) == (predictions is None):
        given = "neither" if weights is None else "both"
        raise UserError(f"evaluate: needed either WEIGHTS or --predictions DIR, got {given}")
    changes = parse_overrides(overrides)
    if data is not None:
        changes["data.root"] = str(data)
    if protocol is not None:
        changes["evaluation.protocol"] = protocol
    if images is not None:
        _check_table(images)
    if predictions is not None:
        if store is not None:
            raise UserError(f"--store {store}: names the store of a run, but --predictions was given")
        config, rows, n_images = _score_maps(predictions, dataset, depth_scale, changes, teacher)
    else:
        for option, value in (("--dataset", dataset), ("--depth-scale", depth_scale)):
            if value is not None:
                raise UserError(f"{option} {value}: belongs to --predictions; a network's settings are changed with --set")
        config, rows, n_images = _score_network(weights, store, changes, teacher)
    _tell(config, rows, n_images, teacher is not None, images, as_json)


def _score_network(
    weights: str, store: str | None, changes: dict[str, Any], teacher: Path | None
) -> tuple["RunConfig", Rows, int]:
    """The config of a trained network, the rows of the test frames with ground truth, and the number of all test frames."""
    from tiekd.config import override
    from tiekd.store.find_weights import find_weights

    file = find_weights(weights, store)
    from tiekd.distill.runtime import choose_device
    from tiekd.inference.evaluate import evaluate as evaluate_network
    from tiekd.models.checkpoint import load_student

    network, config = load_student(file)
    config = override(config, changes)
    source, indices, maps = _open(config, teacher)
    device = choose_device(config.execution.device)
    return config, evaluate_network(network.to(device), config, source, device, indices, maps), len(source)


def _score_maps(
    folder: Path, dataset: str | None, depth_scale: float | None, changes: dict[str, Any], teacher: Path | None
) -> tuple["RunConfig", Rows, int]:
    """The same for a folder of depth maps."""
    from tiekd.config import config_of_frames
    from tiekd.config.documents import with_values
    from tiekd.data.doctor import data_config

    if "data.root" not in changes:
        raise UserError("--predictions: --data ROOT is needed, the folder of the data set")
    dataset = data_config(Path(changes["data.root"]), dataset, {}).dataset
    config = config_of_frames(with_values({"data": {"dataset": dataset}}, changes), source="evaluate")
    from tiekd.data.teacher_maps.external import ForeignMaps
    from tiekd.inference.evaluate import evaluate_maps

    source, indices, teacher_maps = _open(config, teacher)
    maps = ForeignMaps([folder], config.data.dataset, [source.keys[index] for index in indices], depth_scale)
    maps.check_sizes(source)
    return config, evaluate_maps(maps, config, source, indices, teacher_maps), len(source)


def _open(config: "RunConfig", teacher: Path | None) -> tuple["FrameSource", list[int], "TeacherMaps | None"]:
    """The test frames, which of them have ground truth, and the teacher's maps of those; all is there."""
    from tiekd.data import open_frames
    from tiekd.data.frame_source import spread
    from tiekd.data.teacher_maps import TeacherMaps
    from tiekd.inference.protocols import check_protocol

    source = open_frames(config.data, "test")
    source.check()
    indices = [index for index in range(len(source)) if source.labelled(index)]
    if not indices:
        raise UserError(f"data.test_split: none of its {len(source)} frames has ground truth to evaluate on")
    check_protocol(config)
    if teacher is None:
        return source, indices, None
    maps = TeacherMaps(teacher)
    maps.check(source.keys[index] for index in indices)
    for place in spread(len(indices)):
        maps.check_size(source.keys[indices[place]], source.size(indices[place]))
    return source, indices, maps


def _check_table(path: Path) -> None:
    """Raise a `UserError` unless a table can be written there."""
    from tiekd.store.files import check_output_folder

    if path.suffix != ".parquet" or path.is_dir():
        raise UserError(f"--images {path}: needed the name of a .parquet file")
    check_output_folder(path.parent, "--images: folder")


def _tell(config: "RunConfig", rows: Rows, n_images: int, agreement: bool, images: Path | None, as_json: bool) -> None:
    """Print the means over the images with valid ground truth, and keep the rows where asked for."""
    import pandas as pd

    from tiekd.cli.console import make_console, show_metrics
    from tiekd.metrics import AGREEMENT_METRICS, mean_metrics
    from tiekd.store.files import write_atomically

    protocol, measured = config.evaluation.protocol, sum(row["n_valid"] > 0 for row in rows)
    if not measured:
        raise UserError(f"protocol {protocol}: none of the {n_images} images has a valid pixel, so there is nothing to average")
    found = {"protocol": protocol, "n_images": measured, "n_images_without_ground_truth": n_images - measured}
    found["metrics"] = mean_metrics(rows)
    if agreement:
        found["agreement"] = mean_metrics(rows, AGREEMENT_METRICS)
    if images is not None:
        write_atomically(images, pd.DataFrame(rows).to_parquet(index=False))
    if as_json:
        print(json.dumps(found))
        return
    console = make_console()
    show_metrics(console, found["metrics"], f"protocol {protocol}, {measured} images")
    if agreement:
        show_metrics(console, found["agreement"], f"agreement with the teacher, {measured} images")
    if measured < n_images:
        print(f"{n_images - measured} of {n_images} images have no valid ground truth and are not averaged")
