"""What a plan will cost, from what its study's runs have cost so far. Knows no Ray."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tiekd.config import RunConfig
from tiekd.data import open_frames
from tiekd.store.run_status import Status

SAME_KIND = "runs alike"
SAME_NETWORK = "other runs of their network, by epochs and frames"
NO_BASIS = "nothing"


@dataclass(frozen=True)
class Estimate:
    """Device seconds of what is to compute, as far as known, and the number of cells by what theirs rests on."""

    device_seconds: float
    rests_on: dict[str, int]

    @property
    def unknown(self) -> int:
        """Cells of which nothing is known: they come on top."""
        return self.rests_on.get(NO_BASIS, 0)

    def to_dict(self, slots: int) -> dict[str, Any]:
        """With the seconds that it takes where `slots` devices compute; 0 slots are not known."""
        wall = self.device_seconds / slots if slots else None
        return {"device_seconds": self.device_seconds, "rests_on": self.rests_on, "slots": slots, "wall_seconds": wall}

    def tell(self, slots: int) -> str:
        if not self.rests_on:
            return "nothing"
        known = {basis: count for basis, count in self.rests_on.items() if basis != NO_BASIS}
        if not known:
            return "unknown: no run of this study has finished an epoch yet"
        wall = f", {self.device_seconds / slots / 3600:.2f} hours on {slots} at a time" if slots else ""
        basis = "; ".join(f"{count} from {name}" for name, count in known.items())
        rest = f"; {self.unknown} more of unknown cost" if self.unknown else ""
        return f"{self.device_seconds / 3600:.2f} device-hours{wall} ({basis}{rest})"


def estimate_cost(todo: Iterable[tuple[RunConfig, Status]], known: Iterable[tuple[RunConfig, Status]]) -> Estimate:
    """Cost of the epochs that runs still need, at the pace of the `known` ones, finished or not."""
    paces = _Paces()
    for config, status in known:
        paces.add(config, status)
    seconds, rests_on = 0.0, Counter()
    for config, status in todo:
        pace, basis = paces.of(config)
        seconds += pace * max(config.optim.epochs - status.epoch, 0)
        rests_on[basis] += 1
    return Estimate(seconds, dict(rests_on))


class _Paces:
    """Device seconds of an epoch."""

    def __init__(self) -> None:
        self._alike: defaultdict[str, list[float]] = defaultdict(list)
        self._per_frame: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, config: RunConfig, status: Status) -> None:
        if status.epoch and status.device_seconds:
            pace = status.device_seconds / status.epoch
            self._alike[_kind(config)].append(pace)
            self._per_frame[_network(config)].append(pace / _frames(config))

    def of(self, config: RunConfig) -> tuple[float, str]:
        """An epoch's device seconds, and what this rests on."""
        if alike := self._alike.get(_kind(config)):
            return fmean(alike), SAME_KIND
        if per_frame := self._per_frame.get(_network(config)):
            return fmean(per_frame) * _frames(config), SAME_NETWORK
        return 0.0, NO_BASIS


def _kind(config: RunConfig) -> str:
    """Epochs of runs of one kind cost about the same: same data, network and batches."""
    return str((config.data, config.student, config.bins.n_bins, config.optim.batch_size))


def _network(config: RunConfig) -> str:
    """Frames cost about the same in runs of one network on crops of one size."""
    return str((config.data.train_crop, config.student, config.bins.n_bins))


def _frames(config: RunConfig) -> int:
    return len(open_frames(config.data, "train"))
