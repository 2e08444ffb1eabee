"""Data files per frame: image, ground truth, teacher maps, target distributions and predictions.

Files that exist are not written again.
"""

import hashlib
import io
import json
from typing import Any

import numpy as np
import torch
from PIL import Image

from reports.viewer.choose import ShownDataset, ShownRun
from reports.viewer.encoding import (
    compress_dpm,
    compress_map,
    dpm_grid,
    dpm_grid_step,
    map_stride,
    quantize_depth,
    quantize_dpm,
    subsample,
    subsample_sparse,
)
from reports.viewer.site import DPM_SUFFIX, MAP_SUFFIX, Site
from tiekd.bins import DepthBins, expected_depth
from tiekd.data import Frame
from tiekd.data.progress import track
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.data.transforms import normalize_image
from tiekd.distill.runtime import choose_device
from tiekd.inference.evaluate import score_image
from tiekd.inference.predict import check_finite, predict
from tiekd.losses import dpm_target
from tiekd.models.checkpoint import load_network
from tiekd.store.find_weights import fetch_weights
from tiekd.store.run_store import RunStore

TRUTH = "truth"


def teacher_id(maps: TeacherMaps) -> str:
    """Return the name of a teacher's files."""
    return f"teacher-{maps.digest()[:12]}"


def target_id(run: ShownRun) -> str | None:
    """Return the name of a run's target files, equal for equal targets; None without a DPM or a teacher."""
    config = run.config
    if run.maps is None or not run.has_dpm:
        return None
    settings = {name: getattr(config.loss, name) for name in ("dpm", "sigma", "temperature")}
    settings |= {"maps": run.maps.digest(), "bins": config.bins.model_dump(), "quirks": sorted(config.quirks)}
    settings |= {"range": [config.data.min_depth, config.data.max_depth]}
    return f"target-{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]}"


def write_images(site: Site, dataset: ShownDataset, label: str) -> None:
    """Write images and ground truth."""
    missing = site.missing(dataset.id, "image", dataset.indices, MAP_SUFFIX)
    missing |= site.missing(dataset.id, TRUTH, dataset.indices, MAP_SUFFIX)
    for index in track(sorted(missing), label):
        frame = dataset.source.load(index)
        site.write_script(dataset.id, "image", index, MAP_SUFFIX, _webp(frame.image))
        _write_map(site, dataset, TRUTH, index, subsample_sparse(frame.depth_gt), frame, dense=False)


def write_teacher(site: Site, dataset: ShownDataset, maps: TeacherMaps, label: str) -> None:
    """Write a teacher's maps, and their metrics under the protocol of the data set's runs."""
    name, protocol = teacher_id(maps), dataset.config.evaluation.protocol
    metrics_file = f"{dataset.id}/{name}/{protocol}.json"
    metrics = site.read_json(metrics_file)
    missing = site.missing(dataset.id, name, dataset.indices, MAP_SUFFIX)
    missing |= {index for index in dataset.indices if str(index) not in metrics}
    for index in track(sorted(missing), label):
        frame = dataset.source.load(index)
        depth = _teacher_depth(maps, dataset, index, frame)
        _write_map(site, dataset, name, index, subsample(depth), frame, dense=True)
        metrics[str(index)] = _frame_metrics(depth, frame, dataset, protocol) if depth.any() else {}
    if missing:
        site.write_json(metrics_file, metrics)


def write_target(site: Site, dataset: ShownDataset, name: str, run: ShownRun, label: str) -> None:
    """Write the target distributions of a run, computed from its teacher maps, under the name `target_id`."""
    target, bins = (
        dpm_target(run.config),
        DepthBins(run.config.bins.n_bins, *run.config.data.depth_range, run.config.bins.spacing),
    )
    assert run.maps is not None
    missing = site.missing(dataset.id, name, dataset.indices, DPM_SUFFIX)
    for index in track(sorted(missing), label):
        frame = dataset.source.load(index)
        depth = _teacher_depth(run.maps, dataset, index, frame)[np.ix_(*dpm_grid(frame.size))]
        dpm = target(torch.from_numpy(depth)[None, None])
        _write_dpm(site, dataset, name, index, expected_depth(dpm, bins), dpm)


def predict_frames(site: Site, dataset: ShownDataset, run: ShownRun, store: RunStore, label: str) -> None:
    """Predict the frames of a run and write depth and distributions.

    The depth map of a frame is written last, so that a frame with a depth map is complete.
    """
    missing = site.missing(dataset.id, run.run_id, dataset.indices, MAP_SUFFIX)
    if not missing:
        return
    device = choose_device(run.config.execution.device)
    network, config = load_network(fetch_weights(store, run.run_id))
    network.to(device).eval()
    for index in track(sorted(missing), label):
        frame = dataset.source.load(index)
        prediction = predict(network, normalize_image(frame.image)[None].to(device), config)
        check_finite(prediction.depth, dataset.source.keys[index])
        if run.has_dpm:
            rows, columns = (torch.from_numpy(positions).to(device) for positions in dpm_grid(frame.size))
            depth = prediction.depth[:, :, rows][..., columns]
            _write_dpm(site, dataset, run.run_id, index, depth, prediction.dpm_at(rows, columns))
        depth_map = prediction.depth[0, 0].cpu().numpy()
        _write_map(site, dataset, run.run_id, index, subsample(depth_map), frame, dense=True)


def _teacher_depth(maps: TeacherMaps, dataset: ShownDataset, index: int, frame: Frame) -> np.ndarray:
    """Load the teacher's depth [H, W] in m of a frame; 0 everywhere if the teacher has no map of it."""
    key = dataset.source.keys[index]
    return maps.load(key, frame.size) if key in maps.manifest.frames else np.zeros(frame.size, np.float32)


def _frame_metrics(depth: np.ndarray, frame: Frame, dataset: ShownDataset, protocol: str) -> dict[str, Any]:
    """Compute the metrics of a depth map [H, W] in m; empty for a frame without valid ground truth."""
    data = dataset.config.data
    metrics = score_image(depth.clip(data.min_depth, data.max_depth), frame, data, protocol)
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def _write_map(site: Site, dataset: ShownDataset, name: str, index: int, depth: np.ndarray, frame: Frame, dense: bool) -> None:
    """Write a subsampled depth map [h, w] in m."""
    height, width = depth.shape
    header = {
        "dense": int(dense),
        "h": height,
        "w": width,
        "stride": map_stride(frame.size),
        "every": dpm_grid_step(frame.size),
    }
    site.write_script(dataset.id, name, index, MAP_SUFFIX, compress_map(quantize_depth(depth), dense), **header)


def _write_dpm(site: Site, dataset: ShownDataset, name: str, index: int, depth: torch.Tensor, dpm: torch.Tensor) -> None:
    """Write distributions on the grid. depth [1, 1, h, w] m; dpm [1, K, h, w]."""
    levels = quantize_dpm(dpm[0].flatten(1).T.float().cpu().numpy())
    content = compress_dpm(depth.flatten().float().cpu().numpy(), levels)
    site.write_script(dataset.id, name, index, DPM_SUFFIX, content, n=levels.shape[0], bins=levels.shape[1])


def _webp(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="WEBP", quality=80)
    return buffer.getvalue()
