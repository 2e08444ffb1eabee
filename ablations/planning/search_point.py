"""Evaluate a point of a search: compute one run per seed and average the objectives. Imports neither Ray nor Optuna."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ablations.planning.search_config import MEASURED_OBJECTIVES
from search_spaces.space import Point
from tiekd.config import ExecutionConfig, RunConfig, build
from tiekd.config.documents import with_values
from tiekd.store.run_store import RunRecord, RunStore

TrialResult = dict[str, Any]
ReportFn = Callable[[TrialResult], None]
ExecuteRun = Callable[[dict[str, Any], ReportFn], TrialResult]


@dataclass(frozen=True)
class SeedRuns:
    """The runs of a search's points: one per seed."""

    base: dict[str, Any]  # the settings that the base config states, without defaults
    seeds: list[int]
    objectives: list[str]

    def computed_as(self, execution: ExecutionConfig) -> "SeedRuns":
        """Return the same runs with other settings of execution."""
        return replace(self, base={**self.base, "execution": execution.model_dump(mode="json")})

    def document(self, point: Point, seed: int) -> dict[str, Any]:
        return with_values(self.base, {**point, "seed": seed})

    def config(self, point: Point, seed: int) -> RunConfig:
        """Return the config of a run. Raises UserError if the settings of the point contradict each other."""
        return build(self.document(point, seed))


def execute_point(point: Point, seed_runs: SeedRuns, execute_run: ExecuteRun, report: ReportFn) -> TrialResult:
    """Compute the runs of a point, one seed after the other, and return the result of its trial.

    `report` receives each epoch of the first run, since schedulers compare trials by their first seed, and after each run but
    the last the means so far; "epoch" counts the epochs of all seeds. The first run that is not done ends the trial.
    """
    results: list[TrialResult] = []
    for seed in seed_runs.seeds:
        result = execute_run(seed_runs.document(point, seed), (lambda epoch: None) if results else report)
        if result["state"] != "done":
            cause = f"seed {seed}: {result['cause']}" if len(seed_runs.seeds) > 1 else result["cause"]
            return {**result, "cause": cause, "run_ids": [*(r["run_id"] for r in results), result["run_id"]]}
        config = seed_runs.config(point, seed)
        record = RunStore(config.execution.store, must_exist=True).run(result["run_id"])
        results.append(result | measured_objectives(record, config, seed_runs.objectives))
        if len(results) < len(seed_runs.seeds):
            report(_mean_result(results, seed_runs.objectives))
    return _mean_result(results, seed_runs.objectives) | {"state": "done", "cause": ""}


def measured_objectives(record: RunRecord, config: RunConfig, objectives: list[str]) -> dict[str, float]:
    """Return those objectives that are measured on the trained student, not by validation."""
    wanted = [name for name in objectives if name in MEASURED_OBJECTIVES]
    if not wanted:
        return {}
    from tiekd.deploy.profile import run_efficiency  # imports PyTorch, which planning a search does not need

    efficiency = run_efficiency(record, config)
    return {name: efficiency[name] for name in wanted}


def _mean_result(results: list[TrialResult], objectives: list[str]) -> TrialResult:
    """Return the means of the objectives over the runs so far, and the value of each run."""
    means = {name: statistics.fmean(result[name] for result in results) for name in objectives}
    return {
        "run_id": results[0]["run_id"],
        "run_ids": [result["run_id"] for result in results],
        "epoch": sum(result["epoch"] for result in results),
        "device_seconds": sum(result["device_seconds"] for result in results),
        "by_seed": [[result[name] for result in results] for name in objectives],  # Tune would flatten a dict
        **means,
    }
