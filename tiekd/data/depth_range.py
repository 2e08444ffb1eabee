"""Whether depths that a user brings can be in metres, and reach as far as the data. Does not import PyTorch."""

from collections.abc import Iterable

import numpy as np

from tiekd.errors import UserError

N_MAPS = 8  # of a split, evenly spaced, that are read to judge their unit
UNITS = {"mm": 1e3, "cm": 1e2, "dm": 10.0, "km": 1e-3}  # value at 1 m
OTHER_UNITS = {"inches": 39.37, "feet": 3.281}  # that only ground truth tells
MOST = 0.98  # share of a map's depths; outdoors, much of an honest map may be sky at the cap
FAR_BELOW = 1 / 50  # of the cap
TYPICAL = 1 / 4  # median over the cap, roughly, of rooms and streets
# Medians of real ground truth are 0.12 to 0.33 of the usual caps (KITTI, NYU Depth v2, 7-Scenes); a factor of 10 shows.
USUAL = 1 / 25, 1.0
# Median prediction over median ground truth: 0.74 to 1.53 for one constant depth on those data sets, up to 2.5 after one epoch.
USUAL_RATIO = 3.0


def check_units(maps: Iterable[np.ndarray], max_depth: float, what: str, remedy: str = "") -> str:
    """Raise UserError if more than a quarter of some depth maps cannot be in m; return a remark if as many hardly can, else "".

    maps: [H, W] m each; values that are not positive mean "no depth". A map cannot be in m if it has no depth, if almost all of
    it lies at `max_depth` or beyond, or far below it. Both messages name the median and the likely unit.
    """
    n_maps, odd, unusual = 0, [], []
    for depth in maps:
        n_maps += 1
        valid = depth[depth > 0]
        median = float(np.median(valid)) if valid.size else 0.0
        if problem := _problem(valid, max_depth):
            odd.append((problem, median))
        elif not USUAL[0] <= median / max_depth <= USUAL[1]:
            unusual.append(("have an unusual median", median))
    found = odd if 4 * len(odd) > n_maps else sorted(odd + unusual)
    if 4 * len(found) <= n_maps:
        return ""
    problem, median = found[len(found) // 2]
    unit = _likely_unit(median, max_depth)
    hint = f"; probably in {unit}, needed m" if unit else "; needed m"
    message = (
        f"{what}: {len(found)} of {n_maps} maps {problem} (median {median:.4g} m, data.max_depth {max_depth:g} m){hint}{remedy}"
    )
    if found is odd:
        raise UserError(message)
    return message


def check_ratio(ratio: float, what: str, remedy: str) -> str:
    """Return a remark if depth maps whose median is `ratio` times that of the ground truth are probably not in m, else ""."""
    if not ratio > 0 or 1 / USUAL_RATIO <= ratio <= USUAL_RATIO:  # NaN: no ground truth
        return ""
    units = UNITS | OTHER_UNITS
    unit = min(units, key=lambda name: abs(np.log(ratio / units[name])))
    hint = f"probably in {unit}, needed m" if USUAL_RATIO**-0.5 < ratio / units[unit] < USUAL_RATIO**0.5 else "needed m"
    return f"{what}: their median is {ratio:.3g} times that of the ground truth; {hint}{remedy}"


def _problem(valid: np.ndarray, max_depth: float) -> str:
    if not valid.size:
        return "have no depth above 0"
    if np.mean(valid >= 0.999 * max_depth) > MOST:
        return "lie almost everywhere at the cap or beyond"
    if np.mean(valid <= FAR_BELOW * max_depth) > MOST:
        return "lie far below the cap"
    return ""


def _likely_unit(median: float, max_depth: float) -> str:
    """The unit in which a median of that many m would be closest to a typical depth; empty if none is plausible."""
    if 0.999 <= median / max_depth <= 1.001:  # clipped when the maps were made
        return "mm or cm when they were made"
    distances = {unit: abs(np.log(median / factor / (TYPICAL * max_depth))) for unit, factor in UNITS.items() if median > 0}
    unit = min(distances, key=distances.__getitem__, default="")
    return unit if unit and FAR_BELOW <= median / UNITS[unit] / max_depth <= 1 else ""


def check_reach(what: str, largest: float, needed: float, setting: str = "data.max_depth") -> None:
    """Raise UserError if a network or its maps, `what`, end at a smaller depth (m) than the data; `setting` states theirs."""
    if largest < needed:
        remedy = ", or lower data.max_depth" if setting == "data.max_depth" else ""
        raise UserError(
            f"{what}: its depth ends at {largest:g} m, {setting} is {needed:g} m; use a model of the data's range{remedy}"
        )
