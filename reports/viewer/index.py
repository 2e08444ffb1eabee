"""What the page reads first: data sets, results, frames, metrics, colours."""

import base64
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps

from reports.loading.schema import HIGHER_IS_BETTER, METRIC_LABELS, METRICS
from reports.viewer.choose import Method, Shown
from reports.viewer.frames import target_id, teacher_id
from reports.viewer.pack import DEPTH_ERROR, MASS, NEAREST, STEP, dpm_error
from reports.viewer.site import Site
from reports.viewer.students import has_dpm
from tiekd.bins import DepthBins
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.losses import dpm_sigma
from tiekd.store.run_store import RunStore

DEPTH_COLOURS, DIFFERENCE_COLOURS = "turbo_r", "RdBu_r"
RANGE_FRAMES = 32  # of these the colour scale is made


def write_index(site: Site, shown: list[Shown], store: RunStore) -> None:
    """The indices of all data sets; the whole one last, which makes them known."""
    for one in shown:
        site.write_index(one.id, _dataset(site, one, store))
    site.write_index(
        "",
        {
            "store": _link(site, store),
            "datasets": [{"id": one.id, "name": one.name, "runs": [m.run_id for m in one.methods]} for one in shown],
            "format": {"step": STEP, "nearest": NEAREST, "mass": MASS, "depthError": DEPTH_ERROR},
            "metrics": [{"id": m, "label": METRIC_LABELS[m], "higher": m in HIGHER_IS_BETTER} for m in METRICS],
            "colours": {"depth": _table(DEPTH_COLOURS), "difference": _table(DIFFERENCE_COLOURS)},
        },
    )


def _link(site: Site, store: RunStore) -> dict[str, str]:
    """What the store is called, and its place relative to the page where a browser can open it."""
    local = Path(store.filesystem[1]) if store.local else None
    return {"uri": store.uri, "path": os.path.relpath(local, site.folder.absolute()) if local else ""}


def _table(name: str) -> str:
    """256 RGB colours, in base64."""
    return _base64((colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8))


def _dataset(site: Site, shown: Shown, store: RunStore) -> dict[str, Any]:
    keys = [shown.source.keys[index] for index in shown.indices]
    teachers = shown.teachers
    near, far = _range(shown)
    return {
        "near": near,
        "far": far,
        "frames": shown.indices,
        "keys": keys,
        "groups": [shown.source.group(index) for index in shown.indices],
        "results": [_teacher(site, shown, maps) for maps in teachers.values()]
        + [_student(shown, method, keys, store) for method in shown.methods],
    }


def _teacher(site: Site, shown: Shown, maps: TeacherMaps) -> dict[str, Any]:
    protocol = shown.config.evaluation.protocol
    name = next(m.config.teacher.name for m in shown.methods if m.maps and m.maps.digest() == maps.digest())
    scores = site.read_json(f"{shown.id}/{teacher_id(maps)}/{protocol}.json")
    rows = [scores.get(str(index), {}) for index in shown.indices]
    return {
        "id": teacher_id(maps),
        "name": f"Teacher {name}",
        "teacher": True,
        "protocol": protocol,
        **_metrics(rows),
    }


def _student(shown: Shown, method: Method, keys: list[str], store: RunStore) -> dict[str, Any]:
    config = method.config
    table = store.run(method.run_id).read_table("images.parquet")
    known = {} if table is None else table.drop_duplicates("image").set_index("image").to_dict("index")
    found = {
        "id": method.run_id,
        "name": shown.names[method.run_id],
        "labels": method.cell.labels,
        "study": method.table.study.name,
        "protocol": method.table.protocol,
        "seed": config.seed,
        "runs": method.runs,
        "maps": teacher_id(method.maps) if method.maps else None,
        "head": config.student.head,
        **_metrics([known.get(key, {}) for key in keys]),
    }
    if has_dpm(method):
        bins = DepthBins.of(config)
        found["dpm"] = {
            "edges": [round(edge, 6) for edge in bins.edges.tolist()],
            "error": dpm_error(bins.centers.numpy()),
            "target": target_id(method),
            "sigma": dpm_sigma(config),
            "temperature": config.loss.temperature,
            "trained": "temperature" in config.loss.spec.reads,
        }
    return found


def _metrics(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The metrics of each frame, float32 [frames, METRICS], and its valid pixels, int32."""
    values = [[row.get(metric, math.nan) for metric in METRICS] for row in rows]
    valid = [row.get("n_valid", 0) for row in rows]
    return {"metrics": _base64(np.array(values, "<f4")), "valid": _base64(np.array(valid, "<i4"))}


def _range(shown: Shown) -> tuple[float, float]:
    """Depths in m between which colours change: all but the nearest and the farthest hundredth of the ground truth."""
    step = max(1, math.ceil(len(shown.indices) / RANGE_FRAMES))
    depths = [shown.source.load(index).depth_gt for index in shown.indices[::step]]
    found = _measured(depths)
    data = shown.config.data
    if not found.size:
        return data.min_depth, data.max_depth
    near, far = np.percentile(found, [1, 99])
    return float(f"{max(near, data.min_depth):.2g}"), float(f"{min(max(far, 2 * near), data.max_depth):.2g}")


def _measured(depths: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([depth[depth > 0] for depth in depths])


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
