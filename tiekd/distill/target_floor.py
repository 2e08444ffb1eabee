"""The error that a student keeps if it reproduces the target of L_DPM exactly: the mean of a DPM is not the teacher's depth.

By default the density of the bins enters a softmax, and the softmax of small numbers is nearly uniform. A wide sigma makes the
density small, so the mean of the target moves towards the middle of the depth range (docs/fidelity.md). Without PyTorch, for
planning.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from tiekd.config import RunConfig
from tiekd.config.specs import DEFAULT_DPM, DPMS
from tiekd.data import inputs_key, open_inputs
from tiekd.data.frame_source import evenly_spaced
from tiekd.data.inputs import maps_to_make

STATED = 0.02  # abs_rel; a lower floor is not worth a line
DENSITY_FLOOR = 1e-16  # 1/m; as in tiekd/bins.py
N_MAPS = 32  # of the training frames, evenly spaced
N_STEPS = 4096  # of the histogram, between 0 m and data.max_depth

Histogram = tuple[np.ndarray, np.ndarray]  # depths [N] m, and the number of pixels of each [N]


class Floor(NamedTuple):
    """The metrics of a perfect student of L_DPM with respect to the teacher."""

    abs_rel: float
    rmse: float  # m
    delta1: float


def target_of(depth: np.ndarray, config: RunConfig) -> np.ndarray:
    """Return `tiekd.bins.target_dpm`, or its released version, for teacher's depths [N] m; float64 [N, K]."""
    edges, centers = bins_of(config)
    sigma, pixels = config.dpm_sigma, np.arange(len(depth))
    offset = centers - depth[:, None]
    match config.loss.dpm:
        case "softmax_density":
            density = np.exp(-(offset**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
            takes_part = density >= DENSITY_FLOOR
            if "uniform_outside" in config.quirks:
                takes_part[~takes_part.any(axis=1)] = True
            else:
                takes_part[pixels, np.abs(offset).argmin(axis=1)] = True
            score = np.where(takes_part, density / config.loss.temperature, -np.inf)
        case "density":
            score = -(offset**2) / (2 * sigma**2)
        case "laplace":
            score = -np.abs(offset) * math.sqrt(2) / sigma
        case "integral":
            from scipy.special import log_ndtr  # of the smaller tail, which keeps its digits

            z = (edges - depth[:, None]) / sigma
            low, high = z[:, :-1], z[:, 1:]
            near, far = np.where(low + high > 0, -low, high), np.where(low + high > 0, -high, low)
            with np.errstate(divide="ignore"):
                score = log_ndtr(near) + np.log1p(-np.exp(log_ndtr(far) - log_ndtr(near)))
        case "two_hot":
            left = np.clip(np.searchsorted(centers, depth) - 1, 0, len(centers) - 2)
            share = np.clip((depth - centers[left]) / (centers[left + 1] - centers[left]), 0, 1)
            target = np.zeros_like(offset)
            target[pixels, left], target[pixels, left + 1] = 1 - share, share
            return target
    target = np.exp(score - score.max(axis=1, keepdims=True))
    return target / target.sum(axis=1, keepdims=True)


def mean_of_target(depth: np.ndarray, config: RunConfig) -> np.ndarray:
    """Return the mean in m of the target of teacher's depths [N] m; float64 [N]."""
    return target_of(depth, config) @ bins_of(config)[1]


def bins_of(config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return edges [K + 1] and centers [K] in m of `tiekd.bins.DepthBins`, float64."""
    ends = np.array(config.data.depth_range)
    steps = np.linspace(0, 1, config.bins.n_bins + 1)
    match config.bins.spacing:
        case "uniform":
            edges = ends[0] + steps * (ends[1] - ends[0])
        case "log":
            edges = np.exp(np.log(ends[0]) + steps * np.log(ends[1] / ends[0]))
        case "inverse":
            edges = 1 / (1 / ends[0] + steps * (1 / ends[1] - 1 / ends[0]))
    return edges, (edges[:-1] + edges[1:]) / 2


def floor_of(config: RunConfig, histogram: Histogram) -> Floor:
    """Return the metrics of a perfect student of L_DPM with respect to the teacher."""
    depth, count = histogram
    mean = mean_of_target(depth, config)
    ratio = np.maximum(mean / depth, depth / mean)
    values = np.abs(mean - depth) / depth, (mean - depth) ** 2, ratio < 1.25
    abs_rel, square, delta1 = (float(np.average(value, weights=count)) for value in values)
    return Floor(abs_rel, math.sqrt(square), delta1)


def teacher_histogram(config: RunConfig) -> Histogram | None:
    """Count the depths of some of the teacher's maps; None if they are not made yet, or no pixel is inside the depth range."""
    if maps_to_make(config):
        return None
    train, _, maps = open_inputs(config)
    assert maps is not None
    low, high = config.data.depth_range
    counts = np.zeros(N_STEPS, np.int64)
    for index in evenly_spaced(len(train), N_MAPS):
        depth = maps.load_stored(train.keys[index], train.size(index)).to_meters()
        depth = depth[(depth > low) & (depth <= high)]
        counts += np.bincount(np.ceil(depth * (N_STEPS / high)).astype(np.int64) - 1, minlength=N_STEPS)[:N_STEPS]
    found = np.flatnonzero(counts)
    return ((found + 0.5) * (high / N_STEPS), counts[found]) if len(found) else None


_known: dict[Hashable, Histogram | None] = {}  # the histograms of this process's runs


def stored_floor(config: RunConfig, digests: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return what the summary of a run says of its floor, given the digests of its inputs; empty without L_DPM."""
    if not has_target(config):
        return {}
    key = tuple(sorted(digests.items())), config.data.depth_range
    if key not in _known:
        _known[key] = teacher_histogram(config)
    histogram = _known[key]
    return {"floor": floor_of(config, histogram)._asdict()} if histogram else {}


def floor_line(configs: Iterable[RunConfig]) -> str:
    """Return a line on the highest floor of some runs whose inputs exist; "" if none exceeds STATED."""
    histograms: dict[Hashable, Histogram | None] = {}
    floors: dict[Hashable, float] = {}
    highest, at = STATED, None
    n_above = n_runs = 0
    for config in configs:
        if not has_target(config):
            continue
        inputs = inputs_key(config)
        key = inputs, config.bins, config.loss.dpm, target_settings(config), "uniform_outside" in config.quirks
        if key not in floors:
            if inputs not in histograms:
                histograms[inputs] = teacher_histogram(config)
            histogram = histograms[inputs]
            floors[key] = floor_of(config, histogram).abs_rel if histogram else 0.0
        n_runs += 1
        n_above += floors[key] > STATED
        if floors[key] > highest:
            highest, at = floors[key], config
    if at is None:
        return ""
    runs = "" if n_runs == 1 else f" in {n_above} of {n_runs} runs, highest"
    settings = [f"loss.{setting}" for setting in target_settings(at)]
    if at.loss.dpm != DEFAULT_DPM:
        settings.insert(0, f"loss.dpm {at.loss.dpm}")
    return (
        f"L_DPM's target misses the teacher{runs}: abs_rel {highest:.3f} at best for a student that reproduces it "
        f"({', '.join(settings)}, {at.bins.n_bins} bins); see docs/fidelity.md"
    )


def target_settings(config: RunConfig) -> tuple[str, ...]:
    """Return sigma and temperature of the target of L_DPM, as far as it reads them, each with its value."""
    texts = {"sigma": f"sigma {config.dpm_sigma:g} m", "temperature": f"temperature {config.loss.temperature:g}"}
    return tuple(texts[name] for name in DPMS[config.loss.dpm].reads)


def has_target(config: RunConfig) -> bool:
    """Whether the loss of a run has an L_DPM of the teacher's maps."""
    on_teacher = [part.spec.reads for part in config.loss.terms.values() if part.target == "teacher"]
    return any("dpm" in reads and ("alpha" not in reads or config.loss.alpha > 0) for reads in on_teacher)
