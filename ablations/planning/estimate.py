"""Estimate the cost of a plan from the epochs that the study's runs have already computed."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tiekd.config import RunConfig
from tiekd.data.inputs import train_frames
from tiekd.store.run_status import Status

# What the estimate of a cell is based on.
SAME_KIND = "runs with the same data, network and batch size"
SAME_NETWORK = "runs of the same network, scaled by epochs and frames"
NO_BASIS = "nothing"


@dataclass(frozen=True)
class Estimate:
    """Device seconds to compute, as far as known, and the number of cells per basis of their estimate."""

    device_seconds: float
    cells_by_basis: dict[str, int]

    @property
    def n_unknown(self) -> int:
        """Number of cells whose cost is unknown and not included."""
        return self.cells_by_basis.get(NO_BASIS, 0)

    def to_dict(self, slots: int) -> dict[str, Any]:
        """Return the estimate with the wall time for `slots` devices (0: unknown)."""
        wall = self.device_seconds / slots if slots else None
        seconds = self.device_seconds
        return {"device_seconds": seconds, "rests_on": self.cells_by_basis, "slots": slots, "wall_seconds": wall}

    def summary(self, slots: int) -> str:
        """Return the estimate in words, with the wall time for `slots` devices (0: unknown)."""
        if not self.cells_by_basis:
            return "nothing"
        known = {basis: count for basis, count in self.cells_by_basis.items() if basis != NO_BASIS}
        if not known:
            return "unknown: no run of this study has finished an epoch yet"
        wall = f", {self.device_seconds / slots / 3600:.2f} hours on {slots} devices" if slots else ""
        bases = "; ".join(f"{count} from {basis}" for basis, count in known.items())
        unknown = f"; {self.n_unknown} more of unknown cost" if self.n_unknown else ""
        return f"{self.device_seconds / 3600:.2f} device-hours{wall} ({bases}{unknown})"


def estimate_cost(todo: Iterable[tuple[RunConfig, Status]], known: Iterable[tuple[RunConfig, Status]]) -> Estimate:
    """Estimate the cost of the epochs that the runs in `todo` still need from those that the `known` runs have computed."""
    costs = _EpochCosts()
    for config, status in known:
        costs.add(config, status)
    seconds = 0.0
    cells_by_basis: Counter[str] = Counter()
    for config, status in todo:
        per_epoch, basis = costs.estimate(config)
        seconds += per_epoch * max(config.optim.epochs - status.epoch, 0)
        cells_by_basis[basis] += 1
    return Estimate(seconds, dict(cells_by_basis))


class _EpochCosts:
    """Device seconds per epoch, by kind of run; and per epoch and frame, by network."""

    def __init__(self) -> None:
        self._per_epoch: defaultdict[str, list[float]] = defaultdict(list)
        self._per_frame: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, config: RunConfig, status: Status) -> None:
        if status.epoch and status.device_seconds:
            per_epoch = status.device_seconds / status.epoch
            self._per_epoch[_kind(config)].append(per_epoch)
            self._per_frame[_network(config)].append(per_epoch / _n_frames(config))

    def estimate(self, config: RunConfig) -> tuple[float, str]:
        """Return the device seconds of an epoch and the basis of the estimate."""
        if per_epoch := self._per_epoch.get(_kind(config)):
            return fmean(per_epoch), SAME_KIND
        if per_frame := self._per_frame.get(_network(config)):
            return fmean(per_frame) * _n_frames(config), SAME_NETWORK
        return 0.0, NO_BASIS


def _kind(config: RunConfig) -> str:
    """Return a key of runs whose epochs cost about the same."""
    return str((config.data, _n_frames(config), config.student, config.bins.n_bins, config.optim.batch_size))


def _network(config: RunConfig) -> str:
    """Return a key of runs whose frames cost about the same."""
    return str((config.data.train_crop, config.student, config.bins.n_bins))


def _n_frames(config: RunConfig) -> int:
    return len(train_frames(config))
