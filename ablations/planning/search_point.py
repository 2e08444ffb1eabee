"""What a point of a search is: one run for each seed, and the mean of what they give. Knows neither Ray nor Optuna."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ablations.planning.study import MEASURED_OBJECTIVES
from search_spaces.space import Point
from tiekd.config import RunConfig, build
from tiekd.config.documents import with_values
from tiekd.store.run_store import RunRecord, RunStore

TrialResult = dict[str, Any]
ReportFn = Callable[[TrialResult], None]
ExecuteRun = Callable[[dict, ReportFn], TrialResult]


@dataclass(frozen=True)
class SeedRuns:
    """How a point becomes runs."""

    base: dict[str, Any]  # the settings that the base config states
    seeds: list[int]
    objectives: list[str]

    def document(self, point: Point, seed: int) -> dict[str, Any]:
        return with_values(self.base, {**point, "seed": seed})

    def config(self, point: Point, seed: int) -> RunConfig:
        """Raises UserError where the point's settings contradict each other."""
        return build(self.document(point, seed))


def execute_point(point: Point, repeats: SeedRuns, carry_out: ExecuteRun, report: ReportFn) -> TrialResult:
    """Carry out a point's runs, seed after seed. Returns the outcome of its trial.

    `report` receives each epoch of the first run, then once at the end of each run but the last: the means so far, at as many
    epochs as were spent. A run without a number ends the trial with its cause.
    """
    ended: list[TrialResult] = []
    for seed in repeats.seeds:
        outcome = carry_out(repeats.document(point, seed), _silent if ended else report)
        if outcome["state"] != "done":
            told = f"seed {seed}: {outcome['cause']}" if len(repeats.seeds) > 1 else outcome["cause"]
            return {**outcome, "cause": told, "run_ids": [*(o["run_id"] for o in ended), outcome["run_id"]]}
        config = repeats.config(point, seed)
        record = RunStore(config.execution.store, must_exist=True).run(outcome["run_id"])
        ended.append(outcome | measured_objectives(record, config, repeats.objectives))
        if len(ended) < len(repeats.seeds):
            report(_so_far(ended, repeats.objectives))
    return _so_far(ended, repeats.objectives) | {"state": "done", "cause": ""}


def _silent(outcome: TrialResult) -> None:
    """Schedulers compare first runs by the epoch; later ones count whole."""


def measured_objectives(record: RunRecord, config: RunConfig, objectives: list[str]) -> dict[str, float]:
    """Those objectives that are no metrics of a validation."""
    wanted = [name for name in objectives if name in MEASURED_OBJECTIVES]
    if not wanted:
        return {}
    from tiekd.deploy.profile import run_efficiency  # and with it PyTorch, for which the plan of a search does not wait

    efficiency = run_efficiency(record, config)
    return {name: efficiency[name] for name in wanted}


def _so_far(ended: list[TrialResult], objectives: list[str]) -> TrialResult:
    """The means over the runs that have ended, and what each gave."""
    means = {name: statistics.fmean(outcome[name] for outcome in ended) for name in objectives}
    return {
        "run_id": ended[0]["run_id"],
        "run_ids": [outcome["run_id"] for outcome in ended],
        "epoch": sum(outcome["epoch"] for outcome in ended),
        "device_seconds": sum(outcome["device_seconds"] for outcome in ended),
        "by_seed": [[outcome[name] for outcome in ended] for name in objectives],  # a mapping would reach no searcher
        **means,
    }
