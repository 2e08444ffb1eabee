"""`tiekd evaluate`."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiekd.cli.options import JsonOption, RunStoreOption, SetOption
from tiekd.errors import UserError
from tiekd.store.files import json_text

if TYPE_CHECKING:
    from tiekd.config import RunConfig
    from tiekd.data import FrameSource
    from tiekd.data.teacher_maps import TeacherMaps

LOG = logging.getLogger(__name__)
Rows = list[dict[str, Any]]
OptionalWeights = Annotated[
    str | None,
    typer.Argument(
        metavar="WEIGHTS", help="a run's folder or URI, a .safetensors file, or with --store a run id", show_default=False
    ),
]


def evaluate(
    weights: OptionalWeights = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="DIR", help="score the depth maps in a folder: floats in m, or integers")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="ROOT", help="folder of the data set [default: the run's]")] = None,
    dataset: Annotated[str | None, typer.Option(help="with --predictions: kitti or nyu [default: by the split lists]")] = None,
    protocol: Annotated[str | None, typer.Option(help="evaluation protocol [default: the run's or the data set's]")] = None,
    depth_scale: Annotated[
        float | None, typer.Option(help="with --predictions: integer at 1 m [default: in images that of the ground truth]")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(metavar="DIR", help="also print the agreement with the maps of a teacher")
    ] = None,
    images: Annotated[Path | None, typer.Option(metavar="FILE", help="write one row per image to this .parquet file")] = None,
    store: RunStoreOption = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Evaluate a trained network, or depth maps of any program, on the test frames of a data set.

    A frame's map is found by the image's path without suffix, by the name that the released TIE-KD code gives it, or by the
    image's name if that is unique. Maps of the released code need --depth-scale 819.1875 (KITTI) or 6553.5 (NYU).

    Example: tiekd evaluate demo/store/runs/1f0e9a4c7b2d3856 --protocol none
    """
    from tiekd.config.changes import MAP_EVALUATION, NETWORK_EVALUATION, check_changes
    from tiekd.config.documents import parse_overrides

    of_network = weights is not None
    read, reader = (NETWORK_EVALUATION, "evaluate WEIGHTS") if of_network else (MAP_EVALUATION, "evaluate --predictions")
    changes = check_changes(parse_overrides(overrides), read, reader)
    if data is not None:
        changes["data.root"] = str(data)
    if protocol is not None:
        changes["evaluation.protocol"] = protocol
    if images is not None:
        _check_table(images)
    if predictions is not None and weights is None:
        if store is not None:
            raise UserError(f"--store {store}: is only used with WEIGHTS, not with --predictions")
        config, rows, n_images = _score_maps(predictions, dataset, depth_scale, changes, teacher)
    elif weights is not None and predictions is None:
        for option, value in (("--dataset", dataset), ("--depth-scale", depth_scale)):
            if value is not None:
                raise UserError(f"{option} {value}: is only used with --predictions; change a network's settings with --set")
        config, rows, n_images = _score_network(weights, store, changes, teacher)
    else:
        given = "neither" if weights is None else "both"
        raise UserError(f"evaluate: expected either WEIGHTS or --predictions DIR, got {given}")
    _print(config, rows, n_images, teacher is not None, images, as_json)


def _score_network(
    weights: str, store: str | None, changes: dict[str, Any], teacher: Path | None
) -> tuple["RunConfig", Rows, int]:
    """Evaluate a network: its config, the rows of the test frames with ground truth, and the number of test frames."""
    from tiekd.config import override
    from tiekd.store.find_weights import find_weights

    file = find_weights(weights, store)
    from tiekd.data.progress import track
    from tiekd.distill.runtime import choose_device
    from tiekd.inference.evaluate import evaluate as evaluate_network
    from tiekd.inference.evaluate import require_finite
    from tiekd.models.checkpoint import load_network

    network, trained = load_network(file)
    config = override(trained, changes)
    _check_reach(file, trained, config)
    source, indices, maps = _open(config, teacher)
    device = choose_device(config.execution.device)
    rows = evaluate_network(network.to(device), config, source, device, indices, maps)
    scored = list(track(rows, "images", len(indices)))
    require_finite(scored)
    return config, scored, len(source)


def _check_reach(weights: Path, trained: "RunConfig", config: "RunConfig") -> None:
    """Raise UserError if a network ends at a smaller depth than the data set or the protocol that it is to be evaluated on."""
    from tiekd.config import DataConfig
    from tiekd.config.specs import PROTOCOLS
    from tiekd.data.depth_range import check_reach

    what, largest = f"weights {weights}", trained.data.max_depth
    if config.data.dataset != trained.data.dataset:
        default = DataConfig.model_fields["max_depth"].default
        needed = config.data.spec.defaults.get("data", {}).get("max_depth", default)
        check_reach(what, largest, needed, f"data.max_depth of {config.data.dataset}")
    if config.evaluation.protocol != trained.evaluation.protocol:
        needed = PROTOCOLS[config.evaluation.protocol].max_depth or largest
        check_reach(what, largest, needed, f"the cap of protocol {config.evaluation.protocol}")


