"""`tiekd evaluate`."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiekd.cli.options import JsonOption, RunStoreOption, SetOption, parse_camera
from tiekd.errors import UserError
from tiekd.store.files import json_text

if TYPE_CHECKING:
    from tiekd.config import RunConfig
    from tiekd.data import FrameSource
    from tiekd.data.teacher_maps import TeacherMaps
    from tiekd.inference.structure import Structure
    from tiekd.store.run_store import RunRecord

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
    protocol: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[@CAPm][+ALIGNMENT]",
            help="evaluation protocol, e.g. bts-garg@50m+median; repeatable [default: the run's or the data set's]",
        ),
    ] = [],  # noqa: B006
    depth_scale: Annotated[
        float | None, typer.Option(help="with --predictions: integer at 1 m [default: in images that of the ground truth]")
    ] = None,
    boundaries: Annotated[bool, typer.Option("--boundaries", help="also compute the boundary F1 of Depth Pro")] = False,
    focal: Annotated[
        str | None,
        typer.Option(
            metavar="F|FX,FY,CX,CY",
            help="also compute the mean angle between surface normals, with this camera, px of the view",
        ),
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(metavar="DIR", help="also print the agreement with the maps of a teacher")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write one row per protocol and image to this .parquet file")
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="keep the rows with the run, for the ranks over protocols of `tiekd report`")
    ] = False,
    store: RunStoreOption = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Evaluate a trained network, or depth maps of any program, on the test frames of a data set.

    A frame's map is found by the image's path without suffix, by the name that the released TIE-KD code gives it, or by the
    image's name if that is unique. Maps of the released code need --depth-scale 819.1875 (KITTI) or 6553.5 (NYU).

    Each image is predicted once, however many protocols score it. `tiekd list protocols` and `tiekd list alignments` have them.

    Example: tiekd evaluate demo/store/runs/1f0e9a4c7b2d3856 --protocol none --protocol none+median
    """
    from tiekd.config.changes import MAP_EVALUATION, NETWORK_EVALUATION, check_changes
    from tiekd.config.documents import parse_overrides
    from tiekd.inference.structure import Structure

    of_network = weights is not None
    read, reader = (NETWORK_EVALUATION, "evaluate WEIGHTS") if of_network else (MAP_EVALUATION, "evaluate --predictions")
    changes = check_changes(parse_overrides(overrides), read, reader)
    if data is not None:
        changes["data.root"] = str(data)
    if protocol:
        changes["evaluation.protocol"] = protocol[0]
    changes["evaluation.also"] = protocol[1:]
    if images is not None:
        _check_table(images)
    structure = Structure(boundaries, parse_camera(focal) if focal is not None else None)
    record = _run_to_save(weights, store, overrides, protocol) if save else None
    if predictions is not None and weights is None:
        if store is not None:
            raise UserError(f"--store {store}: is only used with WEIGHTS, not with --predictions")
        config, rows, n_images = _score_maps(predictions, dataset, depth_scale, changes, teacher, structure)
    elif weights is not None and predictions is None:
        for option, value in (("--dataset", dataset), ("--depth-scale", depth_scale)):
            if value is not None:
                raise UserError(f"{option} {value}: is only used with --predictions; change a network's settings with --set")
        config, rows, n_images = _score_network(weights, store, changes, teacher, structure, record)
    else:
        given = "neither" if weights is None else "both"
        raise UserError(f"evaluate: expected either WEIGHTS or --predictions DIR, got {given}")
    if record:
        _save(record, config, rows)
    _print(config, rows, n_images, teacher is not None, structure.names, images, as_json)


def _run_to_save(weights: str | None, store: str | None, overrides: list[str], protocols: list[str]) -> "RunRecord":
    """The finished run in which --save keeps rows. Raises UserError unless they are of its own settings."""
    from tiekd.store.find_weights import find_run

    record = find_run(weights, store) if weights is not None else None
    if record is None:
        raise UserError("--save: keeps the rows with a run; needed the folder of one as WEIGHTS, or its id and --store")
    if (state := record.status().state) != "done":
        raise UserError(f"--save: run {record.run_id} is {state}; only a run that is done can be scored")
    if overrides:
        raise UserError("--save: keeps the rows of the run's own settings; leave out --set")
    if not protocols:
        raise UserError("--save: needs --protocol NAME; the rows of the run's own protocol are kept already")
    return record


def _save(record: "RunRecord", config: "RunConfig", rows: Rows) -> None:
    """Add rows to protocols.parquet of a run, in place of earlier ones of the same protocols."""
    import pandas as pd

    summary: Any = record.summary() or {}
    new = [row for row in rows if row["protocol"] != summary.get("protocol")]
    kept = record.read_table("protocols.parquet")
    parts = [] if kept is None else [kept.loc[~kept["protocol"].isin([*config.evaluation.specs])]]
    table = pd.concat([*parts, pd.DataFrame(new)], ignore_index=True)
    record.write_table("protocols.parquet", table)
    record.write_json("summary.json", {**summary, "also": list(dict.fromkeys(table["protocol"]))})


