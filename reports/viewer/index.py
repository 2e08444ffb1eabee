"""The indexes that the page reads first: data sets, results, frames, metrics and color tables."""

import base64
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps

from reports.loading.schema import METRIC_LABELS, METRICS
from reports.viewer.choose import ShownDataset, ShownRun
from reports.viewer.encoding import DEPTH_ERROR, DPM_LEVELS, LOG_STEP, MIN_CODED_DEPTH, dpm_error
from reports.viewer.frames import target_id, teacher_id
from reports.viewer.site import Site
from tiekd.bins import DepthBins
from tiekd.config.labels import HIGHER_IS_BETTER
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.distill.target_floor import target_settings
from tiekd.store.run_store import RunStore

DEPTH_COLORS, DIFFERENCE_COLORS = "turbo_r", "RdBu_r"
MAX_RANGE_FRAMES = 32  # used to choose the range of the color scale


def write_index(site: Site, datasets: list[ShownDataset], store: RunStore) -> None:
    """Write the index of each data set, then the index of the site, which makes them visible."""
    for dataset in datasets:
        site.write_index(dataset.id, _dataset_index(site, dataset, store))
    site.write_index(
        "",
        {
            "store": _store_link(site, store),
            "datasets": [{"id": d.id, "name": d.name, "runs": [run.run_id for run in d.runs]} for d in datasets],
            "format": {"step": LOG_STEP, "nearest": MIN_CODED_DEPTH, "mass": DPM_LEVELS, "depthError": DEPTH_ERROR},
            "metrics": [{"id": m, "label": METRIC_LABELS[m], "higher": m in HIGHER_IS_BETTER} for m in METRICS],
            "colors": {"depth": _color_table(DEPTH_COLORS), "difference": _color_table(DIFFERENCE_COLORS)},
        },
    )


def _store_link(site: Site, store: RunStore) -> dict[str, str]:
    """Return the URI of the store and, if it is a local folder, its path relative to the page."""
    local = Path(store.root) if store.local else None
    return {"uri": store.uri, "path": os.path.relpath(local, site.folder.absolute()) if local else ""}


def _color_table(name: str) -> str:
    """Return 256 RGB colors of a color map in base64."""
    return _base64((colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8))


def _dataset_index(site: Site, dataset: ShownDataset, store: RunStore) -> dict[str, Any]:
    near, far = _color_range(dataset)
    return {
        "near": near,
        "far": far,
        "frames": dataset.indices,
        "keys": [dataset.source.keys[index] for index in dataset.indices],
        "groups": [dataset.source.group(index) for index in dataset.indices],
        "results": [_teacher(site, dataset, maps) for maps in dataset.teachers.values()]
        + [_student(dataset, run, store) for run in dataset.runs],
    }


def _teacher(site: Site, dataset: ShownDataset, maps: TeacherMaps) -> dict[str, Any]:
    protocol = dataset.config.evaluation.protocol
    teachers = (run.config.teacher for run in dataset.runs if run.maps and run.maps.digest() == maps.digest())
    metrics = site.read_json(f"{dataset.id}/{teacher_id(maps)}/{protocol}.json")
    return {
        "id": teacher_id(maps),
        "name": f"Teacher {next(teacher.name for teacher in teachers if teacher)}",
        "teacher": True,
        "protocol": protocol,
        **_encode_metrics(pd.DataFrame([metrics.get(str(index), {}) for index in dataset.indices])),
    }


def _student(dataset: ShownDataset, run: ShownRun, store: RunStore) -> dict[str, Any]:
    config = run.config
    keys = [dataset.source.keys[index] for index in dataset.indices]
    images = store.run(run.run_id).images()
    known = pd.DataFrame(columns=["image"]) if images is None else images.to_pandas()
    rows = known.drop_duplicates("image").set_index("image").reindex(keys)
    student: dict[str, Any] = {
        "id": run.run_id,
        "name": dataset.names[run.run_id],
        "labels": run.cell.labels,
        "study": run.table.study.name,
        "protocol": run.table.protocol,
        "seed": config.seed,
        "runs": run.seeds,
        "maps": teacher_id(run.maps) if run.maps else None,
        "head": config.student.head,
        **_encode_metrics(rows),
    }
    if run.has_dpm:
        bins = DepthBins(config.bins.n_bins, *config.data.depth_range, config.bins.spacing)
        student["dpm"] = {
            "edges": [round(edge, 6) for edge in bins.edges.tolist()],
            "error": dpm_error(bins.centers.numpy()),
            "target": target_id(run),
            "about": ", ".join([config.loss.dpm, *target_settings(config)]),
            "trained": "dpm" in config.loss.reads,
        }
    return student


def _encode_metrics(rows: pd.DataFrame) -> dict[str, str]:
    """Encode the metrics of each frame, float32 [frames, METRICS], and the number of valid pixels, int32 [frames]."""
    rows = rows.reindex(columns=[*METRICS, "n_valid"])
    values, n_valid = rows[[*METRICS]].to_numpy("<f4"), rows["n_valid"].fillna(0).to_numpy("<i4")
    return {"metrics": _base64(values), "valid": _base64(n_valid)}


def _color_range(dataset: ShownDataset) -> tuple[float, float]:
    """Return the depths in m at the ends of the color scale: the 1st and 99th percentile of the ground truth."""
    step = max(1, math.ceil(len(dataset.indices) / MAX_RANGE_FRAMES))
    depths = [dataset.source.load(index).depth_gt for index in dataset.indices[::step]]
    measured = np.concatenate([depth[depth > 0] for depth in depths])
    data = dataset.config.data
    if not measured.size:
        return data.min_depth, data.max_depth
    near, far = np.percentile(measured, [1, 99])
    return float(f"{max(near, data.min_depth):.2g}"), float(f"{min(max(far, 2 * near), data.max_depth):.2g}")


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