def _score_maps(
    folder: Path, dataset: str | None, depth_scale: float | None, changes: dict[str, Any], teacher: Path | None
) -> tuple["RunConfig", Rows, int]:
    """Evaluate a folder of depth maps; returns what `_score_network` does."""
    from tiekd.config import config_of_frames
    from tiekd.config.documents import with_values
    from tiekd.config.specs import DATASETS
    from tiekd.data.doctor import data_config
    from tiekd.data.progress import track

    dataset = str(changes["data.dataset"]) if "data.dataset" in changes else dataset
    if dataset not in DATASETS or DATASETS[dataset].frames is None:  # rendered frames need no folder
        if not changes.get("data.root"):
            raise UserError("--predictions: needs --data ROOT, the folder of the data set")
        dataset = data_config(Path(str(changes["data.root"])), dataset, {}).dataset
    config = config_of_frames(with_values({"data": {"dataset": dataset}}, changes), source="evaluate")
    from tiekd.data.teacher_maps.external import ExternalMaps
    from tiekd.inference.evaluate import evaluate_maps

    source, indices, teacher_maps = _open(config, teacher)
    maps = ExternalMaps([folder], config.data.dataset, [source.keys[index] for index in indices], depth_scale)
    maps.check_headers(source)
    if remark := maps.check_units(source, config.data.max_depth):
        LOG.warning(remark)
    rows = evaluate_maps(maps, config, source, indices, teacher_maps)
    return config, list(track(rows, "images", len(indices))), len(source)


def _open(config: "RunConfig", teacher: Path | None) -> tuple["FrameSource", list[int], "TeacherMaps | None"]:
    """The test frames, which of them have ground truth, and the teacher's maps of those; all is there."""
    from tiekd.data import check_ground_truth, check_maps, open_frames
    from tiekd.data.teacher_maps import TeacherMaps
    from tiekd.inference.protocols import check_protocol

    source = open_frames(config.data, "test")
    source.check()
    indices = [index for index in range(len(source)) if source.has_ground_truth(index)]
    if not indices:
        raise UserError(f"data.test_split: none of its {len(source)} frames has ground truth to evaluate on")
    check_protocol(config)
    check_ground_truth(source, config.data.max_depth)
    if teacher is None:
        return source, indices, None
    maps = TeacherMaps(teacher)
    check_maps(maps, source, indices, config.data.max_depth)
    return source, indices, maps


def _check_table(path: Path) -> None:
    """Raise a `UserError` unless a table can be written there."""
    from tiekd.store.files import check_output_folder

    if path.suffix != ".parquet" or path.is_dir():
        raise UserError(f"--images {path}: expected the name of a .parquet file")
    check_output_folder(path.parent, "--images: folder")


def _print(config: "RunConfig", rows: Rows, n_images: int, agreement: bool, images: Path | None, as_json: bool) -> None:
    """Print the means over the images with valid ground truth, and write the rows if asked for."""
    import pandas as pd

    from tiekd.cli.console import make_console, show_metrics
    from tiekd.metrics import AGREEMENT_METRICS, mean_metrics, median_ratio
    from tiekd.store.files import write_atomically

    protocol, measured = config.evaluation.protocol, sum(row["n_valid"] > 0 for row in rows)
    if not measured:
        raise UserError(f"protocol {protocol}: none of the {n_images} images has a valid pixel")
    found = {"protocol": protocol, "n_images": measured, "n_images_without_ground_truth": n_images - measured}
    found["metrics"], found["median_ratio"] = mean_metrics(rows), median_ratio(rows)
    if agreement:
        found["agreement"] = mean_metrics(rows, AGREEMENT_METRICS)
    if images is not None:
        write_atomically(images, pd.DataFrame(rows).to_parquet(index=False))
    if as_json:
        print(json_text(found))
        return
    console = make_console()
    show_metrics(console, found["metrics"], f"protocol {protocol}, {measured} images")
    print(f"median ratio to ground truth: {found['median_ratio']:.3f}")
    if agreement:
        show_metrics(console, found["agreement"], f"agreement with the teacher, {measured} images")
    if measured < n_images:
        print(f"{n_images - measured} of {n_images} images have no valid ground truth and are left out of the averages")
