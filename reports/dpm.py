"""`tiekd dpm`: what the target of L_DPM says about a teacher's depths, before anything is trained."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiekd.cli.options import ConfigArgument, JsonOption, SetOption, StoreOption
from tiekd.errors import UserError
from tiekd.store.files import json_text

if TYPE_CHECKING:
    import numpy as np

    from tiekd.config import RunConfig
    from tiekd.distill.target_floor import Floor, Histogram

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
    floor: "Floor"
    entropy: float  # bits
    n_bins: float


def dpm(
    config: ConfigArgument,
    overrides: SetOption = [],  # noqa: B006 - repeatable in Typer's way
    store: StoreOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder for a figure; created if missing")] = None,
    as_json: JsonOption = False,
) -> None:
    """Explain the target of L_DPM on the depths of the teacher's maps, before anything is trained.

    Prints the mean of the target against the teacher's depth, its entropy and its bins; and the floor, the error of a student
    that reproduces it, beside that of every other `loss.dpm` with the same settings.

    Example: tiekd dpm debug --set loss.sigma=0.8 --store demo/store --out demo/dpm
    """
    from tiekd.cli.packaged import find_run_config
    from tiekd.config import load_config
    from tiekd.config.documents import parse_overrides
    from tiekd.store.files import check_output_folder

    if out is not None:
        check_output_folder(out, "--out")
    changes = parse_overrides(overrides) | ({"execution.store": store} if store else {})
    run = load_config(find_run_config(config), changes)
    histogram = _histogram(run)
    rows = [target_at(depth, run) for depth in percentiles(histogram)]
    variants = [describe(variant, histogram) for variant in variants_of(run)]
    files: list[Path] = []
    if out is not None:
        from reports.figures.dpm_target import dpm_target_figure
        from reports.figures.figures import save_figure

        files = save_figure(dpm_target_figure(run, histogram, [row.depth for row in rows[1::2]]), out)
    _print(run, rows, variants, files, as_json)


def _histogram(config: "RunConfig") -> "Histogram":
    """The depths of the teacher's maps. Raises UserError if there is no target, or no depth."""
    from tiekd.config.specs import LOSSES
    from tiekd.data.inputs import maps_to_make
    from tiekd.distill.target_floor import has_target, teacher_histogram

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


def percentiles(histogram: "Histogram") -> list[float]:
    """The PERCENTILES of the depths, in m."""
    import numpy as np

    depth, count = histogram
    places = np.searchsorted(np.cumsum(count) / count.sum(), np.array(PERCENTILES) / 100)
    return [float(value) for value in depth[np.unique(places.clip(max=len(depth) - 1))]]


def target_at(depth: float, config: "RunConfig") -> TargetAtDepth:
    """Describe the target of one depth in m."""
    import numpy as np

    from tiekd.distill.target_floor import bins_of, target_of

    (target,), centers = target_of(np.array([depth]), config), bins_of(config)[1]
    mean = float(target @ centers)
    entropy, n_bins = _spread(target)
    std = float(target @ (centers - mean) ** 2) ** 0.5
    return TargetAtDepth(depth, mean, mean - depth, std, float(entropy), int(n_bins))


def _spread(target: "np.ndarray") -> tuple["np.ndarray", "np.ndarray"]:
    """The entropy in bits, and the fewest bins that hold MASS, of targets [*, K]."""
    import numpy as np

    entropy = -np.sum(target * np.log2(target, out=np.zeros_like(target), where=target > 0), axis=-1)
    held = np.cumsum(-np.sort(-target, axis=-1), axis=-1)
    return entropy, 1 + np.sum(held < MASS, axis=-1)


def variants_of(config: "RunConfig") -> list["RunConfig"]:
    """The config itself, and the same with every other `loss.dpm`, without the quirks of the released one."""
    from tiekd.config import override
    from tiekd.config.quirks import QUIRKS_OF_DPM
    from tiekd.config.specs import DPMS

    changes = {"fidelity": sorted(config.allowed_quirks - QUIRKS_OF_DPM)}
    return [config, *(override(config, {"loss.dpm": name, **changes}) for name in DPMS if name != config.loss.dpm)]


def describe(config: "RunConfig", histogram: "Histogram") -> Variant:
    """Describe the target of a config on the depths of a histogram."""
    import numpy as np

    from tiekd.distill.target_floor import floor_of, target_of, target_settings

    depth, count = histogram
    entropy, n_bins = (float(np.average(values, weights=count)) for values in _spread(target_of(depth, config)))
    return Variant(config.loss.dpm, ", ".join(target_settings(config)), floor_of(config, histogram), entropy, n_bins)


def _print(config: "RunConfig", rows: list[TargetAtDepth], variants: list[Variant], files: list[Path], as_json: bool) -> None:
    if as_json:
        tables = {"target": [asdict(row) for row in rows]}
        found = [asdict(variant) | {"floor": variant.floor._asdict()} for variant in variants]
        print(
            json_text({"dpm": config.loss.dpm, **tables, "variants": found, "files": [str(file) for file in files]}, indent=2)
        )
        return
    from rich.table import Table

    from tiekd.cli.console import make_console
    from tiekd.config.specs import DPMS

    assert config.teacher is not None
    console, (low, high) = make_console(), config.data.depth_range
    spec, settings = DPMS[config.loss.dpm], f"; {variants[0].settings}" if variants[0].settings else ""
    console.print(
        f"{config.data.name}, teacher {config.teacher.name}; {config.bins.n_bins} {config.bins.spacing} bins from {low:g} to "
        f"{high:g} m\nloss.dpm {config.loss.dpm}: {spec.label}{settings}\n({spec.source})",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False)
    for title in ("depth of the teacher, m", "mean of the target", "bias", "std", "entropy, bits", f"bins with {MASS:.0%}"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            *(
                f"{row.depth:.2f}",
                f"{row.mean:.2f}",
                f"{row.bias:+.3f}",
                f"{row.std:.2f}",
                f"{row.entropy:.1f}",
                f"{row.n_bins}",
            )
        )
    console.print(table)
    columns = "floor: abs_rel", "rmse, m", "delta1", "entropy, bits", f"bins with {MASS:.0%}"
    table = Table("loss.dpm", "", *columns, box=None, pad_edge=False)
    for variant in variants:
        floor, softness = variant.floor, (f"{variant.entropy:.1f}", f"{variant.n_bins:.1f}")
        numbers = f"{floor.abs_rel:.4f}", f"{floor.rmse:.3f}", f"{floor.delta1:.4f}"
        table.add_row(variant.dpm, variant.settings, *numbers, *softness)
    console.print(table)
    for file in files:
        console.print(str(file), highlight=False, soft_wrap=True)
