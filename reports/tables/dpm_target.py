"""What the target of L_DPM says about the depths of a teacher's maps, and its floor beside that of every other `loss.dpm`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tiekd.config import RunConfig, override
from tiekd.config.quirks import QUIRKS_OF_DPM
from tiekd.config.specs import DPMS, LOSSES
from tiekd.data.inputs import maps_to_make
from tiekd.distill.target_floor import (
    Floor,
    Histogram,
    bins_of,
    floor_of,
    has_target,
    target_of,
    target_settings,
    teacher_histogram,
)
from tiekd.errors import UserError

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)  # of the teacher's depths, for which the target is shown
MASS = 0.99


@dataclass(frozen=True)
class TargetAtDepth:
    """The target of pixels of one depth."""

    depth: float  # m, the teacher's
    mean: float  # m
    bias: float  # m; mean - depth
    std: float  # m
    entropy: float  # bits
    n_bins: int  # the fewest that hold MASS


@dataclass(frozen=True)
class Variant:
    """A DPM with the settings that it reads, and what it is on these depths: the floor, and means over the pixels."""

    dpm: str
    settings: str
    floor: Floor
    entropy: float  # bits
    n_bins: float


@dataclass(frozen=True)
class TargetTables:
    """The target of a config at some depths of its teacher's maps; first its own DPM, then the others of DPMS."""

    config: RunConfig
    rows: list[TargetAtDepth]
    variants: list[Variant]

    def to_dict(self) -> dict[str, Any]:
        variants = [asdict(variant) | {"floor": variant.floor._asdict()} for variant in self.variants]
        return {"dpm": self.config.loss.dpm, "target": [asdict(row) for row in self.rows], "variants": variants}


def depths_of_maps(config: RunConfig) -> Histogram:
    """Count the depths of some of the teacher's maps. Raises UserError if the run has no L_DPM, or if there is no depth."""
    if not has_target(config):
        names = ", ".join(name for name, spec in LOSSES.items() if "dpm" in spec.reads)
        wanted = f"one of {names} on the teacher's maps, with alpha above 0"
        raise UserError(f"loss: this run has no L_DPM: expected {wanted}, got loss.name {config.loss.name!r}")
    assert config.teacher is not None
    if maps_to_make(config):
        raise UserError(
            f"teacher {config.teacher.name}: its maps are not in store {config.execution.store}; `tiekd run` or `tiekd ablate` "
            "makes them; or name the store that has them with --store"
        )
    histogram = teacher_histogram(config)
    if histogram is None:
        low, high = config.data.depth_range
        raise UserError(f"teacher {config.teacher.name}: no depth of its maps is within {low:g} to {high:g} m")
    return histogram


def target_tables(config: RunConfig, histogram: Histogram) -> TargetTables:
    """Describe the target of a config at the PERCENTILES of the depths, and on all of them."""
    rows = [target_at(depth, config) for depth in percentiles(histogram)]
    return TargetTables(config, rows, [describe(variant, histogram) for variant in variants_of(config)])


def percentiles(histogram: Histogram) -> list[float]:
    """The PERCENTILES of the depths, in m."""
    depth, count = histogram
    places = np.searchsorted(np.cumsum(count) / count.sum(), np.array(PERCENTILES) / 100)
    return [float(value) for value in depth[np.unique(places.clip(max=len(depth) - 1))]]


def target_at(depth: float, config: RunConfig) -> TargetAtDepth:
    """Describe the target of one depth in m."""
    (target,), centers = target_of(np.array([depth]), config), bins_of(config)[1]
    mean = float(target @ centers)
    entropy, n_bins = _spread(target)
    std = float(target @ (centers - mean) ** 2) ** 0.5
    return TargetAtDepth(depth, mean, mean - depth, std, float(entropy), int(n_bins))


def _spread(target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The entropy in bits, and the fewest bins that hold MASS, of targets [*, K]."""
    entropy = -np.sum(target * np.log2(target, out=np.zeros_like(target), where=target > 0), axis=-1)
    held = np.cumsum(-np.sort(-target, axis=-1), axis=-1)
    return entropy, 1 + np.sum(held < MASS, axis=-1)


def variants_of(config: RunConfig) -> list[RunConfig]:
    """The config itself, and the same with every other `loss.dpm`, without the quirks of the released one."""
    changes = {"fidelity": sorted(config.allowed_quirks - QUIRKS_OF_DPM)}
    return [config, *(override(config, {"loss.dpm": name, **changes}) for name in DPMS if name != config.loss.dpm)]


def describe(config: RunConfig, histogram: Histogram) -> Variant:
    """Describe the target of a config on the depths of a histogram."""
    depth, count = histogram
    entropy, n_bins = (float(np.average(values, weights=count)) for values in _spread(target_of(depth, config)))
    return Variant(config.loss.dpm, ", ".join(target_settings(config)), floor_of(config, histogram), entropy, n_bins)


def target_text(tables: TargetTables) -> str:
    """The tables in columns of text, below what the target is."""
    config = tables.config
    assert config.teacher is not None
    (low, high), bins, spec = config.data.depth_range, config.bins, DPMS[config.loss.dpm]
    settings = f"; {tables.variants[0].settings}" if tables.variants[0].settings else ""
    softness = "entropy, bits", f"bins with {MASS:.0%}"
    lines = [("depth of the teacher, m", "mean of the target", "bias", "std", *softness)]
    for row in tables.rows:
        depths = f"{row.depth:.2f}", f"{row.mean:.2f}", f"{row.bias:+.3f}", f"{row.std:.2f}"
        lines.append((*depths, f"{row.entropy:.1f}", str(row.n_bins)))
    floors = [("loss.dpm", "", "floor: abs_rel", "rmse, m", "delta1", *softness)]
    for variant in tables.variants:
        floor = f"{variant.floor.abs_rel:.4f}", f"{variant.floor.rmse:.3f}", f"{variant.floor.delta1:.4f}"
        floors.append((variant.dpm, variant.settings, *floor, f"{variant.entropy:.1f}", f"{variant.n_bins:.1f}"))
    return "\n".join(
        [
            f"{config.data.name}, teacher {config.teacher.name}; {bins.n_bins} {bins.spacing} bins from {low:g} to {high:g} m",
            f"loss.dpm {config.loss.dpm}: {spec.label}{settings}",
            f"({spec.source})",
            *_columns(lines),
            *_columns(floors),
        ]
    )


def _columns(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
