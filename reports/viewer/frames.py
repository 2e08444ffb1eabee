"""What does not depend on a student: images, ground truth, teachers' maps and their target distributions."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image

from reports.viewer.choose import Method, Shown
from reports.viewer.pack import lattice, lattice_every, map_stride, pack_dpm, pack_map, parts_of, quantise, thin, thin_sparse
from reports.viewer.site import DPM, IMAGE, MAP, Site
from tiekd.bins import DepthBins, expected_depth
from tiekd.data import Frame
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.inference.evaluate import score_image
from tiekd.losses import dpm_target

TRUTH = "truth"
Advance = Callable[[], None]


def teacher_id(maps: TeacherMaps) -> str:
    return f"teacher-{maps.digest()[:12]}"


def target_id(method: Method) -> str | None:
    """One name for students with the same teacher, bins and target settings; None for those without a DPM or a teacher."""
    config = method.config
    if method.maps is None or config.student.head != "dpm":
        return None
    target = {name: getattr(config.loss, name) for name in ("sigma", "temperature")}
    target |= {"maps": method.maps.digest(), "bins": config.bins.model_dump(), "quirks": sorted(config.quirks)}
    target |= {"range": [config.data.min_depth, config.data.max_depth]}
    return f"target-{hashlib.sha256(json.dumps(target, sort_keys=True).encode()).hexdigest()[:12]}"


def write_frames(site: Site, shown: Shown, advance: Advance) -> None:
    """The images and the ground truth that are not there yet."""
    todo = site.missing(shown.id, "image", shown.indices, IMAGE) | site.missing(shown.id, TRUTH, shown.indices, MAP)
    for index in _told(shown.indices, todo, advance):
        frame = shown.source.load(index)
        site.write(shown.id, "image", index, IMAGE, _webp(frame.image))
        _write_map(site, shown, TRUTH, index, thin_sparse(frame.depth_gt), frame, dense=False)


def write_teacher(site: Site, shown: Shown, maps: TeacherMaps, advance: Advance) -> None:
    """A teacher's maps and their metrics, by the protocol of the data set's runs."""
    name, protocol = teacher_id(maps), shown.config.evaluation.protocol
    scores_name = f"{shown.id}/{name}/{protocol}.json"
    scores = site.read_json(scores_name)
    todo = site.missing(shown.id, name, shown.indices, MAP) | {i for i in shown.indices if str(i) not in scores}
    for index in _told(shown.indices, todo, advance):
        frame = shown.source.load(index)
        depth = depth_of(maps, shown, index, frame)
        write_depth(site, shown, name, index, depth, frame)
        scores[str(index)] = score(depth, frame, shown, protocol) if depth.any() else {}
    if todo:
        site.write_json(scores_name, scores)


def write_target(site: Site, shown: Shown, method: Method, advance: Advance) -> None:
    """What a teacher's maps become as targets of a student, on the lattice."""
    name, target, bins = target_id(method), dpm_target(method.config), DepthBins.of(method.config)
    todo = site.missing(shown.id, name, shown.indices, DPM)
    for index in _told(shown.indices, todo, advance):
        frame = shown.source.load(index)
        depth = torch.from_numpy(depth_of(method.maps, shown, index, frame)[np.ix_(*lattice(frame.size))])
        dpm = target(depth[None, None])
        write_dpm(site, shown, name, index, expected_depth(dpm, bins), dpm)


def depth_of(maps: TeacherMaps, shown: Shown, index: int, frame: Frame) -> np.ndarray:
    """The teacher's depth of a frame, [H, W] m; 0 all over where it has no map of it."""
    key = shown.source.keys[index]
    known = key in maps.manifest.frames
    return maps.load(key, frame.size) if known else np.zeros(frame.size, np.float32)


def score(depth: np.ndarray, frame: Frame, shown: Shown, protocol: str) -> dict[str, Any]:
    """Metrics of a depth map [H, W] m; a frame without valid ground truth has none."""
    data = shown.config.data
    found = score_image(depth.clip(data.min_depth, data.max_depth), frame, data, protocol)
    return {key: value for key, value in found.items() if np.isfinite(value)}


def write_depth(site: Site, shown: Shown, name: str, index: int, depth: np.ndarray, frame: Frame) -> None:
    """A dense depth map [H, W] m."""
    _write_map(site, shown, name, index, thin(depth), frame, dense=True)


def write_dpm(site: Site, shown: Shown, name: str, index: int, depth: torch.Tensor, dpm: torch.Tensor) -> None:
    """Distributions on the lattice: depth [1, 1, h, w] m, dpm [1, K, h, w]."""
    parts = parts_of(dpm[0].flatten(1).T.float().cpu().numpy())
    content = pack_dpm(depth.flatten().float().cpu().numpy(), parts)
    site.write_script(shown.id, name, index, DPM, content, n=parts.shape[0], bins=parts.shape[1])


def _write_map(site: Site, shown: Shown, name: str, index: int, kept: np.ndarray, frame: Frame, dense: bool) -> None:
    height, width = kept.shape
    about = {"h": height, "w": width, "stride": map_stride(frame.size), "every": lattice_every(frame.size)}
    site.write_script(shown.id, name, index, MAP, pack_map(quantise(kept), dense), dense=int(dense), **about)


def _told(indices: Iterable[int], todo: set[int], advance: Advance) -> Iterable[int]:
    """Those that are to do; each of all counts as an advance."""
    for index in indices:
        if index in todo:
            yield index
        advance()


def _webp(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="WEBP", quality=80)
    return buffer.getvalue()