def _score_network(
    weights: str,
    store: str | None,
    changes: dict[str, Any],
    teacher: Path | None,
    structure: "Structure",
    record: "RunRecord | None",
) -> tuple["RunConfig", Rows, int]:
    """Evaluate a network: its config, the rows of the test frames with ground truth, and the number of test frames.

    record: the run in which the rows will be kept.
    """
    from tiekd.config import override
    from tiekd.store.find_weights import find_weights

    file = find_weights(weights, store)
    from tiekd.data.progress import track
    from tiekd.distill.runtime import choose_device
    from tiekd.inference.evaluate import evaluate_protocols, require_finite
    from tiekd.models.checkpoint import load_network

    network, trained = load_network(file)
    config = override(trained, changes)
    _check_reach(file, trained, config)
    source, indices, maps = _open(config, teacher)
    if record and source.digest() != record.provenance().get("inputs", {}).get("test"):
        raise UserError(f"--save: run {record.run_id} was evaluated on other test frames than these; name its data with --data")
    device = choose_device(config.execution.device)
    protocols = config.evaluation.specs
    rows = evaluate_protocols(network.to(device), config, source, device, indices, protocols, maps, structure)
    scored = [row for rows_of_frame in track(rows, "images", len(indices)) for row in rows_of_frame]
    require_finite(scored)
    return config, scored, len(source)


def _check_reach(weights: Path, trained: "RunConfig", config: "RunConfig") -> None:
    """Raise UserError if a network ends at a smaller depth than the data set or a protocol without alignment that scores it."""
    from tiekd.config import DataConfig
    from tiekd.data.depth_range import check_reach

    what, largest = f"weights {weights}", trained.data.max_depth
    metric = {name: spec for name, spec in config.evaluation.specs.items() if spec.alignment == "none"}
    if metric and config.data.dataset != trained.data.dataset:
        default = DataConfig.model_fields["max_depth"].default
        needed = config.data.spec.defaults.get("data", {}).get("max_depth", default)
        check_reach(what, largest, needed, f"data.max_depth of {config.data.dataset}")
    for name, spec in metric.items():
        if name != trained.evaluation.protocol:
            check_reach(what, largest, spec.max_depth or largest, f"the cap of protocol {name}")


def _score_maps(
    folder: Path,
    dataset: str | None,
    depth_scale: float | None,
    changes: dict[str, Any],
    teacher: Path | None,
    structure: "Structure",
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
    protocols = config.evaluation.specs
    in_meters = any(spec.alignment == "none" for spec in protocols.values())  # else they may be relative
    if in_meters and (remark := maps.check_units(source, config.data.max_depth)):
        LOG.warning(remark)
    rows = evaluate_maps(maps, config, source, indices, protocols, teacher_maps, structure)
    return config, [row for rows_of_frame in track(rows, "images", len(indices)) for row in rows_of_frame], len(source)


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


def _print(
    config: "RunConfig",
    rows: Rows,
    n_images: int,
    agreement: bool,
    structure: list[str],
    images: Path | None,
    as_json: bool,
) -> None:
    """Print the means over the images with valid ground truth, and write the rows if asked for."""
    import pandas as pd

    from tiekd.cli.console import make_console, show_metrics, show_protocols
    from tiekd.metrics import AGREEMENT_METRICS, mean_metrics, median_ratio
    from tiekd.store.files import write_atomically

    found: list[dict[str, Any]] = []
    for protocol in config.evaluation.specs:
        own = [row for row in rows if row["protocol"] == protocol]
        measured = sum(row["n_valid"] > 0 for row in own)
        if not measured:
            raise UserError(f"protocol {protocol}: none of the {n_images} images has a valid pixel")
        counts = {"protocol": protocol, "n_images": measured, "n_images_without_ground_truth": n_images - measured}
        means = pd.DataFrame(own)[structure].mean().to_dict()  # over the images that have them
        found.append(counts | {"metrics": mean_metrics(own) | means, "median_ratio": median_ratio(own)})
        if agreement:
            found[-1]["agreement"] = mean_metrics(own, AGREEMENT_METRICS)
        if note := config.data.spec.count_note(measured):
            found[-1]["note"] = note
    if images is not None:
        ordered = [row for protocol in config.evaluation.specs for row in rows if row["protocol"] == protocol]
        write_atomically(images, pd.DataFrame(ordered).to_parquet(index=False))
    if as_json:
        print(json_text(found[0] if len(found) == 1 else {"protocols": found}))
        return
    console = make_console()
    if len(found) > 1:
        show_protocols(console, found)
    else:
        show_metrics(console, found[0]["metrics"], f"protocol {found[0]['protocol']}, {found[0]['n_images']} images")
        print(f"median ratio to ground truth: {found[0]['median_ratio']:.3f}")
    if agreement:
        show_metrics(console, found[0]["agreement"], f"agreement with the teacher, {found[0]['n_images']} images")
    if left_out := sorted({each["n_images_without_ground_truth"] for each in found} - {0}):
        numbers = " or ".join(map(str, left_out))
        print(f"{numbers} of {n_images} images have no valid ground truth and are left out of the averages")
    for note in dict.fromkeys(each["note"] for each in found if "note" in each):
        print(note)
